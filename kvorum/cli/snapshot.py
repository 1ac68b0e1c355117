"""snapshot save. What such a file holds is for etcdutl: its status, and how to restore a member from it."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from kvorum import atomic_file
from kvorum.cli import output, signals
from kvorum.cli.absent import named_where_absent
from kvorum.cli.completing import files
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.kv import Arguments
from kvorum.cli.progress import bar
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, EXIT_INTERRUPTED, Failure, Settings, current
from kvorum.errors import ConnectionFailed, KvorumError

DIGEST_BYTES = hashlib.sha256().digest_size


@click.group(cls=GoGroup, epilog=examples("kvorum snapshot save backup.db"))
def snapshot() -> None:
    """Save the whole database of an etcd member. For status and restore of such a file see etcdutl."""


@snapshot.command(
    epilog=examples(
        "kvorum snapshot save backup.db",
        "kvorum snapshot save --endpoints=10.0.0.1:2379 /backup/etcd-$(date +%F).db",
    )
)
@click.argument("arguments", nargs=-1, metavar="FILE", shell_complete=files)
def save(arguments: Arguments) -> None:
    """Save the database of the one endpoint as it is now.

    It is written to FILE.part, and takes FILE's place when it is whole, on the disk, and has the checksum
    that the member gave it. The command waits for each piece of it as long as --command-timeout says.
    """
    settings = current()
    if len(arguments) != 1:
        raise Failure("snapshot save expects one argument", EXIT_BAD_ARGUMENTS)
    if len(settings.endpoints) != 1:
        several = " ".join(settings.endpoints)
        raise Failure(
            f"snapshot must be requested to one selected node, not multiple [{several}]", EXIT_INTERRUPTED
        )
    try:
        with (
            signals.as_exceptions(),
            _replacing(Path(arguments[0])) as file,
            bar("snapshot") as progress,
        ):
            _fetch(settings, file, progress)
    except KvorumError as error:
        raise Failure(str(error), EXIT_INTERRUPTED) from None
    output.write(f"Snapshot saved at {arguments[0]}\n")


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside it, which takes its place if the block ends well, and is gone if not."""
    part = path.with_name(f"{path.name}.part")
    try:
        file = os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb")
    except OSError as error:
        why = (error.strerror or "").lower()
        raise Failure(f"could not open {part} (open {part}: {why})", EXIT_INTERRUPTED) from None
    with file:
        if not _is_ours(file, part):
            raise Failure(f"somebody else is writing {part}", EXIT_INTERRUPTED)
        try:
            file.truncate()  # what somebody has left who was killed
            os.fchmod(file.fileno(), 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(part, path)
            atomic_file.sync_folder(path.parent)
        except BaseException as error:
            with suppress(FileNotFoundError):
                part.unlink()
            if isinstance(error, OSError):
                raise Failure(f"{path} cannot be written: {error}", EXIT_INTERRUPTED) from None
            raise


def _is_ours(file: BinaryIO, part: Path) -> bool:
    """Whether nobody else writes it, nor has just put it in its place."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _fetch(settings: Settings, file: BinaryIO, progress: Callable[[float], None]) -> None:
    """Raises KvorumError where what came is not a whole snapshot."""
    checked = Checked()
    try:
        with settings.gateway() as gateway, named_where_absent("snapshots"):
            for piece in gateway.stream("/v3/maintenance/snapshot", {}, idle=settings.command_timeout):
                blob = base64.b64decode(piece.get("blob", ""))
                checked.add(blob)
                file.write(blob)
                progress(checked.size / max(checked.size + int(piece.get("remaining_bytes", 0)), 1))
    except ConnectionFailed:
        # So a stream ends, be it at its end or before: only the checksum tells which.
        if not checked.is_whole:
            raise
    if not checked.is_whole:
        raise KvorumError(f"sha256 checksum not found [bytes: {checked.size}]")


class Checked:
    """Bytes in pieces, of which the last are to be the SHA-256 of all before."""

    def __init__(self) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._last = b""

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        data = self._last + piece
        self._digest.update(data[:-DIGEST_BYTES])
        self._last = data[-DIGEST_BYTES:]

    @property
    def is_whole(self) -> bool:
        return self.size > DIGEST_BYTES and self._last == self._digest.digest()
