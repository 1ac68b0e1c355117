"""How the tests' servers are started: as programs, or forked from a process that has imported them.

A fork saves half a second of processor time a server. It is the same ``main`` with the same flags that runs,
in a process of its own with a log of its own. Benchmarks start programs, as operators do.
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from kvorum.testing.launcher import Launcher

KVORUM_SERVE = (sys.executable, "-m", "kvorum", "serve")
POLL_SECONDS = 0.005


class Process(Protocol):
    """What the tests need of ``subprocess.Popen``, with its meanings."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def program(command: Sequence[str], log: Path, directory: Path) -> Process:
    """A program in ``directory``, which appends to ``log``. Our own flags' variables do not reach it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KVORUM_")}
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=directory, env=environment
        )


def forked_if_ours(command: Sequence[str], log: Path, directory: Path) -> Process:
    """Of ``kvorum serve`` a fork, of all else a program."""
    if tuple(command[: len(KVORUM_SERVE)]) == KVORUM_SERVE:
        return Forked(_launcher(), command[len(KVORUM_SERVE) :], log)
    return program(command, log, directory)


start: Callable[[Sequence[str], Path, Path], Process] = program
"""Which of them it is: the suite's conftest chooses the second."""


class Forked:
    """A server that the launcher's zygote has forked."""

    def __init__(self, launcher: Launcher, flags: Sequence[str], log: Path) -> None:
        self._launcher = launcher
        self._code: int | None = None
        self.pid = launcher.fork(flags, log)

    def poll(self) -> int | None:
        if self._code is None:
            (self._code,) = self._launcher.poll([self.pid])
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if timeout is not None and deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"server {self.pid}", timeout)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, sig: int) -> None:
        self._launcher.signal([self.pid], sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _launcher() -> Launcher:
    """Not the one of ``kvorum.testing``, which its own tests kill."""
    launcher = Launcher()
    atexit.register(launcher.close)
    return launcher
