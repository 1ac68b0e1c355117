"""Signals that end a command which has something to put in order first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_NUMBERS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Inside, what would end us at once ends us as Ctrl-C does, by an exception."""
    before = [signal.signal(number, _end) for number in _NUMBERS]
    try:
        yield
    finally:
        for number, handler in zip(_NUMBERS, before, strict=True):
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
