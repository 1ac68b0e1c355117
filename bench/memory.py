"""Memory of processes, as Linux counts it: all that is resident, and of that what no file backs.

etcd's boltdb and our LMDB are mapped files, whose pages are counted as resident but are the page
cache's, which gives them up when memory is short. What cannot be given up is anonymous.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    resident_mib: float
    anonymous_mib: float


def memory(pids: Iterable[int]) -> Memory:
    """Of these processes and those they started, together."""
    resident = anonymous = 0
    for pid in pids:
        for member in family(pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                of_one = parse_status(Path(f"/proc/{member}/status").read_text())
                resident, anonymous = resident + of_one[0], anonymous + of_one[1]
    return Memory(resident / 1024, anonymous / 1024)


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (thread / "children").read_text().split()]
    return [pid, *(member for child in children for member in family(child))]


def parse_status(text: str) -> tuple[int, int]:
    """Resident and anonymous KiB, of /proc/PID/status."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]), int(lines["RssAnon"].split()[0])
