"""The command line against etcdctl: the same words on the same server bring the same output."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum.cli.endpoint import human_bytes
from tests.common.commands import KVORUM, command, normalised, run, watching
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server, running, start_etcd


@pytest.fixture(scope="module")
def two_etcds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Two servers, one that etcdctl talks to and one that kvorum does, so that each command finds
    what the same commands before it left."""
    with (
        running(start_etcd(tmp_path_factory.mktemp("etcdctl"))) as one,
        running(start_etcd(tmp_path_factory.mktemp("kvorum"))) as other,
    ):
        yield {"etcdctl": one, "kvorum": other}


LINES = r"""
put foo bar
put foo bar2 --prev-kv
put k2 v2 -w json
put foo b3 --prev-kv -w json
put foo b4 --prev-kv -w fields
put new v --prev-kv -w fields
get foo
get foo -w json
get foo -w fields
get foo -w table
get nope
get nope -w json
get nope -w fields
get --prefix --keys-only ''
get '' --prefix
get f --prefix --print-value-only
get f --prefix=true --print-value-only=T --hex=1
get foo --prefix=0 --prefix --prefix=false
get foo --print-value-only -w json
get '' --prefix --count-only -w fields
get foo --count-only
get foo --count-only --keys-only
get foo z
get f --from-key --limit=2 -w json
get '' --from-key --order=DESCEND
get '' --prefix --sort-by=CREATE
get '' --prefix --sort-by=version --order=descend
get foo --rev=3
get foo --rev=9999
get foo --consistency=s
get foo --consistency=x
get foo --order=x
get foo --sort-by=x
get
get a b c
get a --prefix --from-key
get a b --prefix
get foo --hex
get foo --hex -w json
put '' x
put
put foo x --ignore-value
put foo --ignore-value
put none --ignore-value
put foo --lease=5 x
put foo --lease=zz x
put foo 'ünïcode and "quotes" & <tags>'
get foo -w fields
get foo -w json
del foo --prev-kv
del nope
put foo 1
del foo --prev-kv -w json
put foo 1
del foo --prev-kv -w fields
del
del a b c
put d1 1
put d2 2
del d --prefix
put d1 1
del d --from-key
put foo again
compaction 5
compaction 5
compaction x
compaction 6 --physical
compaction
compaction 99999
get foo --rev=2
endpoint health
endpoint health -w json
endpoint health -w table
endpoint health -w fields
endpoint health --cluster
endpoint status
endpoint status -w json
endpoint status -w table
endpoint status -w fields
""".strip().splitlines()


def test_commands_say_what_etcdctl_says(two_etcds: dict[str, Server]) -> None:
    """Output, exit code and error of every command line, in this order."""
    for line in LINES:
        theirs = run("etcdctl", two_etcds["etcdctl"], shlex.split(line))
        ours = run("kvorum", two_etcds["kvorum"], shlex.split(line))
        assert ours == theirs, line


TXNS = [
    ('mod("foo") > "0"\n\nput foo "over written"\nget foo\ndel zz\n\nget foo\n\n', []),
    ('ver("foo") = "99"\n\nput foo x\n\nget foo\nget nope\n\n', []),
    ("\n\nget foo\n\n", []),
    ('val("foo") = "1"\n\n\nput foo hi --prev-kv\nget f --prefix\n\n', ["-w", "json"]),
    ('create("foo") = "0"\n\n\nget foo\nput foo z --prev-kv\ndel foo --prev-kv\n\n', ["-w", "fields"]),
    ('create("foo") = "0"\nmod("foo") < "1"\n\nput foo new\n\n\n', []),
    ("bogus\n\n", []),
    ("\nfrob x\n\n", []),
    ("\nput x\n\n\n", []),
    ('mod("foo") > "x"\n\n\n\n', []),
    ("", []),
    ("\nget foo\n\n", ["-i"]),
    ("\nget foo\n\n\n", ["-i"]),
    ("\nput twice 1\nput twice 2\n\n\n", []),
]


@pytest.mark.parametrize(("given", "flags"), TXNS)
def test_transactions_say_what_etcdctl_says(
    given: str, flags: list[str], two_etcds: dict[str, Server]
) -> None:
    """The little language of txn, and what it answers."""
    theirs = run("etcdctl", two_etcds["etcdctl"], ["txn", *flags], given)
    assert run("kvorum", two_etcds["kvorum"], ["txn", *flags], given) == theirs


WATCHES = [
    (["w1"], 9),
    (["w2", "--prev-kv"], 11),
    (["w3", "-w", "json"], 1),
    (["w4", "-w", "fields"], 25),
    (["w5", "--hex"], 9),
    (["w6", "--prefix"], 9),
    (["w7", "w8"], 9),
    (["w9", "--", "sh", "-c", "env | grep ETCD_WATCH_ | grep -v REVISION | sort"], 18),
]


@pytest.mark.parametrize(("arguments", "lines"), WATCHES)
def test_watches_say_what_etcdctl_says(
    arguments: list[str], lines: int, two_etcds: dict[str, Server]
) -> None:
    """What a watch prints for a put, a deletion and another put. They lie in the past, so that they
    come in one response: live, it is a matter of time how many there are."""
    key = arguments[0]
    seen = {}
    for tool, server in two_etcds.items():
        revision = run("kvorum", server, ["put", "before", "x", "-w", "json"])[1]
        start = int(re.search(r'"revision":(\d+)', revision)[1]) + 1
        for change in (["put", key, "1"], ["del", key], ["put", key, "two\twords"]):
            assert run("kvorum", server, change)[0] == 0
        with watching([*command(tool, server), "watch", f"--rev={start}", *arguments]) as line:
            seen[tool] = [normalised(line(), server) for _ in range(lines)]
    assert relative(seen["kvorum"]) == relative(seen["etcdctl"])
    assert seen["kvorum"][-1]


