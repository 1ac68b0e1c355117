"""The process that servers are forked from ends with the one that started it, and with it all of theirs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvorum.testing
from kvorum.testing import Server, StartFailed
from kvorum.testing.launcher import Launcher
from tests.kvorum.testing.helpers import eventually, lives, zygote_of


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    made.close()


def start(launcher: Launcher, *flags: str, name: str = "n1") -> Server:
    server = Server(launcher, launcher.directory, flags, name)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def test_closing_it_ends_its_servers_and_removes_their_data(launcher: Launcher) -> None:
    servers = [start(launcher, name=name) for name in ("a", "b")]
    pids = [server.pid for server in servers]
    launcher.close()
    assert not any(pid is None or lives(pid) for pid in pids)
    assert not launcher.directory.exists()
    for server in servers:
        assert not server.is_running()
        server.close()


def test_its_death_is_its_servers_death(launcher: Launcher) -> None:
    server = start(launcher)
    pid = server.pid
    assert pid is not None
    os.kill(zygote_of(launcher.directory), signal.SIGKILL)
    eventually(lambda: not lives(pid), "the server ends")
    assert not server.is_running()
    with pytest.raises(StartFailed, match="the process that servers are forked from has ended"):
        server.start()
    server.close()


def test_after_its_death_there_is_another() -> None:
    with kvorum.testing.server() as server:
        os.kill(zygote_of(server.data_dir.parent.parent), signal.SIGKILL)
        eventually(lambda: not server.is_running(), "the server ends")
        with kvorum.testing.server() as other:
            assert other.is_healthy()


def test_a_signal_to_a_whole_terminal_does_not_reach_it(launcher: Launcher) -> None:
    """Tests clean up after Ctrl-C, and need their servers for it."""
    server = start(launcher)
    zygote = zygote_of(launcher.directory)
    assert os.getpgid(zygote) != os.getpgid(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(zygote, number)
    assert server.is_healthy()
    server.restart()
    # A server is an ordinary one, that signals end.
    assert server.pid is not None
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: not server.is_running(), "the server ends")
    server.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KVORUM_MAX_TXN_OPS", "none"),
        ("PYTHONOPTIMIZE", "1"),
        ("PYTHONWARNINGS", "error"),
        ("COV_CORE_SOURCE", "."),
    ],
)
def test_the_environment_of_the_tests_does_not_reach_servers(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    launcher = Launcher()
    try:
        with contextlib.closing(start(launcher)) as server:
            environment = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
            assert f"{variable}={value}" not in environment
            assert f"PATH={os.environ['PATH']}" in environment
    finally:
        launcher.close()


def test_data_goes_where_the_tests_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    launcher = Launcher()
    try:
        assert launcher.directory.parent == tmp_path
        start(launcher).close()
    finally:
        launcher.close()
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_hides_the_servers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api").mkdir()
    for module in ("__init__", "flags"):
        (tmp_path / "api" / f"{module}.py").touch()
    (tmp_path / "sitecustomize.py").write_text("import api.flags\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    launcher = Launcher()
    try:
        with pytest.raises(StartFailed, match=f"the folder {tmp_path} has a package named api that hides"):
            start(launcher)
    finally:
        launcher.close()


def test_a_fork_of_the_tests_has_servers_of_its_own() -> None:
    """Not from its parent's process: they would not end with the fork, and answers could be mixed up."""
    with kvorum.testing.server() as server:
        if (child := os.fork()) == 0:
            code = 1
            try:
                with kvorum.testing.server() as other:
                    apart = other.data_dir.parents[1] != server.data_dir.parents[1]
                    code = 0 if other.is_healthy() and apart else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert server.is_healthy()
