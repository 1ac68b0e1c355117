"""lease grant, revoke, timetolive, list and keep-alive against etcdctl."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.common.commands import command, run, watching
from tests.common.servers import ROOT, Server, running, start_etcd

Pair = dict[str, Server]


@pytest.fixture(scope="module")
def two_etcds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two servers, one for each tool, so that each finds what the same commands before left."""
    with (
        running(start_etcd(tmp_path_factory.mktemp("etcdctl"))) as one,
        running(start_etcd(tmp_path_factory.mktemp("kvorum"))) as other,
    ):
        yield {"etcdctl": one, "kvorum": other}


def told(tool: str, servers: Pair, line: str, lease: str) -> tuple[int, str, str]:
    """What a command says, with the lease called LEASE and without the seconds that pass meanwhile."""
    code, out, error = run(tool, servers[tool], shlex.split(line.replace("LEASE", lease)))
    for shown in (lease, str(int(lease, 16))):
        out, error = out.replace(shown, "LEASE"), error.replace(shown, "LEASE")
    out = re.sub(r'(remaining\(|"ttl":|"TTL" : )99\d', r"\1NOW", out)
    # Of the keys of a lease, Go tells in no order.
    keys = re.search(r"attached keys\(\[(.*)\]\)", out)
    if keys:
        out = out.replace(keys[1], " ".join(sorted(keys[1].split())))
    return code, out, error


WITHOUT_LEASE = r"""
lease grant 100
lease grant 1
lease grant 0
lease grant -- -5
lease grant x
lease grant 1_0
lease grant
lease grant 1 2
lease grant 9000000001
lease grant 9999999999999999999
lease grant 100 -w json
lease grant 100 -w fields
lease grant 100 -w table
lease revoke 5
lease revoke zz
lease revoke 0x5
lease revoke
lease revoke 5 6
lease revoke 99999999999999999999
lease revoke 5 -w json
lease revoke -- -1
lease timetolive 5
lease timetolive 5 --keys
lease timetolive 5 -w json
lease timetolive 5 -w fields
lease timetolive 5 -w table
lease timetolive
lease timetolive zz
lease keep-alive 5
lease keep-alive --once 5
lease keep-alive --once 5 -w json
lease keep-alive
lease keep-alive zz
put x y --lease=5
put x y --lease=0x5
put x y --lease=99999999999999999999
""".strip().splitlines()


def without_ids(told: tuple[int, str, str]) -> tuple[int, str, str]:
    """Which ids a server chooses is its own affair."""
    code, out, error = told
    return code, re.sub(r'("ID":|"ID" : )\d{15,}', r"\1ID", out), error


def test_commands_say_what_etcdctl_says(two_etcds: Pair) -> None:
    """Output, exit code and error, where no lease is named, or one that is not there."""
    for line in WITHOUT_LEASE:
        words = shlex.split(line)
        theirs = without_ids(run("etcdctl", two_etcds["etcdctl"], words))
        ours = without_ids(run("kvorum", two_etcds["kvorum"], words))
        assert ours == theirs, line


WITH_LEASE = r"""
put a 1 --lease=LEASE
get a -w json
lease timetolive LEASE
lease timetolive LEASE -w json
lease timetolive LEASE --keys -w json
lease timetolive LEASE --keys -w fields
put b 1 --lease=LEASE
lease timetolive LEASE --keys
lease timetolive LEASE -w table
lease keep-alive --once LEASE
lease keep-alive LEASE --once -w json
lease keep-alive LEASE --once -w fields
lease revoke LEASE
get a
lease timetolive LEASE
""".strip().splitlines()


def test_a_lease_is_told_of_as_by_etcdctl(two_etcds: Pair) -> None:
    """From its grant to its end."""
    leases = {tool: granted(tool, server, 1000) for tool, server in two_etcds.items()}
    for line in WITH_LEASE:
        theirs = told("etcdctl", two_etcds, line, leases["etcdctl"])
        assert told("kvorum", two_etcds, line, leases["kvorum"]) == theirs, line


def granted(tool: str, server: Server, ttl: int) -> str:
    arguments = [*command(tool, server), "lease", "grant", str(ttl)]
    return subprocess.run(arguments, capture_output=True, check=True, cwd=ROOT).stdout.decode().split()[1]


def test_leases_are_listed(two_etcds: Pair) -> None:
    """In every format; of the same server, since each has its own order."""
    server = two_etcds["kvorum"]
    for output in ([], ["-w", "json"], ["-w", "fields"], ["-w", "table"]):
        theirs = run("etcdctl", server, ["lease", "list", *output])
        assert run("kvorum", server, ["lease", "list", *output]) == theirs


def test_keep_alive_goes_on_until_the_lease_is_gone(two_etcds: Pair) -> None:
    """A line for each renewal, and one for the end."""
    server = two_etcds["kvorum"]
    lease = granted("kvorum", server, 2)
    with watching([*command("kvorum", server), "lease", "keep-alive", lease]) as line:
        assert [line() for _ in range(2)] == [f"lease {lease} keepalived with TTL(2)\n"] * 2
        assert run("kvorum", server, ["lease", "revoke", lease])[0] == 0
        while (last := line()).endswith("keepalived with TTL(2)\n"):
            pass
        assert last == f"lease {lease} expired or revoked.\n"
        assert line() == ""
