"""What could come next where users and roles are named: a shell asks, a real etcd knows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.common.commands import KVORUM, run
from tests.common.servers import ROOT, Server, free_port, running, start_etcd
from tests.kvorum.cli.twins import CHEAP

AS_ROOT = "--user=root:secret"
CHANGES = (
    "user add alice --no-password",
    "user add alfred --no-password",
    "user add root:secret",
    "role add writer",
    "role add reader",
    "put /app/port 1",
    "auth enable",
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(start_etcd(tmp_path_factory.mktemp("etcd"), CHEAP)) as server:
        for line in CHANGES:
            assert run("kvorum", server, line.split())[0] == 0, line
        yield server


def completed(port: int, line: str) -> list[str]:
    """As bash asks: the words that are possible at the end of the line."""
    environment = {
        **os.environ,
        "_KVORUM_COMPLETE": "bash_complete",
        "KVORUM_COMP_LINE": f"kvorum --endpoints=127.0.0.1:{port} {line}",
    }
    ran = subprocess.run(KVORUM, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.stderr == ""
    return [answer.partition(",")[2] for answer in ran.stdout.splitlines() if answer]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("user get al", ["alfred", "alice"]),
        ("user passwd r", ["root"]),
        ("user grant-role alice ", ["reader", "root", "writer"]),
        ("user revoke-role alice w", ["writer"]),
        ("user grant-role alice writer ", []),
        ("user add al", []),
        ("role get r", ["reader", "root"]),
        ("role grant-permission w", ["writer"]),
        ("role grant-permission writer re", ["read", "readwrite"]),
        ("role grant-permission writer read /app/", ["/app/port"]),
        ("role revoke-permission writer /app/", ["/app/port"]),
    ],
)
def test_users_and_roles_are_completed(line: str, words: list[str], guarded: Server) -> None:
    """Each word of a command by what stands there."""
    assert completed(guarded.port, f"{AS_ROOT} {line}") == words


@pytest.mark.parametrize("user", ["", "--user=root", "--user=root:wrong"])
def test_who_may_not_see_them_gets_none(user: str, guarded: Server) -> None:
    """And no message, nor a question for a password."""
    assert completed(guarded.port, f"{user} user get al") == []


def test_without_a_server_there_are_none() -> None:
    assert completed(free_port(), "role get r") == []
