"""What the core wants done: the caller cannot forget a duty it is handed as a value."""

from __future__ import annotations

from raft.core.messages import Message
from raft.core.types import Entry, HardState, ReadState, SnapshotMeta


class Ready:
    """Everything new since the Ready before it. Each thing is handed out exactly once.

    The caller must, in this order:

    1. send ``messages`` whenever it likes: they promise nothing;
    2. if there is a ``snapshot``, make the state that came with it the own state, durably, and
       the log one that begins behind it;
    3. make ``entries`` and ``hard_state`` durable. Without ``must_sync`` nothing here is
       promised to anybody and the write may wait for the next one;
    4. then send ``messages_after_persist`` and call ``Consensus.advance(ready)``, and for a
       snapshot ``Consensus.applied`` with its index.

    ``committed_entries`` are committed and durable here already: apply them in order at any
    time, then call ``Consensus.applied``. Several Readys may be under way at once, so that
    heartbeats go on during a slow write; they are advanced in the order they were handed out.

    ``read_states`` are reads of this server that were confirmed. ``refused_proposals`` are contexts of
    forwarded proposals, and ``refused_reads`` of reads, that the server asked did not take: nothing
    happened of them, nor will.
    """

    # No dataclass: a frozen one takes several times as long to make, and there are some for every batch.
    __slots__ = (
        "committed_entries",
        "entries",
        "hard_state",
        "messages",
        "messages_after_persist",
        "must_sync",
        "read_states",
        "refused_proposals",
        "refused_reads",
        "snapshot",
    )

    def __init__(
        self,
        hard_state: HardState | None,
        entries: tuple[Entry, ...],
        messages: tuple[Message, ...],
        messages_after_persist: tuple[Message, ...],
        committed_entries: tuple[Entry, ...],
        read_states: tuple[ReadState, ...],
        must_sync: bool,
        snapshot: SnapshotMeta | None = None,
        refused_proposals: tuple[int, ...] = (),
        refused_reads: tuple[int, ...] = (),
    ) -> None:
        self.hard_state = hard_state
        self.entries = entries
        self.messages = messages
        self.messages_after_persist = messages_after_persist
        self.committed_entries = committed_entries
        self.read_states = read_states
        self.must_sync = must_sync
        self.snapshot = snapshot
        self.refused_proposals = refused_proposals
        self.refused_reads = refused_reads
