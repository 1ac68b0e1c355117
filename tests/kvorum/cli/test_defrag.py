"""defrag against etcdctl, on real etcd; and where it cannot be had."""

from __future__ import annotations

import pytest

from tests.common.commands import run, run_here
from tests.common.ports import free_port
from tests.common.servers import Server


@pytest.mark.parametrize(
    "words", [[], ["--cluster"], ["-w", "json"], ["-w", "table"], ["ignored"], ["--cluster=false"]]
)
def test_defrag_says_what_etcdctl_says(words: list[str], etcd_server: Server) -> None:
    """Output and exit code."""
    ours, theirs = (run(tool, etcd_server, ["defrag", *words]) for tool in ("kvorum", "etcdctl"))
    assert ours == theirs
    assert ours[0] == 0


def test_a_silent_endpoint_is_a_failure_and_the_others_are_defragmented(etcd_server: Server) -> None:
    """Each is told, in order."""
    silent = f"127.0.0.1:{free_port()}"
    ran = run_here([f"--endpoints={silent},{etcd_server.url}", "defrag"])
    assert ran.code == 1
    assert ran.out == f"Finished defragmenting etcd member[{etcd_server.url}]\n"
    assert ran.error.startswith(f"Failed to defragment etcd member[{silent}] (cannot connect to {silent}: ")


def test_a_server_without_it_says_so(kvorum_server: Server) -> None:
    """In one sentence."""
    code, out, error = run("kvorum", kvorum_server, ["defrag"])
    assert (code, out) == (1, "")
    said = "this server has no defragmentation: etcd's has, Kvorum's has not yet"
    assert error == f"Failed to defragment etcd member[127.0.0.1:PORT] ({said})"