def test_a_watch_prints_each_change_as_it_comes(kvorum_server: Server) -> None:
    """A change is printed, whole, before the next one is made."""
    base = command("kvorum", kvorum_server)
    out = run("kvorum", kvorum_server, ["put", "live", "0", "-w", "json"])[1]
    revision = re.search(r'"revision":(\d+)', out)[1]
    with watching([*base, "watch", "live", f"--rev={revision}"]) as line:
        for number in range(5):
            assert [line() for _ in range(3)] == ["PUT\n", "live\n", f"{number}\n"]
            assert run("kvorum", kvorum_server, ["put", "live", str(number + 1)])[0] == 0


def relative(lines: list[str]) -> list[str]:
    """Without revisions, which differ between the two servers by now."""
    return [re.sub(r'(?i)((?:revision|_revision)"? ?: ?)\d+', r"\1N", line) for line in lines]


def test_a_compacted_watch_ends_with_an_error(two_etcds: dict[str, Server]) -> None:
    """Who asks for a past that is gone is told, and the exit code says so."""
    for tool, server in two_etcds.items():
        for line in (["put", "c", "1"], ["put", "c", "2"]):
            out = run("kvorum", server, [*line, "-w", "json"])[1]
        assert run("kvorum", server, ["compaction", re.search(r'"revision":(\d+)', out)[1]])[0] == 0
        code, _, error = run(tool, server, ["watch", "c", "--rev=1"])
        assert code == 5
        assert "required revision has been compacted" in error
        assert error.endswith("Error: watch is canceled by the server")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (9, "9 B"), (999, "999 B"), (1500, "1.5 kB"), (20480, "20 kB"), (25_000_000, "25 MB")],
)
def test_sizes_are_shown_as_etcdctl_shows_them(count: int, shown: str) -> None:
    """Powers of a thousand, one decimal below ten."""
    assert human_bytes(count) == shown


def test_no_server_is_one_clear_sentence() -> None:
    """An endpoint where nobody listens is named, and the exit code is that of a bad connection."""
    endpoint = f"127.0.0.1:{free_port()}"
    ran = subprocess.run(
        [*KVORUM, "--endpoints", endpoint, "get", "a"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"Error: cannot connect to {endpoint}: ")
    assert ran.stdout == ""


def test_the_status_of_a_silent_endpoint_is_a_failure(kvorum_server: Server) -> None:
    """Those that answer are shown, and the exit code says that one did not."""
    endpoints = f"127.0.0.1:{free_port()},127.0.0.1:{kvorum_server.port}"
    ran = subprocess.run(
        [*KVORUM, "--endpoints", endpoints, "endpoint", "status"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("Failed to get the status of endpoint 127.0.0.1:")
    assert ran.stdout.startswith(f"127.0.0.1:{kvorum_server.port}, ")


def test_another_endpoint_is_tried(kvorum_server: Server) -> None:
    """With several endpoints the first that answers is used."""
    endpoints = f"127.0.0.1:{free_port()},127.0.0.1:{kvorum_server.port}"
    ran = subprocess.run(
        [*KVORUM, "--endpoints", endpoints, "put", "failover", "1"],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert ran.stdout == b"OK\n"


@pytest.mark.parametrize(
    ("to", "complaint"),
    [
        (">/dev/full", "standard output cannot be written: No space left on device"),
        (">&-", "there is no standard output to write to"),
    ],
)
def test_what_cannot_be_written_is_one_clear_sentence(to: str, complaint: str, kvorum_server: Server) -> None:
    """And no success."""
    words = shlex.join([*KVORUM, f"--endpoints=127.0.0.1:{kvorum_server.port}", "put", "unsaid", "1"])
    ran = subprocess.run(f"{words} {to}", shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stderr) == (1, f"Error: {complaint}\n")


def test_bytes_that_are_no_text(kvorum_server: Server) -> None:
    """Keys and values of any bytes go in and come out as they are."""
    value = bytes(range(1, 256)) * 3 + b"\n"
    base = [*KVORUM, "--endpoints", f"127.0.0.1:{kvorum_server.port}"]
    key = b"bytes/\xff\xfe"
    subprocess.run([*base, "put", key], input=value, check=True, capture_output=True, cwd=ROOT)
    got = subprocess.run([*base, "get", key], check=True, capture_output=True, cwd=ROOT).stdout
    assert got == key + b"\n" + value + b"\n"
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}  # as most locales have it
    script = b'value("' + key + b'") = "x"\n\nget k\n\nget ' + key + b"\n\n"
    ran = subprocess.run([*base, "txn"], input=script, check=True, capture_output=True, cwd=ROOT, env=strict)
    assert ran.stdout == b"FAILURE\n\n" + got


def test_importing_kvorum_imports_nothing_of_the_server(tmp_path: Path) -> None:
    """An application with packages of the same names is not disturbed, and pays for nothing."""
    for name in ("api", "raft", "watch", "kvstate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the application\\'s own')")
    code = (
        "import sys, kvorum, kvorum.cli.main\n"
        "found = {name.split('.')[0] for name in sys.modules}\n"
        "found &= {'api', 'raft', 'watch', 'kvstate', 'aiohttp'}\n"
        "assert not found, found"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_serve_is_not_fooled_by_another_api_package(tmp_path: Path) -> None:
    """In a folder with an api package of its own, kvorum serve still finds ours."""
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "__init__.py").write_text("raise ImportError('not ours')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*KVORUM, "serve", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "--data-dir" in ran.stdout
