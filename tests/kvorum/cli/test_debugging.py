"""--debug: what goes on, on standard error, without secrets."""

from __future__ import annotations

import logging

import pytest

from tests.common.commands import run_here
from tests.common.servers import Server


def test_flags_and_requests_are_shown(kvorum_server: Server) -> None:
    """Each flag in its spelling for the environment, then each request with its answer's status."""
    ran = run_here([f"--endpoints={kvorum_server.url}", "put", "debug", "1", "--debug"])
    assert (ran.code, ran.out) == (0, "OK\n")
    *flags, request = ran.error.splitlines()
    assert f"KVORUM_ENDPOINTS={kvorum_server.url}" in flags
    assert "KVORUM_KEEPALIVE_TIME=2s" in flags
    assert request.endswith(f"kvorum.http_sync: {kvorum_server.url}/v3/kv/put: 200")


@pytest.mark.parametrize("words", [["--user=alice:secret"], ["--user=alice", "--password=secret"]])
def test_passwords_are_not_shown(words: list[str], etcd_server: Server) -> None:
    """Nor tokens, nor values."""
    ran = run_here([f"--endpoints={etcd_server.url}", *words, "--debug", "put", "debug", "secret"])
    assert ran.code == 0
    assert "alice" in ran.error
    assert "secret" not in ran.error


def test_nothing_of_it_stays(kvorum_server: Server) -> None:
    """The next command of the same process is as silent as without."""
    before = logging.getLogger("kvorum").level
    run_here([f"--endpoints={kvorum_server.url}", "--debug", "get", "debug"])
    assert run_here([f"--endpoints={kvorum_server.url}", "get", "debug"]).error == ""
    assert logging.getLogger("kvorum").level == before
