"""What a server starts from: the log and the state, each a crash apart from the other.

The state is always at some position within the log, because applying waits for the log; with
one exception, a snapshot that was just installed (``wal/FORMAT.md``). Anything else means
that one of the two was changed, replaced or lost, and the server must not start: it would
break promises that it has forgotten.
"""

from __future__ import annotations

from raft.core.storage import MemoryStorage
from raft.core.types import NO_MEMBER, HardState, Membership, Position
from raft.wal.record import Installed
from raft.wal.wal import Recovered, Wal


class Discontinuous(Exception):
    """The state does not lie within the log."""


def resume(wal: Wal, recovered: Recovered, applied: Position, membership: Membership) -> MemoryStorage:
    """The log to go on with, given the position that the state machine has applied durably, and the
    membership as of there. Finishes an interrupted installation. Raises Discontinuous or WalFailed."""
    base, entries, hard_state = recovered.base, recovered.entries, recovered.hard_state
    if recovered.installing == applied and _is_outdated(recovered, applied):
        # The term in which it came may not be durable yet, but was not less than its last entry's.
        if applied.term > hard_state.current_term:
            hard_state = HardState(applied.term, NO_MEMBER, applied.index)
        wal.write(wal.encode([(hard_state, ())], Installed(applied)))
        base, entries = applied, []
    last_index = base.index + len(entries)
    if not base.index <= applied.index <= last_index:
        raise Discontinuous(
            f"the log holds entries {base.index + 1} to {last_index}, but the state is at {applied.index}"
            if entries
            else f"the log is empty and begins behind {base.index}, but the state is at {applied.index}"
        )
    storage = MemoryStorage(membership, hard_state, base, entries)
    if storage.term(applied.index) != applied.term:
        raise Discontinuous(
            f"the log has term {storage.term(applied.index)} at {applied.index}, but the state at {applied}"
        )
    storage.snapshot = applied if applied.index else None
    return storage


def _is_outdated(recovered: Recovered, applied: Position) -> bool:
    """Whether the log is the one before the snapshot at ``applied`` was installed."""
    base = recovered.base
    place = applied.index - base.index - 1
    if place < 0:
        return applied.index == base.index and applied != base
    return place >= len(recovered.entries) or recovered.entries[place].term != applied.term
