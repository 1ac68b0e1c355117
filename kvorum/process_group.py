"""The process group of a command: it, and all that it has started and that has not left the group.

    process = subprocess.Popen(command, process_group=0)
    ...
    process_group.end(process, 5.0)     # asked to, and made to when the time is over

That a leader has ended says nothing of the others: they may still be at it, and what the leader has forked
after it got the signal has not even been asked.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

LAST_PART = 0.2
"""Of the time. Who is still there then is asked once more: he may be one who was not there the first time.
Not earlier, as to many programs a second signal means that they are to drop what they are at."""
KILLED_SECONDS = 1.0
"""To be gone after SIGKILL. Who is not, is stuck in the kernel."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds
_PROC = Path("/proc")


def end(leader: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask all of the group to end (SIGTERM), and kill who has not after ``seconds``. Returns when the leader
    was waited for, and nobody is left."""
    deadline = time.monotonic() + seconds
    send(leader.pid, signal.SIGTERM)
    try:
        leader.wait(seconds)
    except subprocess.TimeoutExpired:
        send(leader.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            leader.wait(KILLED_SECONDS)
    end_rest(leader.pid, deadline - time.monotonic())


def end_rest(group: int, seconds: float) -> None:
    """The same where the group was asked already, and its leader has ended and was waited for."""
    if wait(group, seconds * (1 - LAST_PART)):
        return
    send(group, signal.SIGTERM)
    if wait(group, seconds * LAST_PART):
        return
    send(group, signal.SIGKILL)
    wait(group, KILLED_SECONDS)


def send(group: int, number: int) -> bool:
    """Whether there was anybody to get the signal. Who runs as another user may not be ours to signal."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def wait(group: int, seconds: float) -> bool:
    """Until nobody is left in the group; False where that takes longer. To be called when the leader was
    waited for. Nobody is told of the others' ends, so we look again and again."""
    deadline, pause = time.monotonic() + seconds, _SHORTEST_PAUSE
    while _is_anybody_left(group):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return True


def _is_anybody_left(group: int) -> bool:
    """The dead do not count. To the kernel they do, until init has waited for them, which in a container may
    be never; where there is no /proc, init is a real one."""
    return send(group, 0) and (
        not (_PROC / "self").exists() or any(_is_of(group, one) for one in _PROC.iterdir())
    )


def _is_of(group: int, process: Path) -> bool:
    if not process.name.isdigit():
        return False
    try:
        state, _, its_group = (process / "stat").read_bytes().rpartition(b")")[2].split()[:3]
    except OSError:  # it has gone meanwhile
        return False
    return int(its_group) == group and state not in (b"Z", b"X")
