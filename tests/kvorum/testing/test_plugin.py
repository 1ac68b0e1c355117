"""The fixtures, as those see them who have installed Kvorum beside their own software."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kvorum.server_packages import HOME
from tests.common.servers import ROOT
from tests.kvorum.testing.helpers import children, eventually, lives

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "kvorum.testing.plugin", "-W", "error")
USE = """
import urllib.request

def is_healthy(server):
    return urllib.request.urlopen(server.url + "/health").status == 200
"""


@pytest.fixture(autouse=True)
def _outside(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in ``pytester`` find Kvorum, and load the plugins they name."""
    monkeypatch.setenv("PYTHONPATH", str(HOME))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(use=USE)


def test_each_test_has_a_server_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from use import is_healthy

        ports = set()

        def test_one(kvorum_server):
            assert is_healthy(kvorum_server)
            ports.add(kvorum_server.pid)

        def test_another(kvorum_server):
            assert is_healthy(kvorum_server)
            assert kvorum_server.pid not in ports
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=2)


def test_markers_say_what_a_test_gets(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        import urllib.error, urllib.request
        from use import is_healthy

        def put(server, value):
            body = b'{"key": "YQ==", "value": "%s"}' % value
            return urllib.request.urlopen(server.url + "/v3/kv/put", body)

        def test_three(kvorum_cluster):
            assert [is_healthy(one) for one in kvorum_cluster.members] == [True] * 3
            kvorum_cluster.leader().kill()
            put(kvorum_cluster.leader(), b"YQ==")

        @pytest.mark.kvorum_cluster(size=1, flags=["--max-request-bytes=100"])
        @pytest.mark.kvorum_server(flags=["--max-request-bytes=100"])
        def test_other(kvorum_cluster, kvorum_server):
            for server in [*kvorum_cluster.members, kvorum_server]:
                put(server, b"YQ==")
                with pytest.raises(urllib.error.HTTPError):
                    put(server, b"YQ==" * 100)
            assert len(kvorum_cluster.members) == 1
        """
    )
    pytester.runpytest_subprocess(*PLUGIN, "--strict-markers").assert_outcomes(passed=2)


def test_a_marker_that_makes_no_sense_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.kvorum_cluster(5, sise=5)
        def test_wrong(kvorum_cluster): pass

        @pytest.mark.kvorum_cluster(size=9)
        def test_too_large(kvorum_cluster): pass
        """
    )
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "the marker is kvorum_cluster(5, sise=5): expected size= and flags= only",
            "*size is 9: expected a number of members from 1 to 7",
        ]
    )


def test_factories_make_several_for_one_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from use import is_healthy

        made = []

        def test_many(kvorum_server_factory, kvorum_cluster_factory):
            made[:] = [kvorum_server_factory(), kvorum_server_factory(flags=["--max-txn-ops=10"])]
            made.extend(kvorum_cluster_factory(size=1).members)
            assert all(map(is_healthy, made))

        def test_they_are_gone():
            assert [one.is_running() for one in made] == [False] * 3
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=2)


def test_a_project_may_have_packages_named_as_the_servers(pytester: pytest.Pytester) -> None:
    """What the tests import as ``api`` is theirs, and none of the server's packages is there."""
    pytester.mkpydir("api")
    pytester.mkpydir("watch")
    pytester.makepyfile(
        """
        import sys
        import api, watch
        from use import is_healthy

        def test_it(kvorum_server):
            assert is_healthy(kvorum_server)
            import kvorum
            for package in (api, watch):
                assert package.__file__.startswith(sys.path[0])
            assert not {"raft", "kvstate", "api.flags", "aiohttp", "lmdb", "uvloop"} & set(sys.modules)
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


def test_a_run_without_servers_imports_nothing_of_ours_but_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.partition(".")[0] == "kvorum"}
            assert ours == {"kvorum", "kvorum.testing", "kvorum.testing.plugin"}
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


def test_pytest_finds_the_plugin_by_itself(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pyproject.toml says makes an installed Kvorum's fixtures known."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    installed = pytester.mkdir("site") / "kvorum-0.0.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: kvorum\nVersion: 0.0.0\n")
    (installed / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in table.items()
        )
    )
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.setenv("PYTHONPATH", f"{installed.parent}:{HOME}")
    quiet = ("-W", "error", "-p", "no:asyncio")  # which warns where it is not configured
    result = pytester.runpytest_subprocess("--markers", *quiet)
    result.stdout.fnmatch_lines(["@pytest.mark.kvorum_server(*", "@pytest.mark.kvorum_cluster(*"])
    pytester.makepyfile("def test_it(kvorum_server): assert kvorum_server.is_healthy()")
    pytester.runpytest_subprocess(*quiet).assert_outcomes(passed=1)


def test_workers_of_xdist_do_not_meet(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest
        from use import is_healthy

        @pytest.mark.parametrize("number", range(6))
        def test_it(kvorum_server, number):
            assert is_healthy(kvorum_server)
            assert "PYTEST_XDIST_WORKER" in os.environ
        """
    )
    result = pytester.runpytest_subprocess(*PLUGIN, "-p", "xdist", "-n", "2")
    result.assert_outcomes(passed=6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_pytest_is_stopped(
    number: signal.Signals, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C, or by a signal after which it cannot clean up: processes end, and data is removed."""
    data = pytester.mkdir("data")
    monkeypatch.setenv("TMPDIR", str(data))
    pytester.makepyfile(
        """
        import signal

        def test_it(kvorum_server, kvorum_cluster):
            print("ready", flush=True)
            signal.pause()
        """
    )
    command = [sys.executable, "-m", "pytest", "-s", *PLUGIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as run:
        assert run.stdout is not None
        assert any("ready" in line for line in run.stdout)
        (zygote,) = children(run.pid)
        processes = [zygote, *children(zygote)]
        assert len(processes) == 5
        assert list(data.glob("kvorum-testing-*"))
        os.killpg(run.pid, number)
        run.stdout.read()
    eventually(lambda: not any(map(lives, processes)), "all processes end")
    eventually(lambda: not list(data.glob("kvorum-testing-*")), "all data is removed")


def test_a_fork_that_outlives_pytest_keeps_no_servers(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds a copy of every descriptor, and so the end of none can be seen."""
    data = pytester.mkdir("data")
    monkeypatch.setenv("TMPDIR", str(data))
    pytester.makepyfile(
        """
        import os, signal

        def test_it(kvorum_server):
            if (fork := os.fork()) == 0:
                os.setpgid(0, 0)
                signal.pause()
            print("fork", fork, flush=True)
            signal.pause()
        """
    )
    command = [sys.executable, "-m", "pytest", "-s", *PLUGIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        said = next(found for line in run.stdout if (found := re.search(r"fork (\d+)", line)))
        fork = int(said[1])
        try:
            run.kill()
            eventually(lambda: not list(data.glob("kvorum-testing-*")), "all data is removed")
            assert lives(fork)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_the_guides_examples_work(pytester: pytest.Pytester) -> None:
    """Every Python file in docs/testing.md that is a test passes."""
    guide = (ROOT / "docs" / "testing.md").read_text()
    files = re.findall(r"^```python\n# (test_\w+\.py)\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    assert len(files) >= 2
    for name, source in files:
        Path(name).write_text(source)
    result = pytester.runpytest_subprocess(*PLUGIN, "--strict-markers")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= len(files)
