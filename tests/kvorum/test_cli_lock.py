"""kvorum lock and kvorum elect, on a node of ours and on etcd."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvorum import Client
from tests.common.commands import KVORUM, Tool, command, run, tool
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server, running, start_etcd

SECONDS = 20.0


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(start_etcd(tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture(params=["kvorum", "etcd"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue("kvorum_server" if request.param == "kvorum" else "etcd")
    return found


@pytest.fixture
def name() -> str:
    return f"lock-{uuid.uuid4()}"


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def keys(server: Server, name: str) -> list[str]:
    """Of a lock or election, oldest first."""
    words = ["get", f"{name}/", "--prefix", "--keys-only", "--sort-by=CREATE", "--order=ASCEND"]
    ran = subprocess.run([*command("kvorum", server), *words], capture_output=True, cwd=ROOT, check=True)
    return [line for line in ran.stdout.decode().splitlines() if line]


@contextlib.contextmanager
def in_line(server: Server, name: str, place: int, *words: str) -> Iterator[Tool]:
    """Runs what takes a place in this line, and has taken it."""
    with tool(server, words[0], name, *words[1:]) as one:
        wait_until(lambda: len(keys(server, name)) == place)
        yield one


def leases(server: Server) -> set[int]:
    with Client(server.url) as client:
        return set(client.leases())


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# ---- with a command ------------------------------------------------------------------------------


def test_the_command_runs_while_the_lock_is_held(server: Server, name: str) -> None:
    """Its exit code is ours; afterwards neither key nor lease are left."""
    before = leases(server)
    script = 'echo "$ETCD_LOCK_KEY $ETCD_LOCK_REV $KVORUM_FENCING_TOKEN"; exit 3'
    code, out, error = run("kvorum", server, ["lock", name, "--", "sh", "-c", script])
    assert (code, error) == (3, "")
    key, revision, token = out.split()
    assert key == f"{name}/ID"
    assert 1 < int(token) == int(revision)
    assert keys(server, name) == []
    assert leases(server) <= before, "others' may have ended meanwhile"


def test_the_command_need_not_stand_behind_dashes(server: Server, name: str) -> None:
    """As with etcdctl."""
    assert run("kvorum", server, ["lock", name, "echo", "hello"]) == (0, "hello\n", "")


def test_the_command_has_our_input_and_default_signals(server: Server, name: str) -> None:
    """What is blocked here and what Python ignores is not so for the command."""
    script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; cat"
    ran = subprocess.run(
        [*command("kvorum", server), "lock", name, "--", "sh", "-c", script],
        input="input",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    blocked, ignored, rest = ran.stdout.splitlines()
    assert int(blocked.split()[1], 16) == 0
    assert not int(ignored.split()[1], 16) & 1 << signal.SIGPIPE - 1
    assert rest == "input"


def test_a_command_that_is_killed_is_128_and_its_signal(server: Server, name: str) -> None:
    """The shell's convention."""
    assert run("kvorum", server, ["lock", name, "--", "sh", "-c", "kill -9 $$"])[0] == 137
    assert keys(server, name) == []


def test_a_command_that_is_not_there_is_said_before_anything_is_locked(server: Server, name: str) -> None:
    """One line."""
    code, out, error = run("kvorum", server, ["lock", name, "--", "no-such-command"])
    assert (code, out) == (1, "")
    assert error == "Error: command 'no-such-command' cannot be run: it is not found, or no program"


