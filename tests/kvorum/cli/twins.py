"""Two servers of etcd that are told the same, one by kvorum, one by etcdctl: so changes can be compared."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.common.commands import Ran, command, run
from tests.common.servers import ROOT, Server, running, start_etcd

DEADLINE_SECONDS = 30.0
CHEAP = "--bcrypt-cost=4"
"""Has etcd hash passwords in no time."""


@dataclass(frozen=True)
class Twins:
    kvorum: Server
    etcdctl: Server

    def same(self, *words: str, given: str = "") -> Ran:
        """What both tools answer: exit code, output, and the line that says what is wrong."""
        theirs = run("etcdctl", self.etcdctl, list(words), given)
        ours = run("kvorum", self.kvorum, list(words), given)
        assert ours == theirs, words
        return Ran(*ours)

    def same_lines(self, lines: str) -> None:
        """Each in turn: words with blanks between them, ``''`` for an empty one."""
        for line in lines.strip().splitlines():
            self.same(*("" if word == "''" else word for word in line.split()))

    def same_on_terminal(self, *words: str, typed: Sequence[tuple[str, str]]) -> Ran:
        """What is shown on a terminal, where each text is typed once its question is seen."""
        theirs = on_terminal([*command("etcdctl", self.etcdctl), *words], typed)
        ours = on_terminal([*command("kvorum", self.kvorum), *words], typed)
        assert ours == theirs, words
        return ours


@contextlib.contextmanager
def twins(directory: Path) -> Iterator[Twins]:
    with contextlib.ExitStack() as stack:
        servers = []
        for tool in ("kvorum", "etcdctl"):
            (directory / tool).mkdir()
            servers.append(stack.enter_context(running(start_etcd(directory / tool, CHEAP))))
        yield Twins(*servers)


def on_terminal(arguments: Sequence[str], typed: Sequence[tuple[str, str]]) -> Ran:
    """Exit code and all that is shown, without etcdctl's own log. Nothing is typed before the terminal has
    been told not to show it: etcdctl asks first."""
    pid, leader = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvp(arguments[0], list(arguments))
    deadline, shown = time.monotonic() + DEADLINE_SECONDS, ""
    try:
        for question, answer in typed:
            while question not in shown:
                more = _read(leader, deadline)
                assert more, f"{question!r} was not asked, but {shown!r}"
                shown += more
            while termios.tcgetattr(leader)[3] & termios.ECHO:
                assert time.monotonic() < deadline, f"what is typed behind {question!r} is shown"
                time.sleep(0.005)
            os.write(leader, answer.encode(errors="surrogateescape"))
        while more := _read(leader, deadline):
            shown += more
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(leader)
    lines = shown.replace("\r\n", "\n").splitlines(keepends=True)
    return Ran(code, "".join(line for line in lines if not line.startswith("{")), "")


def _read(terminal: int, deadline: float) -> str:
    """What comes next; "" at the end."""
    ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
    assert ready, f"nothing was shown within {DEADLINE_SECONDS:g} s"
    try:
        return os.read(terminal, 65_536).decode(errors="replace")
    except OSError:  # the other side is closed
        return ""
