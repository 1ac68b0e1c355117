"""check datascale: the verdict in etcdctl's words, and where a server does not tell its memory."""

from __future__ import annotations

import re

import pytest

from kvorum import Client
from tests.common.commands import Ran, run, run_here
from tests.common.servers import Server


def check(server: Server, *words: str) -> Ran:
    return run_here([f"--endpoints={server.url}", "check", "datascale", *words])


def test_memory_is_told_in_etcdctl_s_words(etcd_server: Server, key: str) -> None:
    """Of etcd; then the keys are gone, and with them the history and the space, where that is wanted."""
    ran = check(etcd_server, "--keys=200", f"--prefix={key}", "--auto-compact", "--auto-defrag")
    assert (ran.code, ran.error) == (0, ""), ran
    lines = ran.out.splitlines()
    start = "Start data scale check for work load"
    assert lines[0] == f"{start} [200 key-value pairs, 1024 bytes per key-value, 50 concurrent clients]."
    revision = int(lines[1].removeprefix("Compacting with revision "))
    assert lines[2:5] == [
        f"Compacted with revision {revision}",
        f'Defragmenting "{etcd_server.url}"',
        f'Defragmented "{etcd_server.url}"',
    ]
    assert re.fullmatch(r"PASS: Approximate system memory used : -?\d+\.\d\d MB\.", lines[5])
    with Client(etcd_server.url) as client:
        assert client.range(key, prefix=True).count == 0
        assert client.range(key).revision >= revision


def test_a_server_that_does_not_tell_is_measured_all_the_same(kvorum_server: Server, key: str) -> None:
    """And it is no success: what was to be checked is not known."""
    ran = check(kvorum_server, "--keys=200", f"--prefix={key}")
    assert (ran.code, ran.error) == (1, ""), ran
    untold, failed, started, throughput = ran.out.splitlines()
    assert untold == f"{kvorum_server.url}/metrics: 404 Not Found: this server tells no metrics there"
    assert failed == "FAIL: Could not read process_resident_memory_bytes before the put operations."
    assert started.startswith("Start data scale check for work load [200 key-value pairs, ")
    assert int(throughput.removeprefix("Throughput is ").removesuffix(" writes/s")) > 1
    assert run("kvorum", kvorum_server, ["get", "--prefix", key]) == (0, "", "")


@pytest.mark.parametrize("words", [["--load=q"], ["--prefix=used/"]])
def test_mistakes_are_told_as_etcdctl_tells_them(words: list[str], etcd_server: Server) -> None:
    """Before anything is written."""
    assert run("kvorum", etcd_server, ["put", "used/key", "1"])[0] == 0
    ours, theirs = (run(tool, etcd_server, ["check", "datascale", *words]) for tool in ("kvorum", "etcdctl"))
    assert ours[:2] == theirs[:2]
    assert ours[2].replace("'", "") == theirs[2].replace("'", "")
    assert ours[0] in (3, 4)
