"""One server for tests, as a process of its own.

with server() as running:
    running.kill()          # SIGKILL: what it had acknowledged is on disk
    running.restart()       # goes on with it, on the same port
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvorum.testing.clients import Clients
from kvorum.testing.launcher import STOP_SECONDS, Launcher, StartFailed, launcher
from kvorum.testing.ports import ReservedPort

if TYPE_CHECKING:
    from kvorum import Client

START_SECONDS = 30.0
POLL_SECONDS = 0.002
QUICK = ("--heartbeat-interval=20", "--election-timeout=300")
"""Quick elections, but not so quick that a busy machine has them all the time."""


class Server:
    """A running server, or the place of one that was killed. Its port, and until the end of the test its
    data, stay when it ends."""

    def __init__(self, launcher: Launcher, directory: Path, flags: Sequence[str], name: str = "n1") -> None:
        self._launcher = launcher
        self._port = ReservedPort()
        self._flags = flags
        self._pid: int | None = None
        self._log = directory / f"{name}.log"
        self._clients = Clients([self.endpoint])
        self.name = name
        self.data_dir = directory / name

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def endpoint(self) -> str:
        """As ``kvorum --endpoints`` and the library take it: ``127.0.0.1:40923``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As HTTP clients take it: ``http://127.0.0.1:40923``."""
        return f"http://{self.endpoint}"

    @property
    def pid(self) -> int | None:
        """Of its process; None while it does not run."""
        return self._pid if self.is_running() else None

    @property
    def log(self) -> str:
        """What it has logged, over all its runs."""
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")
        return ""

    def is_running(self) -> bool:
        """Whether its process lives; a paused one does."""
        return self._exit_code() is None

    def is_healthy(self) -> bool:
        """Whether it serves, and knows a leader."""
        return _request(self.port, "GET", "/health") is not None

    def status(self) -> dict[str, Any] | None:
        """What it answers to ``/v3/maintenance/status``; None if it does not answer."""
        return _request(self.port, "POST", "/v3/maintenance/status", "{}")

    def client(self, **options: Any) -> Client:
        """A client of this server, closed with it; ``options`` are those of ``kvorum.Client``."""
        return self._clients.make(**options)

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing said to its clients. Fine if it has ended."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: requests under way are finished, and another member leads. Fine if it has ended."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered, as if it hung."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._signal(signal.SIGCONT)

    def start(self, *, wait: bool = True) -> None:
        """Start it where it has ended, with the same data and port; ``wait`` until it is healthy, which in a
        cluster needs a majority. Fine if it runs. Raises StartFailed."""
        if not self.is_running():
            self._pid = self._launcher.fork(
                (
                    f"--name={self.name}",
                    f"--data-dir={self.data_dir}",
                    f"--listen-client-urls={self.url}",
                    *QUICK,
                    *self._flags,
                ),
                self._log,
            )
        if wait:
            self.wait_until_healthy()

    def restart(self, *, wait: bool = True) -> None:
        """``kill``, if it runs, and ``start``. Raises StartFailed."""
        self.kill()
        self.start(wait=wait)

    def wait_until_healthy(self) -> None:
        """Raises StartFailed where it ends or START_SECONDS pass."""
        if not until(lambda: self.is_healthy() or not self.is_running(), START_SECONDS):
            raise StartFailed(f"{self.name} is not healthy after {START_SECONDS:g} s:\n{self.log}")
        if (code := self._exit_code()) is not None:
            raise StartFailed(f"{self.name} has ended with exit code {code}:\n{self.log}")

    def close(self) -> None:
        """Kill it, remove its data, close its clients, give up its port."""
        try:
            self._clients.close()
            self.kill()
            shutil.rmtree(self.data_dir, ignore_errors=True)
        finally:
            self._port.close()

    def _exit_code(self) -> int | None:
        """None while it runs."""
        return -1 if self._pid is None else self._launcher.poll([self._pid])[0]

    def _signal(self, number: signal.Signals) -> None:
        if self._pid is not None:
            self._launcher.signal([self._pid], number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if not until(lambda: not self.is_running(), STOP_SECONDS):
            self._signal(signal.SIGKILL)
            raise TimeoutError(
                f"{self.name} did not end within {STOP_SECONDS:g} s of {number.name}:\n{self.log}"
            )


@contextlib.contextmanager
def server(*, flags: Sequence[str] = ()) -> Iterator[Server]:
    """A healthy server with data of its own. ``flags`` are those of ``kvorum serve``, such as
    ``["--max-txn-ops=10"]``. Raises StartFailed."""
    with contextlib.ExitStack() as stack:
        made = Server(launcher(), stack.enter_context(own_directory()), checked(flags))
        stack.callback(made.close)
        made.start()
        yield made


@contextlib.contextmanager
def own_directory() -> Iterator[Path]:
    """A new directory, removed behind."""
    directory = Path(tempfile.mkdtemp(dir=launcher().directory))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def checked(flags: Sequence[str]) -> Sequence[str]:
    """``flags``, if they can be some. Raises TypeError."""
    if isinstance(flags, str) or not all(isinstance(flag, str) for flag in flags):
        raise TypeError(f"flags is {flags!r}: expected a list of texts, such as ['--max-txn-ops=10']")
    return flags


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for it; False if it does not come about in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _request(port: int, method: str, path: str, body: str | None = None) -> dict[str, Any] | None:
    """The answer, if it is one of status 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request(method, path, body)
        response = connection.getresponse()
        if response.status == 200:
            answer: dict[str, Any] = json.loads(response.read())
            return answer
    return None
