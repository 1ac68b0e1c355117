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

from kvorum.cli import tied
from kvorum.cli.settings import Failure


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

    def wait(self) -> int:
        """Its exit code; the negative number of the signal that ended it."""
        return self._process.wait()

    def forward(self, number: int) -> None:
        if not (self._has_terminal and number == signal.SIGINT):
            self.end(number)

    def end(self, number: int) -> None:
        """Send the signal to it, and where it has a group of its own, to all that it has started."""
        with suppress(ProcessLookupError):
            if self._has_terminal:
                self._process.send_signal(number)
            elif self._process.returncode is None:
                os.killpg(self._process.pid, number)


def exit_code(code: int) -> int:
    """As a shell has it: 128 and the number of the signal, if one has ended it."""
    return code if code >= 0 else 128 - code
