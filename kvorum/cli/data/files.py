"""Files named on the command line; ``-`` is standard input or output."""

from __future__ import annotations

import sys
from pathlib import Path

from kvorum import atomic_file
from kvorum.cli import output
from kvorum.cli.data import formats
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, EXIT_INVALID_INPUT, Failure

STANDARD = "-"


def format_of(name: str, given: str | None) -> str:
    """The format that was asked for, or the one that the name says."""
    if found := given or formats.format_of(name):
        return found
    what = (
        "standard input and output have no name" if name == STANDARD else f"{name} has no suffix that tells"
    )
    raise Failure(f"{what}: give --format, one of {', '.join(formats.FORMATS)}", EXIT_BAD_ARGUMENTS)


def read(name: str) -> bytes:
    if name == STANDARD:
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror}", EXIT_INVALID_INPUT) from None


def write(name: str, data: bytes) -> None:
    """The whole file or, where that fails, the one that was there before; never more open than that was, as
    values may be secrets."""
    if name == STANDARD:
        output.write(data)
        return
    path = Path(name).resolve()
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a pipe, a terminal: nothing that could be replaced
        else:
            atomic_file.replace(path, data)
    except OSError as error:
        raise Failure(f"{name} cannot be written: {error.strerror}") from None
