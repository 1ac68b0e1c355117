"""All that a command has started ends when it is told to: asked first, killed when the time is over."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvorum import process_group

SECONDS = 60.0
Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a shell as the leader of a group, and returns when it has said that it is ready."""
    started: list[subprocess.Popen[bytes]] = []

    def shell(script: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sh", "-c", script], process_group=0, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield shell
    for process in started:
        process_group.send(process.pid, 9)
        process.communicate()


def took(leader: subprocess.Popen[bytes], seconds: float) -> float:
    """How long it took to end all of them. That none is left shows at the pipe, which all of them hold."""
    begun = time.monotonic()
    process_group.end(leader, seconds)
    passed = time.monotonic() - begun
    assert leader.returncode is not None
    assert leader.communicate(timeout=SECONDS)[0] is not None
    return passed


def test_who_ends_when_asked_is_not_waited_for_longer(start: Start) -> None:
    assert took(start("sleep 600 & echo ready; wait"), SECONDS) < SECONDS / 2


def test_those_who_outlive_their_leader_get_their_time(start: Start, tmp_path: Path) -> None:
    """They are asked once, as to many the second time means to drop everything."""
    asked = tmp_path / "asked"
    slow = f"trap 'echo >> {asked}; sleep 0.5 & wait $!; exit' TERM; echo ready; while :; do sleep 0.02; done"
    took(start(f"({slow}) & exec sleep 600"), SECONDS)
    assert asked.read_text() == "\n"


def test_who_was_started_after_the_signal_is_asked_too(start: Start, tmp_path: Path) -> None:
    """The leader has had it, and is gone when the other has hardly begun."""
    late, ended = tmp_path / "late", tmp_path / "ended"
    late.write_text(f"trap 'touch {ended}; exit' TERM; while :; do sleep 0.02; done")
    took(start(f"trap 'sh {late} & exit' TERM; echo ready; while :; do sleep 0.02; done"), 5.0)
    assert ended.exists()


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM; echo ready; sleep 600",
        "(trap '' TERM; echo ready; sleep 600) & exec sleep 600",
    ],
)
def test_who_does_not_end_is_killed(start: Start, script: str) -> None:
    """Be it the leader, or somebody else."""
    assert took(start(script), 0.2) >= 0.2
