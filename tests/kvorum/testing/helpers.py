"""What tests of the test servers do with a server, and what must not be left of one."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 20.0


def call(url: str, path: str, message: dict[str, Any], *, timeout: float = 10) -> dict[str, Any]:
    request = urllib.request.Request(url + path, json.dumps(message).encode())
    with urllib.request.urlopen(request, timeout=timeout) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def put(url: str, key: str, value: str, *, timeout: float = 10) -> None:
    call(url, "/v3/kv/put", {"key": _base64(key), "value": _base64(value)}, timeout=timeout)


def get(url: str, key: str) -> str | None:
    kvs = call(url, "/v3/kv/range", {"key": _base64(key)}).get("kvs", [])
    return base64.b64decode(kvs[0]["value"]).decode() if kvs else None


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_SECONDS:g} s"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process does anything yet: not one whose parent has not asked how it ended."""
    with contextlib.suppress(FileNotFoundError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX"
    return False


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def can_bind(port: int) -> bool:
    """Whether somebody else could listen there."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def zygote_of(directory: Path) -> int:
    """The process that has this directory for its data."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(directory) in (entry / "cmdline").read_bytes().decode().split("\0"):
                    return int(entry.name)
    raise AssertionError(f"no process has {directory}")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
