"""The command line as a user has it: words and input in; output, errors and exit code out."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import select
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

from kvorum.cli.main import run
from tests.common.commands import KVORUM
from tests.common.servers import ROOT, Server

DEADLINE_SECONDS = 30.0


class Ran(NamedTuple):
    code: int
    out: str
    error: str


@dataclass(frozen=True)
class CommandLine:
    """kvorum, told to talk to one server, in a folder of its own."""

    port: int
    folder: Path

    home = str(ROOT)  # where python -m kvorum finds us

    def command(self, *arguments: str) -> list[str]:
        return [*KVORUM, *self._words(arguments)]

    def _words(self, arguments: tuple[str, ...]) -> list[str]:
        return [f"--endpoints=127.0.0.1:{self.port}", *arguments]

    def __call__(self, *arguments: str, given: str | bytes = "", **environment: str) -> Ran:
        """In this process, for speed: a user's process is what ``on_terminal`` and ``process`` are."""
        data = given.encode() if isinstance(given, str) else given
        stdin, stdout, stderr = (io.TextIOWrapper(io.BytesIO(some)) for some in (data, b"", b""))
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(self.folder):
            patch.setattr("sys.stdin", stdin)
            for name, value in environment.items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                code = run(self._words(arguments))
        return Ran(code, *map(_text, (stdout, stderr)))

    def process(self, *arguments: str, **environment: str) -> Ran:
        ran = subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self.folder,
            env=_environment(environment),
            check=False,
            timeout=DEADLINE_SECONDS,
        )
        return Ran(ran.returncode, ran.stdout.decode(), ran.stderr.decode())

    def ok(self, *arguments: str, given: str | bytes = "", **environment: str) -> str:
        """What it printed; it must not fail, nor complain."""
        ran = self(*arguments, given=given, **environment)
        assert (ran.code, ran.error) == (0, ""), ran
        return ran.out

    def fails(self, *arguments: str, given: str | bytes = "", code: int = 1) -> str:
        """The one line it failed with; it must have printed nothing else."""
        ran = self(*arguments, given=given)
        assert (ran.code, ran.out) == (code, ""), ran
        assert ran.error.startswith("Error: "), ran
        assert ran.error.count("\n") == 1, ran
        return ran.error.removeprefix("Error: ").rstrip("\n")

    def values(self, prefix: str) -> dict[str, str]:
        """What is under a prefix, by the words of etcdctl; values of one line."""
        lines = self.ok("get", "--prefix", prefix).split("\n")[:-1]
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def on_terminal(
        self, *arguments: str, when: str = "", answer: Callable[[], str] | None = None, **environment: str
    ) -> Ran:
        """On a terminal of its own; when that text is seen, the answer is typed. All is in ``out``."""
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=self.folder,
            env=_environment(environment),
        )
        os.close(follower)
        seen, deadline = b"", time.monotonic() + DEADLINE_SECONDS
        try:
            while select.select([leader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                try:
                    data = os.read(leader, 65536)
                except OSError:  # the other side is closed
                    break
                seen += data
                if answer and when in seen.decode("utf-8", "replace"):
                    os.write(leader, answer().encode())
                    answer = None
            code = process.wait(timeout=DEADLINE_SECONDS)
        finally:
            process.kill()
            os.close(leader)
        return Ran(code, seen.decode().replace("\r\n", "\n"), "")

    @contextlib.contextmanager
    def meddled(
        self, meddle: Callable[[], object] = lambda: None, *, lose: str = ""
    ) -> Iterator[CommandLine]:
        """The same, by way of a gateway that meddles just before it passes on the first transaction. It may
        ``lose`` that "request", or its "answer", and hang up."""
        pending = [meddle]
        target = f"http://127.0.0.1:{self.port}"

        class Gateway(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_first = self.path == "/v3/kv/txn" and bool(pending)
                if is_first:
                    pending.pop()()
                if not (is_first and lose == "request"):
                    with urllib.request.urlopen(f"{target}{self.path}", body) as answer:
                        answered = answer.read()
                if is_first and lose:
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(answered)))
                self.end_headers()
                self.wfile.write(answered)

            def log_message(self, *arguments: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as gateway:
            gateway.daemon_threads = True
            Thread(target=gateway.serve_forever, daemon=True).start()
            try:
                yield replace(self, port=gateway.server_port)
            finally:
                gateway.shutdown()
        assert not pending, "there was no transaction to meddle with"


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8", "surrogateescape")


def _environment(more: dict[str, str]) -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("KVORUM_", "NO_COLOR"))
    }
    return {**clean, "PYTHONPATH": str(ROOT), "TERM": "xterm", **more}


@pytest.fixture
def kvorum(kvorum_server: Server, tmp_path: Path) -> CommandLine:
    """Of the server that the session shares: use keys of your own."""
    return CommandLine(kvorum_server.port, tmp_path)
