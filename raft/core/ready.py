"""What the core wants done: the caller cannot forget a duty it is handed as a value."""

from __future__ import annotations

from dataclasses import dataclass

from raft.core.messages import Message
from raft.core.types import Entry, HardState, ReadState


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything new since the Ready before it. Each thing is handed out exactly once.

    The caller must, in this order:

    1. send ``messages`` whenever it likes: they promise nothing;
    2. make ``entries`` and ``hard_state`` durable. Without ``must_sync`` nothing here is
       promised to anybody and the write may wait for the next one;
    3. then send ``messages_after_persist`` and call ``Consensus.advance(ready)``.

    ``committed_entries`` are committed and durable here already: apply them in order at any
    time, then call ``Consensus.applied``. Several Readys may be under way at once, so that
    heartbeats go on during a slow write; they are advanced in the order they were handed out.
    """

    hard_state: HardState | None
    entries: tuple[Entry, ...]
    messages: tuple[Message, ...]
    messages_after_persist: tuple[Message, ...]
    committed_entries: tuple[Entry, ...]
    read_states: tuple[ReadState, ...]
    must_sync: bool
