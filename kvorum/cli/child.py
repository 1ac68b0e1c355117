"""A command that runs while something is held: its signals are passed on, and it ends with us."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kvorum import process_group
from kvorum.cli import tied
from kvorum.cli.settings import Failure

REST_SECONDS = 5.0
"""For what the command has started to end after it, where it was told to end."""


def check_command(command: Sequence[str]) -> None:
    """Raises Failure where there is no such program."""
    if shutil.which(command[0]) is None:
        raise Failure(f"command {command[0]!r} cannot be run: it is not found, or no program")


class Child:
    """The command, with ``told`` in its environment. Without a terminal it has a process group of its own,
    so that what it has started ends with it; in one it shares ours, or it could not read, and what is typed
    there reaches it by itself. To be started from the main thread: the kernel ends it with the thread."""

    def __init__(self, command: Sequence[str], told: Mapping[str, str]) -> None:
        self._has_terminal = os.isatty(0)
        starter = [sys.executable, "-I", "-S", str(Path(tied.__file__)), str(os.getpid())]
        self._process = subprocess.Popen(
            [*starter, *command],
            env={**os.environ, **told},
            process_group=None if self._has_terminal else 0,
        )
        self._is_told = self._is_over = False

    def wait(self) -> int:
        """Its exit code; the negative number of the signal that ended it. Where it was sent a signal, nobody
        of its group is left either, who would go on with what is no longer held."""
        code = self._process.wait()
        if self._is_told and not self._has_terminal:
            process_group.end_rest(self._process.pid, REST_SECONDS)
        self._is_over = True
        return code

    def forward(self, number: int) -> None:
        if not (self._has_terminal and number == signal.SIGINT):
            self.end(number)

    def end(self, number: int) -> None:
        """Send the signal to it, and where it has a group of its own, to all that it has started."""
        self._is_told = True
        if self._has_terminal:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
        elif not self._is_over:
            process_group.send(self._process.pid, number)


def exit_code(code: int) -> int:
    """As a shell has it: 128 and the number of the signal, if one has ended it."""
    return code if code >= 0 else 128 - code
