"""Shells complete commands, flags, contexts and keys: real shells in a terminal, a real server."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum.cli.completing import names_below
from tests.common.commands import run
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server

SECONDS = 30.0


class Terminal:
    """A shell, and what it has shown since it was last typed at."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(environment["HOME"])
            os.execvpe(arguments[0], arguments, environment)
        self.shown = ""

    def type(self, text: str) -> None:
        self.shown = ""
        os.write(self._terminal, text.encode())

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            ready, _, _ = select.select([self._terminal], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{text!r} was not shown in {SECONDS} s, but {self.shown!r}"
            self.shown += os.read(self._terminal, 65_536).decode(errors="replace")

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)


START = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "bind 'set enable-bracketed-paste off'; bind 'set bell-style none'\n",
    ),
    "zsh": (["zsh", "-f", "-i"], "unsetopt zle_bracketed_paste beep; autoload -U compinit; compinit -u -D\n"),
    "fish": (["fish", "--no-config", "-i"], ""),
}


@contextlib.contextmanager
def shell(name: str, home: Path, port: int) -> Iterator[Terminal]:
    """An interactive shell that knows our completions, and calls the kvorum of this working tree."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    programs = home / "bin"
    programs.mkdir()
    (programs / "kvorum").write_text(f'#!/bin/sh\nexec {sys.executable} -m kvorum "$@"\n')
    (programs / "kvorum").chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "TERM": "dumb" if name != "fish" else "xterm",
        "PS1": "$ ",
        "LC_ALL": "C.UTF-8",
        "KVORUM_CONFIG": str(home / "config.yaml"),
        "KVORUM_ENDPOINTS": f"127.0.0.1:{port}",
    }
    (home / "config.yaml").write_text("contexts: {production: {}}\n")
    arguments, commands = START[name]
    terminal = Terminal(arguments, environment)
    source = "kvorum completion fish | source" if name == "fish" else f'eval "$(kvorum completion {name})"'
    try:
        # What is echoed is not what is printed: so the word is seen only when all has been done.
        terminal.type(f"{commands}{source}\necho rea''dy\n")
        terminal.wait_for("ready")
        yield terminal
    finally:
        terminal.close()


@pytest.fixture
def filled(kvorum_server: Server) -> Server:
    for key in ("compl/alpha/one", "compl/alpha/two", "compl/beta", "compl/with space", "compl/10.0.0.1:80"):
        assert run("kvorum", kvorum_server, ["put", key, "1"])[0] == 0
    return kvorum_server


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_shells_complete(name: str, tmp_path: Path, filled: Server) -> None:
    """A command, a flag's value behind its command, a context, and a key in two steps: folder and name."""
    with shell(name, tmp_path, filled.port) as terminal:
        for typed, shown in [
            ("kvorum compac\t", "kvorum compaction"),
            ("kvorum get --write-out ya\t", "yaml"),
            ("kvorum config use-context pro\t", "production"),
            ("kvorum get compl/al\t", "compl/alpha/"),
            ("kvorum get compl/alpha/o\t", "compl/alpha/one"),
        ]:
            terminal.type(typed)
            terminal.wait_for(shown)
            terminal.type("\x15")  # clears the line


def test_bash_completes_what_it_takes_apart(tmp_path: Path, filled: Server) -> None:
    """Words with : and =, and keys that must be quoted, are put in the line as they have to be: it runs."""
    with shell("bash", tmp_path, free_port()) as terminal:
        terminal.type(f"kvorum --endpoints=127.0.0.1:{filled.port} --write-out=js\t get compl/10.0.0.1:\t\n")
        terminal.wait_for('"count":1}\r\n$ ')
        terminal.type(f"kvorum --endpoints=127.0.0.1:{filled.port} get --print-value-only compl/wi\t")
        terminal.wait_for("compl/with\\ space")


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_key_is_no_command(quote: str, tmp_path: Path, filled: Server) -> None:
    """Whatever somebody calls a key: what bash completes is that name, and runs nothing."""
    key = """compl/hostile $(touch ran)`touch ran`'"!!\\;touch ran"""
    assert run("kvorum", filled, ["put", key, "1"])[0] == 0
    with shell("bash", tmp_path, filled.port) as terminal:
        terminal.type(f"kvorum get --keys-only {quote}compl/ho\t\n")
        terminal.wait_for(f"\n{key}\r\n")
        terminal.type("echo do''ne\n")
        terminal.wait_for("done")
    assert not (tmp_path / "ran").exists()


def test_a_key_s_folder_is_one_name_however_much_is_below_it() -> None:
    """What is below a folder is skipped with one request."""
    keys = [b"a", *(b"b/%05d" % number for number in range(10_000)), b"b0", b"c/x"]
    asked = []

    def read(start: bytes, end: bytes, limit: int) -> list[bytes]:
        asked.append(start)
        return [key for key in keys if start <= key < end][:limit]

    assert list(names_below(b"", b"\xff", read)) == [b"a", b"b/", b"b0", b"c/"]
    assert list(names_below(b"b/", b"b0", read))[:2] == [b"b/00000", b"b/00001"]
    assert asked[:2] == [b"\0", b"b0"]


def test_a_key_that_ends_with_a_slash_hides_nothing() -> None:
    """It is a name beside the others of its folder."""
    keys = [b"a/", b"a/b", b"a/c"]
    assert list(names_below(b"a/", b"a0", lambda *_: keys)) == keys


def test_without_a_server_there_is_silence(tmp_path: Path) -> None:
    """No keys, no message, and not for long."""
    with shell("bash", tmp_path, free_port()) as terminal:
        terminal.type("kvorum get x\t")
        terminal.type("y; echo do''ne\n")
        terminal.wait_for("done")
        assert "Traceback" not in terminal.shown
