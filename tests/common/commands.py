"""Our command line beside etcdctl: the same words to either tool, and what it said."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

import kvorum.cli.main
from tests.common.servers import ROOT, Server, etcd_binary

KVORUM = [sys.executable, "-m", "kvorum"]
TOOL_SECONDS = 20.0
PLAIN = frozenset({
    *("put", "get", "del", "txn", "compaction", "lease", "endpoint", "member", "version"),
    *("alarm", "defrag", "snapshot", "auth", "user", "role"),
})  # fmt: skip
"""Commands that ask and print, and nothing else."""


def command(tool: str, server: Server) -> list[str]:
    program = [str(etcd_binary("etcdctl"))] if tool == "etcdctl" else KVORUM
    return [*program, f"--endpoints=127.0.0.1:{server.port}"]


class Ran(NamedTuple):
    code: int
    out: str
    error: str


def run_here(
    arguments: Sequence[str],
    *,
    given: bytes = b"",
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """``kvorum`` in this process, ten times as fast as in one of its own: for what takes no signal, has
    no terminal and runs nothing. ``environment`` is added to ours."""
    stdin, stdout, stderr = (io.TextIOWrapper(io.BytesIO(some)) for some in (given, b"", b""))
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr("sys.stdin", stdin)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = kvorum.cli.main.run(list(arguments))
    return Ran(code, _written(stdout), _written(stderr))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode("utf-8", "surrogateescape")


def run(tool: str, server: Server, arguments: list[str], given: str = "") -> tuple[int, str, str]:
    """Exit code, output, and the line that says what is wrong; without what differs between servers."""
    words = [*command(tool, server), *arguments]
    if tool == "kvorum" and arguments and arguments[0] in PLAIN:
        ran = run_here(words[len(KVORUM) :], given=given.encode())
    else:
        process = subprocess.run(words, input=given.encode(), capture_output=True, cwd=ROOT, check=False)
        out, error = (said.decode(errors="surrogateescape") for said in (process.stdout, process.stderr))
        ran = Ran(process.returncode, out, error)
    errors = [line for line in ran.error.splitlines() if not line.startswith("{")]
    return ran.code, normalised(ran.out, server), normalised("\n".join(errors), server)


def normalised(text: str, server: Server) -> str:
    text = text.replace(str(server.port), "PORT")
    text = re.sub(r"[0-9.]+[mµ]?s\b", "TIME", text)
    text = re.sub(r'("?(?:cluster_id|member_id|leader|ClusterID|MemberID|Leader)"? ?: ?)\d+', r"\1ID", text)
    text = re.sub(r"\b[0-9a-f]{13,16}\b", "ID", text)
    text = re.sub(r'("?[rR]aft(?:Applied)?(?:Index)"? ?: ?)\d+', r"\1N", text)
    text = re.sub(r"(, \d+){3}, $", ", N", text, flags=re.MULTILINE)
    # How large two databases of the same content are depends on when each wrote what.
    text = re.sub(r'("?(?:dbSize|dbSizeInUse|DBSize)"? ?: ?)\d+', r"\1SIZE", text)
    text = re.sub(r"\b[\d.]+ kB", "SIZE", text)
    if "RAFT INDEX" in text:
        text = re.sub(r"(\|\s+\d+ ){2}(\|\s+\|)$", r"| N | N \2", text, flags=re.MULTILINE)
    # A table's columns are as wide as their contents.
    return re.sub(r"[-+| ]+", " ", text) if "ENDPOINT" in text else text


@contextlib.contextmanager
def watching(arguments: list[str]) -> Iterator[Callable[[], str]]:
    """A process whose output is read line by line; nothing comes after 15 seconds."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT)
    killer = threading.Timer(15, process.kill)
    killer.start()
    try:
        yield lambda: process.stdout.readline().decode()
    finally:
        killer.cancel()
        process.kill()
        process.communicate()


class Tool:
    """One ``kvorum`` that runs. What it prints is read line by line."""

    def __init__(self, server: Server, *words: str, stdin: int = subprocess.DEVNULL) -> None:
        self.process = subprocess.Popen(
            [*command("kvorum", server), *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        # Who reads a line that never comes would read for ever.
        self._killer = threading.Timer(2 * TOOL_SECONDS, self.process.kill)
        self._killer.start()

    def close(self) -> None:
        self._killer.cancel()
        self.process.kill()
        self.process.communicate(timeout=TOOL_SECONDS)  # what it has started may hold the pipes

    def line(self) -> str:
        return self.process.stdout.readline().rstrip("\n")

    def end(self) -> tuple[int, str]:
        """The exit code, and what it said on stderr."""
        _, error = self.process.communicate(timeout=TOOL_SECONDS)
        return self.process.returncode, error

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


@contextlib.contextmanager
def tool(server: Server, *words: str) -> Iterator[Tool]:
    started = Tool(server, *words)
    try:
        yield started
    finally:
        started.close()
