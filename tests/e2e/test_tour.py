"""The tour in README.md, as a new user takes it: a fresh clone, nothing installed, one terminal.

Each command of the section is typed into a shell. Where the page shows output, the command is repeated until
it prints exactly that, as a user would who waits for something to come about.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.common.ports import free_port
from tests.common.servers import ROOT

SECTION = "## A service: registered, watched, rendered"
WAIT_SECONDS = 120.0
TOUR_SECONDS = 120.0
DONE = "the-command-is-done"


class Step(NamedTuple):
    command: str
    printed: str  # "": anything


def steps() -> list[Step]:
    section = (ROOT / "README.md").read_text().split(SECTION, 1)[1].split("\n## ", 1)[0]
    [block] = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    found = []
    for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        first, _, rest = piece.partition("\n")
        if heredoc := re.search(r"<<'(\w+)'", first):
            text, end, rest = rest.partition(f"\n{heredoc[1]}\n")
            first += "\n" + text + end.rstrip("\n")
        found.append(Step(first, rest))
    return found


class Terminal:
    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc", "-m"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            text=True,
            start_new_session=True,
        )

    def type(self, command: str) -> str:
        """What it prints."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\necho; echo {DONE}\n")
        self._shell.stdin.flush()
        lines = iter(self._shell.stdout.readline, f"{DONE}\n")
        return "".join(lines).removesuffix("\n")

    def close(self) -> None:
        """With everything that was started in it."""
        self.type("kill -TERM $(jobs -p) 2>/dev/null; wait 2>/dev/null")
        os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is committed or lies here, without the environment that the suite runs in."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    files = tmp_path / "files"
    files.write_bytes(listed)
    copy = tmp_path / "kvorum"
    copy.mkdir()
    subprocess.run(
        f"tar --null --ignore-failed-read -cf - -T {files} | tar -xf - -C {copy}",
        shell=True,
        cwd=ROOT,
        check=True,
    )
    return copy


@pytest.fixture
def ports() -> dict[str, str]:
    """Those of the page may be taken here."""
    return {page: str(free_port()) for page in ("2379", "8000")}


@pytest.fixture
def terminal(clone: Path, ports: dict[str, str]) -> Iterator[Terminal]:
    url = f"http://127.0.0.1:{ports['2379']}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(clone.parent),
        "KVORUM_LISTEN_CLIENT_URLS": url,
        "KVORUM_ENDPOINTS": url,
    }
    terminal = Terminal(clone, environment)
    try:
        yield terminal
    finally:
        terminal.close()


def test_from_install_to_a_rendered_service_in_two_minutes(
    terminal: Terminal, clone: Path, ports: dict[str, str]
) -> None:
    begun = time.monotonic()
    tour = steps()
    assert len(tour) >= 10
    for command, printed in tour:
        for page, real in ports.items():
            command, printed = command.replace(page, real), printed.replace(page, real)
        deadline = time.monotonic() + WAIT_SECONDS
        while (said := terminal.type(command)) != printed and printed:
            assert time.monotonic() < deadline, f"$ {command}\n{said}\nexpected:\n{printed}\n{logs(clone)}"
            time.sleep(0.1)
    took = time.monotonic() - begun
    print(f"the tour took {took:.0f} s, with everything installed from nothing")
    assert took < TOUR_SECONDS


def logs(folder: Path) -> str:
    return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in folder.glob("*.log"))
