"""What the watch side needs of the store: its past."""

from __future__ import annotations

from typing import Protocol

from kvstate.types import Event, KeyValue

REVISIONS_PER_READ = 1000
BYTES_PER_READ = 1 << 20


class History(Protocol):
    @property
    def revision(self) -> int:
        """The store's current revision."""

    @property
    def compact_revision(self) -> int:
        """History before this revision is gone."""

    def events(
        self, start_revision: int, limit_revisions: int, limit_bytes: int
    ) -> list[tuple[int, tuple[Event, ...]]]:
        """Whole revisions from ``start_revision`` on, in order. Fewer than ``limit_revisions`` and
        ``limit_bytes`` allow means there are no more. Raises kvstate.errors.Compacted."""

    def previous(self, key: bytes, mod_revision: int) -> KeyValue | None:
        """The key's value just before ``mod_revision``, if it had one that is not compacted."""
