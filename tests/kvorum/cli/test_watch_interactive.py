"""watch -i against etcdctl, on real etcd and on ours."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from kvorum import Client
from tests.common.commands import command, run, run_here
from tests.common.servers import ROOT, Server

SECONDS = 20.0
_NUMBERS = count()


class Session:
    """One tool that reads what to watch."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def lines(self, number: int) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline().rstrip("\n") for _ in range(number)]

    def end(self) -> tuple[int, str]:
        """What it says on stderr at the end of its input, and its exit code."""
        _, error = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, error


@contextmanager
def session(tool: str, server: Server, *words: str) -> Iterator[Session]:
    process = subprocess.Popen(
        [*command(tool, server), "watch", "-i", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    killer = threading.Timer(SECONDS, process.kill)  # who reads a line that never comes would read for ever
    killer.start()
    try:
        yield Session(process)
    finally:
        killer.cancel()
        process.kill()
        process.communicate()


def changes(server: Server) -> tuple[str, int]:
    """A prefix with three changes, and the revision of the first."""
    prefix = f"interactive{next(_NUMBERS)}/"
    begin = run("kvorum", server, ["put", f"{prefix}a", "1", "-w", "json"])[1]
    for line in (["put", f"{prefix}b", "2"], ["del", f"{prefix}a"]):
        assert run("kvorum", server, line)[0] == 0
    return prefix, int(begin.split('"revision":')[1].split(",")[0])


@pytest.mark.parametrize("server", ["etcd_server", "kvorum_server"])
def test_watches_are_begun_line_by_line(server: str, request: pytest.FixtureRequest) -> None:
    """Each with its own flags and its own command, beside those before it; they see what comes later too."""
    store: Server = request.getfixturevalue(server)
    prefix, revision = changes(store)
    with session("kvorum", store) as one:
        one.say(f"watch {prefix} --prefix=true --rev={revision}")
        assert one.lines(9) == [
            *("PUT", f"{prefix}a", "1", "PUT", f"{prefix}b", "2", "DELETE", f"{prefix}a", ""),
        ]
        one.say(f'watch "{prefix[:-1]}\\x2fa" --rev={revision + 2} --prev-kv -- echo ran')
        assert one.lines(6) == ["DELETE", f"{prefix}a", "1", f"{prefix}a", "", "ran"]
        assert run("kvorum", store, ["put", f"{prefix}c", "3"])[0] == 0
        assert one.lines(3) == ["PUT", f"{prefix}c", "3"]
        assert one.end() == (3, "Error: error reading watch request line: EOF\n")


LINES = [
    "",
    "frob a",
    "watch",
    "watch a b --prefix",
    "watch a --frob",
    "watch a --",
    "watch --prefix",
    r'watch "a\q"',
    "watch a",
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("key", ["", "a"])
def test_mistakes_are_told_as_etcdctl_tells_them(key: str, line: str, etcd_server: Server) -> None:
    """Those that end the session, and those that do not; with a key in the environment, and without."""
    theirs = subprocess.run(
        [*command("etcdctl", etcd_server), "watch", "-i"],
        input=f"{line}\n",
        env={"ETCDCTL_WATCH_KEY": key} if key else {},
        capture_output=True,
        text=True,
        check=False,
    )
    words = [f"--endpoints={etcd_server.url}", "watch", "-i"]
    ours = run_here(words, given=f"{line}\n".encode(), environment={"ETCDCTL_WATCH_KEY": key})
    assert (ours.code, ours.out) == (theirs.returncode, theirs.stdout)
    assert without_flag(ours.error) == without_flag(theirs.stderr)


def without_flag(error: str) -> str:
    """An unknown flag has click's words, and not Go's."""
    return error.replace("unknown flag: --frob", "").replace("No such option '--frob'.", "")


def test_progress_is_refused_with_the_way_to_have_it(kvorum_server: Server) -> None:
    """A stream of the JSON gateway takes one request. The session goes on."""
    ran = run_here([f"--endpoints={kvorum_server.url}", "watch", "-i"], given=b"progress\nfrob\n")
    assert ran.code == 3
    assert ran.error.splitlines() == [
        "Invalid command progress"
        " (progress cannot be asked for by the JSON gateway: watch with --progress-notify)",
        "Invalid command frob (only support watch)",
        "Error: error reading watch request line: EOF",
    ]


@pytest.mark.parametrize("form", ["simple", "json"])
def test_a_watch_that_is_cancelled_leaves_the_others(form: str, etcd_server: Server) -> None:
    """It is told as etcdctl tells it, and the next line is read."""
    prefix, revision = changes(etcd_server)
    assert run("kvorum", etcd_server, ["compaction", str(revision + 1)])[0] == 0
    seen = {}
    for tool in ("etcdctl", "kvorum"):
        with session(tool, etcd_server, "-w", form) as one:
            one.say(f"watch {prefix}a --rev={revision}")
            assert one.process.stderr is not None
            cancelled = one.process.stderr.readline()
            one.say(f"watch {prefix}b --rev={revision + 1}")
            seen[tool] = [cancelled, one.lines(SHOWN[form])]
            assert one.end()[0] == 3
    assert seen["kvorum"] == seen["etcdctl"]
    assert "required revision has been compacted" in seen["kvorum"][0]


SHOWN = {"simple": 3, "json": 2}
"""How many lines come for the two of them."""


def test_what_is_being_written_at_the_end_is_written(kvorum_server: Server) -> None:
    """More than a pipe holds: the watch is in the midst of it when the input ends."""
    prefix, value = f"interactive{next(_NUMBERS)}/", "x" * 1_000_000
    with Client(kvorum_server.url) as client:
        revision = client.put(f"{prefix}a", value).revision
    with session("kvorum", kvorum_server) as one:
        one.say(f"watch {prefix}a --rev={revision}")
        assert one.process.stdout is not None
        assert one.process.stdout.readline() == "PUT\n"
        assert one.process.stdin is not None
        one.process.stdin.close()
        one.process.stdin = None
        assert one.process.stderr is not None
        assert one.process.stderr.readline() == "Error: error reading watch request line: EOF\n"
        assert one.process.stdout.read() == f"{prefix}a\n{value}\n"
        assert one.process.wait(SECONDS) == 3


def test_a_command_that_fails_ends_the_session(kvorum_server: Server) -> None:
    """With the code that it has in watch."""
    prefix, revision = changes(kvorum_server)
    with session("kvorum", kvorum_server) as one:
        one.say(f"watch {prefix}a --rev={revision} -- false")
        assert one.process.wait(SECONDS) == 1


def test_the_session_takes_no_keys_itself() -> None:
    """They would be left unseen."""
    said = "Error: --interactive reads what to watch from its input\n"
    assert run_here(["watch", "-i", "key"]) == (128, "", said)
