"""Cores joined by an in-memory network, for tests: every message, write and crash is an explicit step."""

from __future__ import annotations

import random
from collections import deque

from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.invariants import Observer
from raft.core.messages import Message
from raft.core.ready import Ready
from raft.core.storage import MemoryStorage
from raft.core.types import Entry, EntryType, HardState, Membership, ReadState, Role


class Node:
    """One server: a core, its durable storage, and the Readys being written."""

    def __init__(self, member: int, membership: Membership, rng: random.Random, observer: Observer) -> None:
        self.member = member
        self.membership = membership
        self.rng = rng
        self.observer = observer
        self.disk_hard_state = HardState()
        self.disk_entries: list[Entry] = []
        self.applied: list[Entry] = []
        self.read_states: list[ReadState] = []
        self.boot()

    def boot(self) -> None:
        """Start from what is durable: term, vote and log; the state machine begins anew."""
        self.storage = MemoryStorage(self.membership, self.disk_hard_state, entries=self.disk_entries)
        self.writing: deque[Ready] = deque()
        self.applied = []
        self.read_states = []
        config = Config(id=self.member, rng=self.rng, election_ticks=10, inflight_max=4, append_bytes_max=64)
        self.core = Consensus(config, self.storage)
        self.observer.restarted(self.member)

    def take_ready(self) -> list[Message]:
        """Begin to write what the core wants durable; returns what may leave now."""
        sent: list[Message] = []
        while (ready := self.core.ready()) is not None:
            sent += ready.messages
            self.writing.append(ready)
            for entry in ready.committed_entries:
                self.observer.applied(self.member, entry)
                self.applied.append(entry)
            if ready.committed_entries:
                self.core.applied(ready.committed_entries[-1].index)
            self.read_states += ready.read_states
        return sent

    def finish_write(self) -> list[Message]:
        """The oldest write is durable; returns what waited for it."""
        if not self.writing:
            return []
        ready = self.writing.popleft()
        self.storage.append(ready.entries)
        if ready.entries:
            del self.disk_entries[ready.entries[0].index - 1 :]
            self.disk_entries += ready.entries
        if ready.hard_state is not None:
            self.storage.set_hard_state(ready.hard_state)
            self.disk_hard_state = ready.hard_state
        self.core.advance(ready)
        return list(ready.messages_after_persist)


class Cluster:
    """``size`` servers. Deterministic for a seed."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.observer = Observer()
        membership = Membership(frozenset(range(1, size + 1)))
        self.nodes = {
            member: Node(member, membership, self.rng, self.observer) for member in membership.voters
        }
        self.up = set(self.nodes)
        self.network: list[Message] = []
        self.cut: set[tuple[int, int]] = set()

    def check(self) -> None:
        self.observer.check(self.nodes[member].core for member in self.up)

    def post(self, messages: list[Message]) -> None:
        self.network += [m for m in messages if (m.source, m.target) not in self.cut]

    def deliver(self, message: Message) -> None:
        if message.target in self.up and (message.source, message.target) not in self.cut:
            self.nodes[message.target].core.step(message)

    def settle(self, *, apart_from: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """Write and deliver, losing nothing, until nothing moves any more. The disks of
        ``apart_from`` stand still."""
        moving = True
        while moving:
            moving = False
            for member in sorted(self.up):
                node = self.nodes[member]
                if node.core.has_ready():
                    self.post(node.take_ready())
                    moving = True
                if node.writing and member not in apart_from:
                    self.post(node.finish_write())
                    moving = True
                self.check()
            messages, self.network = self.network, []
            for message in messages:
                self.deliver(message)
                self.check()
                moving = True

    def crash(self, member: int) -> None:
        """All that was not durable is gone."""
        self.up.discard(member)

    def restart(self, member: int) -> None:
        self.nodes[member].boot()
        self.up.add(member)

    def isolate(self, member: int) -> None:
        others = set(self.nodes) - {member}
        self.cut |= {(member, other) for other in others} | {(other, member) for other in others}

    def heal(self) -> None:
        self.cut.clear()

    def forget_leader(self) -> None:
        """Nobody has heard of a leader for an election timeout: they would vote for another."""
        for member in self.up:
            core = self.core(member)
            if core.role is not Role.LEADER:
                core.elapsed_ticks = core.config.election_ticks

    def elect(self, member: int) -> None:
        self.forget_leader()
        self.nodes[member].core.campaign()
        self.settle()
        assert self.leader == member

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            for member in sorted(self.up):
                self.nodes[member].core.tick()

    @property
    def leader(self) -> int | None:
        """Who leads the highest term."""
        leaders = [self.core(m) for m in self.up if self.core(m).role is Role.LEADER]
        return max(leaders, key=lambda core: core.current_term).id if leaders else None

    def core(self, member: int) -> Consensus:
        return self.nodes[member].core

    def commands(self, member: int) -> list[bytes]:
        """What a server has applied, without what leaders begin with."""
        applied = self.nodes[member].applied
        return [entry.data for entry in applied if entry.data and entry.type is EntryType.NORMAL]
