"""Replacing a file so that a reader finds the old content or the new one, whole, also after a power cut.

    with prepared(path, data) as new:       # a complete file beside it, on disk
        check(new.path)                     # may raise: then the new one is gone, the old one untouched
        new.commit()

or, with nothing to check, ``replace(path, data)``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Prepared:
    """A new content on disk, not yet in its place."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target

    def commit(self) -> None:
        """Put it in its place. Raises OSError."""
        os.replace(self.path, self._target)
        sync_folder(self._target.parent)


@contextmanager
def prepared(path: Path, data: bytes, *, mode: int | None = None) -> Iterator[Prepared]:
    """Write ``data`` to a hidden file in ``path``'s folder. It has ``mode``, or else the mode of the file
    that it is to replace, or what the umask leaves of 0666; and that file's owner, where we may give files
    away. A link stays a link: what it points to is replaced. Raises OSError, also where there is something
    else than a file: a device or a pipe cannot be replaced, only destroyed."""
    target = Path(os.path.realpath(path))
    refuse_special(target)
    new = target.with_name(f".{target.name}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            _take_after(file.fileno(), target, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield Prepared(new, target)
    finally:
        with suppress(FileNotFoundError):
            new.unlink()


def replace(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Raises OSError; the old file is untouched then."""
    with prepared(path, data, mode=mode) as new:
        new.commit()


def refuse_special(path: Path) -> None:
    """Raises OSError where there is something, and no regular file."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "this is no regular file", str(path))


def _take_after(descriptor: int, target: Path, mode: int | None) -> None:
    try:
        old = target.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, 0o666 & ~_umask() if mode is None else mode)
        return
    own = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (own.st_uid, own.st_gid):
        # One by one: who may not give files away may still give them to a group of his own. Else those of
        # our first group could read what only the old one's might.
        with suppress(PermissionError):
            os.fchown(descriptor, -1, old.st_gid)
        with suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, -1)
    # After the owner: a change of owner takes set-id bits away.
    os.fchmod(descriptor, old.st_mode & 0o7777 if mode is None else mode)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Without this a power cut may bring the old file back, or none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