def test_they_hold_it_one_after_the_other(server: Server, name: str, tmp_path: Path) -> None:
    """In order of arrival, and their tokens grow."""
    log = tmp_path / "log"
    script = f"echo begin $KVORUM_FENCING_TOKEN >> {log}; sleep 0.1; echo end $KVORUM_FENCING_TOKEN >> {log}"
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(tool(server, "lock", name))
        assert holder.line().startswith(f"{name}/")
        command = ["lock", "--", "sh", "-c", script]
        waiting = [stack.enter_context(in_line(server, name, place, *command)) for place in (2, 3, 4)]
        assert not log.exists()
        holder.signal(signal.SIGTERM)
        assert holder.end() == (0, "")
        for one in waiting:
            assert one.end() == (0, "")
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [word for word, _ in lines] == ["begin", "end"] * 3
    tokens = [int(token) for _, token in lines]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_go_to_the_command(number: signal.Signals, server: Server, name: str) -> None:
    """It may end as it likes; only then is the lock given up."""
    script = f"trap 'echo caught; exit 7' {int(number)}; echo ready; while :; do sleep 0.05; done"
    with tool(server, "lock", name, "--", "sh", "-c", script) as one:
        assert one.line() == "ready"
        one.signal(number)
        assert one.line() == "caught"
        assert one.end()[0] == 7
    assert keys(server, name) == []


def test_what_the_command_has_started_gets_signals_too(server: Server, name: str) -> None:
    """The end of a pipe of commands is the end of all of it."""
    with tool(server, "lock", name, "--", "sh", "-c", "sleep 1000 & echo $!; wait") as one:
        child = int(one.line())
        one.signal(signal.SIGTERM)
        assert one.end()[0] == 128 + signal.SIGTERM
    wait_until(lambda: not is_alive(child))


def test_what_the_command_starts_when_it_ends_does_not_outlive_the_lock(server: Server, name: str) -> None:
    """It is too late to get the signal, and would go on while another holds the lock."""
    script = "trap 'sleep 1000 & echo $!; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    with tool(server, "lock", name, "--", "sh", "-c", script) as one:
        assert one.line() == "ready"
        one.signal(signal.SIGTERM)
        child = int(one.line())
        assert one.process.wait(timeout=SECONDS) == 7
        assert not is_alive(child)


def test_when_we_are_killed_the_command_is(server: Server, name: str) -> None:
    """At once, long before the lease ends: nobody goes on without a lock."""
    with tool(server, "lock", "--ttl=60", name, "--", "sh", "-c", "echo $$; exec sleep 1000") as one:
        child = int(one.line())
        one.signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(child), 2)
    [key] = keys(server, name)
    lease = key.split("/")[1]
    assert run("kvorum", server, ["lease", "revoke", lease])[0] == 0


@pytest.mark.parametrize("how", ["lease revoke LEASE", "del KEY"])
def test_a_lock_that_is_lost_ends_the_command(how: str, server: Server, name: str) -> None:
    """At once, however little it likes that."""
    script = "trap '' TERM; echo $$; while :; do sleep 0.05; done"
    with tool(server, "lock", "--ttl=60", name, "--", "sh", "-c", script) as one:
        child = int(one.line())
        [key] = keys(server, name)
        words = how.replace("KEY", key).replace("LEASE", key.split("/")[1]).split()
        assert run("kvorum", server, words)[0] == 0
        code, error = one.end()
        assert not is_alive(child)
    assert code == 5
    assert error == f"Error: the lock {key} was lost, so the command was ended: its key is gone\n"


def test_a_lock_that_cannot_be_renewed_ends_the_command(name: str, tmp_path: Path) -> None:
    """When no server answers: first it is asked to end, and that before the lease can be over."""
    with running(start_etcd(tmp_path)) as server:
        script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
        with tool(server, "lock", "--ttl=4", name, "--", "sh", "-c", script) as one:
            assert one.line() == "ready"
            server.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            try:
                assert one.line() == "asked"
                assert time.monotonic() - stopped < 4
                assert one.process.wait(timeout=SECONDS) == 5
            finally:
                server.process.send_signal(signal.SIGCONT)
            error = [line for line in one.end()[1].splitlines() if line != "Terminated"]  # the shell's
    assert error[0].startswith("not released: ")
    assert error[1].startswith(f"Error: the lock {name}/")


