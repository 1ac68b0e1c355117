"""alarm list and disarm against etcdctl, on real etcd; and where there are none."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.common.commands import run
from tests.common.servers import Server

TOOLS = ("etcdctl", "kvorum")


@contextmanager
def raised(server: Server, member: int) -> Iterator[None]:
    """An alarm of a member that there is not; the server takes no writes meanwhile."""
    ask(server, f'{{"action": "ACTIVATE", "memberID": "{member}", "alarm": "NOSPACE"}}')
    try:
        yield
    finally:
        ask(server, f'{{"action": "DEACTIVATE", "memberID": "{member}", "alarm": "NOSPACE"}}')


def ask(server: Server, body: str) -> None:
    urllib.request.urlopen(f"{server.url}/v3/maintenance/alarm", body.encode()).read()


@pytest.mark.parametrize("words", ["list", "disarm"])
@pytest.mark.parametrize("form", ["simple", "json", "fields", "table"])
def test_alarms_are_shown_as_etcdctl_shows_them(words: str, form: str, etcd_server: Server) -> None:
    """One, and none. etcdctl panics where it is to print what it has disarmed as fields."""
    seen = {}
    for tool in TOOLS:
        with raised(etcd_server, 5):
            seen[tool] = [run(tool, etcd_server, ["alarm", words, "-w", form])]
        seen[tool].append(run(tool, etcd_server, ["alarm", words, "-w", form]))
    if (words, form) == ("disarm", "fields"):
        assert seen["etcdctl"][0][0] == 2
        assert seen["kvorum"] == [(0, '"MemberID" : ID\n"AlarmType" : NOSPACE\n\n', ""), (0, "", "")]
    else:
        assert seen["kvorum"] == seen["etcdctl"]


def test_every_alarm_is_disarmed(etcd_server: Server) -> None:
    """Of all members at once; then the store takes writes again."""
    with raised(etcd_server, 5), raised(etcd_server, 6):
        refused = run("kvorum", etcd_server, ["put", "full", "1"])
        assert refused == (1, "", "Error: etcdserver: mvcc: database space exceeded")
        code, out, _ = run("kvorum", etcd_server, ["alarm", "disarm"])
        assert (code, sorted(out.splitlines())) == (
            0,
            ["memberID:5 alarm:NOSPACE ", "memberID:6 alarm:NOSPACE "],
        )
        assert run("kvorum", etcd_server, ["put", "full", "1"])[0] == 0


@pytest.mark.parametrize("words", ["list", "disarm"])
def test_arguments_are_refused(words: str, etcd_server: Server) -> None:
    """As etcdctl refuses them."""
    ours, theirs = (run(tool, etcd_server, ["alarm", words, "x"]) for tool in reversed(TOOLS))
    assert ours == theirs
    assert ours[0] == 128


@pytest.mark.parametrize("words", ["list", "disarm"])
def test_a_server_without_alarms_says_so(words: str, kvorum_server: Server) -> None:
    """In one sentence."""
    said = "Error: this server has no alarms: etcd's has, Kvorum's has not yet"
    assert run("kvorum", kvorum_server, ["alarm", words]) == (1, "", said)
