"""The tests' side of the zygote: starts it with the first server, and asks it for servers.

There is one in a process, and one more in each process that the tests fork; it ends with its process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvorum.server_packages import HOME

STOP_SECONDS = 10.0
MEMORY_BYTES_MIN = 1 << 30
"""Free space from which data is kept in memory."""
_PROGRAM = (
    "import os, pathlib, sys; sys.path.insert(0, sys.argv[1]);"
    " from kvorum.testing.zygote import main; main(pathlib.Path(sys.argv[2]), int(sys.argv[3]))"
)
# A server in a test is to be the same wherever the test runs; and it refuses to run under -O.
_NOT_FOR_SERVERS = ("KVORUM_", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "COV_CORE_", "COVERAGE_PROCESS_")


class StartFailed(RuntimeError):
    """A server did not come up; the message says what it logged."""


class Launcher:
    """One zygote and the directory its servers keep their data in. Any thread may use it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kvorum-testing-", dir=_memory()))
        self._owner = os.getpid()
        self._log = self.directory / "zygote.log"
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, self._log.open("wb") as output:
                self._zygote = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",  # nothing from the folder where the tests run
                        "-c",
                        _PROGRAM,
                        str(HOME),
                        str(self.directory),
                        str(self._owner),
                    ],
                    stdin=theirs.fileno(),
                    stdout=output,
                    stderr=output,
                    env={
                        name: value
                        for name, value in os.environ.items()
                        if not name.startswith(_NOT_FOR_SERVERS)
                    },
                    # Ctrl-C is for the tests, which still need their servers when they clean up.
                    process_group=0,
                )
        except BaseException:
            self._control.close()
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def is_usable(self) -> bool:
        """Whether it is this process's own, and its zygote answers."""
        return self._owner == os.getpid() and self._ask({"do": "poll", "pids": []}) is not None

    def fork(self, flags: Sequence[str], log: Path) -> int:
        """The pid of a new server with these flags. Raises StartFailed."""
        answer = self._ask({"do": "fork", "flags": list(flags), "log": str(log)})
        if answer is None:
            raise StartFailed(f"the process that servers are forked from has ended:\n{_text(self._log)}")
        if "error" in answer:
            raise StartFailed(f"the server was not started: {answer['error']}")
        return int(answer["pid"])

    def signal(self, pids: Sequence[int], number: int) -> None:
        """Send a signal to those of these servers that run."""
        self._ask({"do": "signal", "pids": list(pids), "signal": int(number)})

    def poll(self, pids: Sequence[int]) -> list[int | None]:
        """For each of these servers its exit code, negative for a signal, or None while it runs."""
        answer = self._ask({"do": "poll", "pids": list(pids)})
        # Without the zygote they have all been killed by the kernel.
        return [-signal.SIGKILL] * len(pids) if answer is None else list(answer["codes"])

    def close(self) -> None:
        """End all servers and remove their data."""
        self._control.close()
        if self._owner != os.getpid():
            self._zygote.returncode = 0  # a fork of the tests: it is its parent's child, not ours
            return
        try:
            self._zygote.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The zygote's answer; None if it has ended, or was told to by ``close``."""
        packet = json.dumps(request).encode()
        with self._lock, contextlib.suppress(OSError):
            self._control.send(packet)
            if received := self._control.recv(1 << 17):
                answer: dict[str, Any] = json.loads(received)
                return answer
        return None


_current: Launcher | None = None
_starting = threading.Lock()


def launcher() -> Launcher:
    """The one of this process, made with the first call."""
    global _current
    with _starting:
        if _current is None or not _current.is_usable():
            if _current is not None:
                atexit.unregister(_current.close)
                _current.close()
            _current = Launcher()
            atexit.register(_current.close)
        return _current


def _memory() -> str | None:
    """A directory in memory, if there is plenty; None for the usual place of temporary files. What a test
    writes need not survive a power cut, and no disk then decides how long tests take."""
    if "TMPDIR" not in os.environ:
        with contextlib.suppress(OSError):
            space = os.statvfs("/dev/shm")
            if space.f_bavail * space.f_frsize >= MEMORY_BYTES_MIN and os.access("/dev/shm", os.W_OK):
                return "/dev/shm"
    return None


def _text(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")[-4000:]
    return "(it has left no log)"
