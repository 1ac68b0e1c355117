"""Files named on the command line; ``-`` is standard input or output."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

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
    """The whole file or, where that fails, the one that was there before."""
    if name == STANDARD:
        output.write(data)
        return
    path = Path(name).resolve()
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a pipe, a terminal: nothing that could be replaced
        else:
            _replace(path, data)
    except OSError as error:
        raise Failure(f"{name} cannot be written: {error.strerror}") from None


def _replace(path: Path, data: bytes) -> None:
    # As open() would make it: values may be secrets, so never more open than the file was.
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~_umask()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
