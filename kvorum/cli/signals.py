"""Signals that end a command which has something to put in order first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_NUMBERS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Inside, what would end us at once ends us as Ctrl-C does, by an exception."""
    with handled(_NUMBERS, _end):
        yield


@contextmanager
def handled(
    numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], object]
) -> Iterator[None]:
    """Inside, ``handler`` is called for these; behind, all is as it was."""
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, one in zip(numbers, before, strict=True):
            signal.signal(number, one)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
