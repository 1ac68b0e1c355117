"""A snapshot of the state: the copy that is sent, and the one that was received and takes the state's place.

A snapshot is a copy of LMDB's data file. Whoever receives one may have the state open in this very
process, and must not have one path open twice, so it goes:

    state.stage(path)      the copy has arrived, in a file on the same file system
    staged.install()       on a thread: it is renamed to data.mdb; the old state lives on, without a name
    machine.restore(staged.open)        on the loop: the old state is closed, the new one opened

A crash before the rename is durable leaves the old state, after it the new one. The lock file belongs to
the old data file, and goes: it holds nothing that a restart needs.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from kvstate.backend import Table
from kvstate.errors import CopyStopped, StateFault
from kvstate.lmdb_store import DATA_FILE, LOCK_FILE, LmdbStore, read_copy, sync_directory
from kvstate.machine import META_KEY
from kvstate.machine import stands_for as stands_for_meta


class StateDirectory:
    """Where the state lies; knows the store that is open there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._store: LmdbStore | None = None

    def open(self) -> LmdbStore:
        """Open the state. Whoever gets it closes it."""
        self._store = LmdbStore(self.directory)
        return self._store

    def copy_to(self, path: Path) -> str:
        """See ``LmdbStore.copy_to``."""
        if self._store is None:
            raise CopyStopped("the state is not open")
        return self._store.copy_to(path)

    def stop_copies(self) -> None:
        """See ``LmdbStore.stop_copies``."""
        if self._store is not None:
            self._store.stop_copies()

    def stands_for(self, copy: Path) -> tuple[tuple[int, int], bytes]:
        """(applied index and term, membership) of a copy; reads a few pages. Raises StateFault."""
        return stands_for(copy)

    def stage(self, copy: Path) -> StagedState:
        """A copy that may be installed here: complete, verified, on the same file system."""
        return StagedState(self, copy)


class StagedState:
    """A copy on its way to be the state; see the module's docstring."""

    def __init__(self, state: StateDirectory, copy: Path) -> None:
        self._state = state
        self._copy = copy
        self._old: int | None = None

    def install(self) -> None:
        """On a thread, while nothing is written to the state. When this returns, the state is the copy."""
        directory = self._state.directory
        descriptor = os.open(self._copy, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with suppress(FileNotFoundError):
            self._old = os.open(directory / DATA_FILE, os.O_RDONLY)
        os.rename(self._copy, directory / DATA_FILE)
        with suppress(FileNotFoundError):
            os.unlink(directory / LOCK_FILE)
        sync_directory(directory)
        sync_directory(self._copy.parent)

    def open(self) -> LmdbStore:
        """The new state, when it is installed and the old one closed."""
        if self._old is not None:
            # Whoever closes a nameless file last waits until all of its blocks are freed: not the loop.
            threading.Thread(target=os.close, args=(self._old,), name="old state").start()
            self._old = None
        return self._state.open()

    def discard(self) -> None:
        """It is not wanted any more. Freeing its blocks may take a while."""
        threading.Thread(target=_remove, args=(self._copy,), name="discard").start()


def stands_for(copy: Path) -> tuple[tuple[int, int], bytes]:
    """(applied index and term, membership) of the state in the file ``copy``. Raises StateFault."""
    packed = read_copy(copy, Table.META, META_KEY)
    if packed is None:
        raise StateFault(f"{copy} holds no state: expected one with its applied index")
    return stands_for_meta(packed)


def _remove(path: Path) -> None:
    with suppress(OSError):  # what stays is removed at the next start
        path.unlink()