# ---- without one ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_without_a_command_a_signal_gives_it_up(number: signal.Signals, server: Server, name: str) -> None:
    """The key is shown as etcdctl shows it, with its empty value."""
    with tool(server, "lock", name) as one:
        key = one.line()
        assert keys(server, name) == [key]
        assert one.line() == ""
        one.signal(number)
        assert one.end() == (0, "")
    assert keys(server, name) == []


def test_who_waits_can_be_interrupted(server: Server, name: str) -> None:
    """His place in the line is gone, and the line goes on without him."""
    with contextlib.ExitStack() as stack:
        holder, second, third = [
            stack.enter_context(in_line(server, name, place, "lock")) for place in (1, 2, 3)
        ]
        second.signal(signal.SIGTERM)
        assert second.end() == (143, "")
        assert len(keys(server, name)) == 2
        holder.signal(signal.SIGTERM)
        assert third.line().startswith(f"{name}/")


def test_a_lost_session_is_said(server: Server, name: str) -> None:
    """As by etcdctl, which says less."""
    with tool(server, "lock", "--ttl=2", name) as one:
        lease = one.line().split("/")[1]
        assert run("kvorum", server, ["lease", "revoke", lease])[0] == 0
        assert one.end() == (1, "Error: session expired: its key is gone\n")


@pytest.mark.parametrize("form", ["json", "fields"])
def test_a_lock_in_other_formats(form: str, server: Server, name: str) -> None:
    """That of a get of the key."""
    with tool(server, "lock", name, "-w", form) as one:
        line = one.line()
        assert line.startswith('{"header":{' if form == "json" else '"ClusterID" :')
        if form == "json":
            assert len(json.loads(line)["kvs"]) == 1


# ---- elections -----------------------------------------------------------------------------------


def test_an_election_is_seen_by_listeners(server: Server, name: str) -> None:
    """Who leads, and who follows; nothing of those who wait."""
    with tool(server, "elect", "--listen", name) as listener, tool(server, "elect", name, "one") as first:
        key = first.line()
        assert key.startswith(f"{name}/")
        assert first.line() == "one"
        assert [listener.line(), listener.line()] == [key, "one"]
        with tool(server, "elect", name, "two") as second:
            wait_until(lambda: len(keys(server, name)) == 2)
            first.signal(signal.SIGTERM)
            assert first.end() == (0, "")
            following = second.line()
            assert second.line() == "two"
            assert [listener.line(), listener.line()] == [following, "two"]
            second.signal(signal.SIGINT)
            assert second.end()[0] == 0
        listener.signal(signal.SIGINT)
        assert listener.end()[0] == 130
    assert keys(server, name) == []


LINES = [
    ["lock"],
    ["elect"],
    ["elect", "a"],
    ["elect", "a", "b", "c"],
    ["elect", "-l", "a", "b"],
]


def test_mistakes_are_told_as_by_etcdctl(etcd: Server) -> None:
    """Words and exit code."""
    for words in LINES:
        assert run("kvorum", etcd, words) == run("etcdctl", etcd, words), words


def test_no_server_is_one_clear_sentence() -> None:
    """And the exit code of a bad connection."""
    words = [*KVORUM, "--endpoints", f"127.0.0.1:{free_port()}", "--command-timeout=1s", "lock", "x"]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Error: cannot connect to 127.0.0.1:")


def test_both_tools_stand_in_one_line(etcd: Server, name: str) -> None:
    """The keys are the same, so etcdctl's holder keeps ours waiting, and the other way round."""
    theirs = subprocess.Popen(
        [*command("etcdctl", etcd), "lock", name], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    try:
        assert theirs.stdout.readline().startswith(f"{name}/")
        with tool(etcd, "lock", name) as ours:
            wait_until(lambda: len(keys(etcd, name)) == 2)
            theirs.send_signal(signal.SIGTERM)
            assert ours.line().startswith(f"{name}/")
    finally:
        theirs.kill()
        theirs.communicate()
