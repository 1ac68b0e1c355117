"""The commands of the scripts in ``scripts/``: real cores, on disks and a network in memory where every
message, write and crash is an explicit step.

A line of output is a message that leaves, or a change that can be seen:

    n1@2 → n2 AppendEntries base=3@1 [4@2] commit=3      is in the network now, to be delivered
    n2@1 follower of n1 ⇒ n2@2 candidate                  role, term or known leader
    n1 commit 3→4; n1 applies 4@2 x; n1 drops 5@1         the log and the state machine
    n1 members 1,2,3 ⇒ 1,2,4 & 1,2,3                      the membership in force
    n2 read 7: index 4; n2 proposal 1: refused            answers to what was asked of this server
    n1 refuses …; n3 stops: …                             a core raised

Whatever a core wants done is taken from it at once, so each input has its own Ready. What must
be durable first waits for ``persist``; the rest does not (as in ``raft.driver``). The state
machine applies at once, but what it holds is durable only after ``flush``, ``compact`` or the
installation of a snapshot: a server that restarts applies the rest again.

Commands (N, M are members; [] may be left out; several members: ``1 2``):

    cluster SIZE [learners=4,5] [spare=6] [leader=1] [SETTING=VALUE…]   of Config; spare: empty servers
    disk N term=T [vote=V] [commit=C] log=1,1,2      restart with entries of these terms on disk
    tick N… [xCOUNT]        timeout N       so many ticks; the rest of the election timeout
    silence [N…]            no leader was heard of for the least election timeout: they would vote
    campaign N              elect N         the latter with everything it takes
    propose N DATA…         DATA*COUNT for long data
    read N CTX              transfer N to M
    change N add-voter M remove M add-learner M
    deliver | drop | duplicate [from N] [to M] [KIND] [first|last]      of what is in the network now
    pending                 what is in the network
    persist [N…] [oldest]   finish writes, all that are under way as one, or the oldest alone
    persist-state N         install a snapshot up to where the state is replaced and the log is not
    stabilize [N…]          deliver and persist everything, among these; messages are not shown
    run [N…]                the same with messages
    crash N  restart N [empty]
    partition N M | K L     only among each other; unnamed ones are together
    cut N M                 nothing from N reaches M                    heal
    flush N                 compact N [upto INDEX]                      report N M ok|failed
    status [N…]  progress N  log [N…]  state [N…]

After every step of every core its invariants are checked, and after every command those of the
cluster; a violation is printed, so a script that does not expect it fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from raft.core import describe
from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.errors import (
    Compacted,
    InvariantViolated,
    MembershipRefused,
    NotLeader,
    ProposalDropped,
    TransferRefused,
    Unavailable,
)
from raft.core.invariants import Observer, check_state
from raft.core.membership import Change, ChangeKind, decode
from raft.core.messages import InstallSnapshot, Message
from raft.core.ready import Ready
from raft.core.storage import MemoryStorage
from raft.core.types import ORIGIN, Entry, EntryType, HardState, Membership, Position, Role
from tests.datadriven import ScriptError

ROUNDS_MAX = 500
_REFUSALS = (NotLeader, ProposalDropped, MembershipRefused, TransferRefused)
_CHANGES = {
    "add-voter": ChangeKind.ADD_VOTER,
    "add-learner": ChangeKind.ADD_LEARNER,
    "remove": ChangeKind.REMOVE,
}


@dataclass(frozen=True, slots=True)
class State:
    """What the state machine holds: all it ever applied, and the membership as of there."""

    membership: Membership
    applied: tuple[Entry, ...] = ()

    @property
    def position(self) -> Position:
        return Position(self.applied[-1].index, self.applied[-1].term) if self.applied else ORIGIN

    def after(self, entries: Iterable[Entry]) -> State:
        membership, applied = self.membership, self.applied
        for entry in entries:
            if entry.index != len(applied) + 1:
                raise InvariantViolated(f"entry {entry.index} is applied after {len(applied)}")
            applied = (*applied, entry)
            if entry.type is EntryType.MEMBERSHIP:
                membership = decode(entry.data)
        return State(membership, applied)

    def upto(self, index: int, membership: Membership) -> State:
        """An earlier state, with the membership that a snapshot's message says it has."""
        return State(membership, self.applied[:index])


@dataclass(slots=True)
class Disk:
    """What a crash leaves."""

    state: State
    hard_state: HardState = field(default_factory=HardState)
    base: Position = ORIGIN
    entries: list[Entry] = field(default_factory=list)
    installing: Position | None = None  # a mark in the log: the state is about to be replaced

    def write(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            del self.entries[ready.entries[0].index - self.base.index - 1 :]
            self.entries += ready.entries

    def has(self, position: Position) -> bool:
        if position.index <= self.base.index:
            return position == self.base
        held = self.entries[position.index - self.base.index - 1 :][:1]
        return bool(held) and held[0].term == position.term

    def begin_log_anew(self, position: Position) -> None:
        self.base, self.entries, self.installing = position, [], None

    def compact(self, index: int) -> None:
        count = index - self.base.index
        self.base = Position(index, self.entries[count - 1].term)
        del self.entries[:count]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message under way; a snapshot's content travels beside it."""

    message: Message
    content: State | None = None


class Node:
    """One server."""

    def __init__(self, member: int, membership: Membership, settings: dict[str, Any]) -> None:
        self.member = member
        self.settings = settings
        self.rng = random.Random(member)
        self.disk = Disk(State(membership))
        self.forward_ctx = 0
        self.boot()

    def boot(self) -> None:
        """Start from what is durable, as raft.restart does."""
        disk = self.disk
        position = disk.state.position
        if disk.installing == position and not disk.has(position):
            disk.begin_log_anew(position)
        self.state = disk.state
        self.storage = MemoryStorage(disk.state.membership, disk.hard_state, disk.base, disk.entries)
        self.storage.snapshot = position if position.index else None
        self.writing: list[Ready] = []
        self.staged: dict[Position, State] = {}
        self.forward_ctx = 0
        config = Config(id=self.member, rng=self.rng, **self.settings)
        self.core = Consensus(config, self.storage, last_applied=position.index)
        self.is_up = True
        self.see()

    def see(self) -> None:
        """Remember what can be seen, to tell later what has changed."""
        core = self.core
        log = core.log
        self.seen_role = describe.describe_role(core)
        self.seen_commit = core.commit_index
        self.seen_membership = core.membership
        self.seen_log = [(i, log.term(i)) for i in range(log.first_index, log.last_index + 1)]

    def changes(self) -> list[str]:
        """What has changed since it was last seen, a line each."""
        log = self.core.log
        role, commit, membership, entries = (
            self.seen_role,
            self.seen_commit,
            self.seen_membership,
            self.seen_log,
        )
        self.see()
        name = f"n{self.member}"
        lines = []
        if self.seen_role != role:
            lines.append(f"{role} ⇒ {self.seen_role}")
        kept = set(self.seen_log)
        gone = [Position(i, t) for i, t in entries if (i, t) not in kept and i >= log.first_index]
        if gone:
            lines.append(f"{name} drops {' '.join(map(str, gone))}")
        if self.seen_membership != membership:
            old, new = map(describe.describe_membership, (membership, self.seen_membership))
            lines.append(f"{name} members {old} ⇒ {new}")
        if self.seen_commit != commit:
            lines.append(f"{name} commit {commit}→{self.seen_commit}")
        return lines


class Interpreter:
    """Runs the commands of one script."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.network: list[Envelope] = []
        self.cut_links: set[tuple[int, int]] = set()
        self.observer = Observer()
        self.lines: list[str] = []
        self.shows_messages = True
        self.commands: dict[str, Callable[[list[str]], None]] = {
            name.removeprefix("do_").replace("_", "-"): getattr(self, name)
            for name in dir(self)
            if name.startswith("do_")
        }

    def execute(self, text: str) -> list[str]:
        """Run one command and return what it prints."""
        name, *words = text.split()
        if name not in self.commands:
            raise ScriptError(f"no command {name}: expected one of {', '.join(self.commands)}")
        if not self.nodes and name != "cluster":
            raise ScriptError("expected a cluster first")
        self.lines = []
        self.commands[name](words)
        self.watch(lambda: self.observer.check(node.core for node in self.up))
        return self.lines

    # How a core runs.

    @property
    def up(self) -> list[Node]:
        return [node for _, node in sorted(self.nodes.items()) if node.is_up]

    def say(self, line: str) -> None:
        self.lines.append(line)

    def watch(self, check: Callable[[], None]) -> None:
        try:
            check()
        except InvariantViolated as error:
            self.say(f"VIOLATED {error}")

    def input(self, node: Node, feed: Callable[[Consensus], object]) -> None:
        """Give a core an input, tell what changed, and take what it wants done."""
        if not node.is_up:
            raise ScriptError(f"n{node.member} is down")

        def step() -> None:
            feed(node.core)
            self.notice(node)
            self.take(node)

        self.guard(node, step)

    def guard(self, node: Node, step: Callable[[], None]) -> None:
        """What a core raises is said; only a refusal lets it go on."""
        try:
            step()
        except _REFUSALS as error:
            self.say(f"n{node.member} refuses, {type(error).__name__}: {error}")
        except (InvariantViolated, Compacted, Unavailable) as error:
            # The driver would stop the node.
            self.say(f"n{node.member} stops, {type(error).__name__}: {error}")
            self.crash(node)

    def notice(self, node: Node) -> None:
        self.lines += node.changes()
        self.watch(lambda: check_state(node.core))

    def take(self, node: Node) -> None:
        """Take the core's Readys; those that promise nothing are done at once."""
        name = f"n{node.member}"
        while (ready := node.core.ready()) is not None:
            self.post(node, ready.messages)
            self.apply(node, ready.committed_entries)
            for ctx, index in ready.read_states:
                self.say(f"{name} read {ctx}: index {index}")
            for ctx in ready.refused_reads:
                self.say(f"{name} read {ctx}: refused")
            for ctx in ready.refused_proposals:
                self.say(f"{name} proposal {ctx}: refused")
            node.writing.append(ready)
            while node.writing and not node.writing[0].must_sync:
                # A commit index alone: the next write takes it along.
                self.written(node, [node.writing.pop(0)])

    def apply(self, node: Node, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        if not entries:
            return
        self.say(f"n{node.member} applies {', '.join(map(describe.describe_entry, entries))}")
        for entry in entries:
            self.watch(lambda entry=entry: self.observer.applied(node.member, entry))  # type: ignore[misc]
        node.state = node.state.after(entries)
        node.core.applied(entries[-1].index)

    def post(self, node: Node, messages: Iterable[Message]) -> None:
        for message in messages:
            is_lost = (message.source, message.target) in self.cut_links
            if self.shows_messages:
                self.say(describe.describe(message) + (" (lost)" if is_lost else ""))
            if not is_lost:
                content = None
                if isinstance(message, InstallSnapshot):
                    position, membership = message.snapshot
                    content = node.state.upto(position.index, membership)
                self.network.append(Envelope(message, content))

    def receive(self, envelope: Envelope) -> None:
        message = envelope.message
        node = self.nodes.get(message.target)
        if node is None or not node.is_up or (message.source, message.target) in self.cut_links:
            if self.shows_messages:
                self.say(f"lost: {describe.describe(message)}")
            return
        if envelope.content is not None and isinstance(message, InstallSnapshot):
            node.staged[message.snapshot.position] = envelope.content
        self.input(node, lambda core: core.step(message))

    def finish_writes(self, node: Node, count: int) -> None:
        """The oldest Readys become durable as one write; one with a snapshot stands alone."""
        batch, node.writing = node.writing[:count], node.writing[count:]
        while batch and node.is_up:
            size = next((i for i, ready in enumerate(batch) if ready.snapshot is not None), len(batch)) or 1
            part, batch = batch[:size], batch[size:]
            self.install(node, part[0])
            for ready in part:
                node.disk.write(ready)
            self.guard(node, lambda part=part: self.written(node, part))  # type: ignore[misc]
            if node.is_up:
                self.guard(node, lambda: self.take(node))

    def install(self, node: Node, ready: Ready) -> None:
        if ready.snapshot is None:
            return
        position = ready.snapshot.position
        node.disk.state = node.state = node.staged[position]
        node.disk.begin_log_anew(position)
        node.storage.restore(position)
        node.storage.snapshot = position
        self.say(f"n{node.member} installs {describe.describe_snapshot(ready.snapshot)}")

    def written(self, node: Node, batch: list[Ready]) -> None:
        """As the driver does: first all of the batch, then what comes of it."""
        for ready in batch:
            node.storage.append(ready.entries)
            if ready.hard_state is not None:
                node.storage.set_hard_state(ready.hard_state)
            self.post(node, ready.messages_after_persist)
            node.core.advance(ready)
            if ready.snapshot is not None:
                node.core.applied(ready.snapshot.position.index)
        self.notice(node)

    def crash(self, node: Node) -> None:
        node.is_up = False
        node.writing.clear()

    # Arguments.

    def node(self, word: str) -> Node:
        try:
            return self.nodes[int(word)]
        except (KeyError, ValueError):
            raise ScriptError(f"no server {word}: expected one of {sorted(self.nodes)}") from None

    def some(self, words: list[str]) -> list[Node]:
        """These servers, or all that are up."""
        return [self.node(word) for word in words] if words else self.up

    def one(self, words: list[str]) -> Node:
        if len(words) != 1:
            raise ScriptError("expected one server")
        return self.node(words[0])

    def select(self, words: list[str]) -> list[Envelope]:
        """What is in the network and meant by ``from N to M KIND first``."""
        rest, chosen, only = list(words), list(self.network), slice(None)
        while rest:
            word = rest.pop(0)
            if word == "from":
                source = int(rest.pop(0))
                chosen = [one for one in chosen if one.message.source == source]
            elif word == "to":
                target = int(rest.pop(0))
                chosen = [one for one in chosen if one.message.target == target]
            elif word in ("first", "last"):
                only = slice(0, 1) if word == "first" else slice(-1, None)
            else:
                chosen = [one for one in chosen if type(one.message).__name__ == word]
        chosen = chosen[only]
        if not chosen:
            raise ScriptError("no such message is in the network")
        return chosen

    def remove(self, envelopes: list[Envelope]) -> None:
        """By identity: a doubled message is equal to its twin."""
        taken = {id(one) for one in envelopes}
        self.network = [one for one in self.network if id(one) not in taken]

    # Set-up.

    def do_cluster(self, words: list[str]) -> None:
        size, *options = words
        learners: list[int] = []
        spare: list[int] = []
        leader = ""
        settings: dict[str, Any] = {}
        for option in options:
            name, _, value = option.partition("=")
            if name == "learners":
                learners = [int(word) for word in value.split(",")]
            elif name == "spare":
                spare = [int(word) for word in value.split(",")]
            elif name == "leader":
                leader = value
            elif name == "pre_vote":
                settings[name] = value == "on"
            else:
                settings[name] = int(value)
        membership = Membership(frozenset(range(1, int(size) + 1)), frozenset(learners))
        self.nodes = {member: Node(member, membership, settings) for member in sorted(membership.members)}
        self.nodes |= {member: Node(member, Membership(), settings) for member in spare}
        if leader:
            self.do_elect([leader])

    def do_disk(self, words: list[str]) -> None:
        node = self.node(words[0])
        values = dict(word.split("=") for word in words[1:])
        terms = [int(term) for term in values.get("log", "").split(",") if term]
        entries = [Entry(i, t, EntryType.NORMAL, b"x") for i, t in enumerate(terms, 1)]
        hard_state = HardState(*(int(values.get(name, 0)) for name in ("term", "vote", "commit")))
        node.disk = Disk(State(node.disk.state.membership), hard_state, ORIGIN, entries)
        node.boot()
        self.observer.restarted(node.member)

    # Inputs.

    def do_tick(self, words: list[str]) -> None:
        count = int(words.pop()[1:]) if words[-1].startswith("x") else 1
        for _ in range(count):
            for node in self.some(words):
                self.input(node, Consensus.tick)

    def do_timeout(self, words: list[str]) -> None:
        node = self.one(words)
        for _ in range(max(1, node.core.timeout_ticks - node.core.elapsed_ticks)):
            self.input(node, Consensus.tick)

    def do_silence(self, words: list[str]) -> None:
        for node in self.some(words):
            if node.core.role is not Role.LEADER:
                node.core.elapsed_ticks = max(node.core.elapsed_ticks, node.core.config.election_ticks)

    def do_campaign(self, words: list[str]) -> None:
        self.input(self.one(words), Consensus.campaign)

    def do_elect(self, words: list[str]) -> None:
        node = self.one(words)
        self.do_silence([])
        self.shows_messages = False
        self.input(node, Consensus.campaign)
        self.stabilize(self.up)
        self.shows_messages = True
        if node.core.role is not Role.LEADER:
            raise ScriptError(f"n{node.member} was not elected")

    def do_propose(self, words: list[str]) -> None:
        node, data = self.node(words[0]), []
        for word in words[1:]:
            text, _, count = word.partition("*")
            data.append((text * int(count or 1)).encode())
        node.forward_ctx += 1
        self.input(node, lambda core: core.propose(data, node.forward_ctx))

    def do_read(self, words: list[str]) -> None:
        ctx = int(words[1])
        self.input(self.node(words[0]), lambda core: core.read_index(ctx))

    def do_transfer(self, words: list[str]) -> None:
        target = int(words[-1])
        self.input(self.node(words[0]), lambda core: core.transfer_leadership(target))

    def do_change(self, words: list[str]) -> None:
        changes, kind = [], None
        for word in words[1:]:
            if word in _CHANGES:
                kind = _CHANGES[word]
            elif kind is None:
                raise ScriptError(f"expected one of {', '.join(_CHANGES)}")
            else:
                changes.append(Change(kind, int(word)))
        self.input(self.node(words[0]), lambda core: core.propose_membership(changes))

    def do_report(self, words: list[str]) -> None:
        follower, result = int(words[1]), words[2]
        arrived = {"ok": True, "failed": False}[result]
        self.input(
            self.node(words[0]),
            lambda core: core.report_snapshot(
                follower, core.progress[follower].snapshot_index, arrived=arrived
            ),
        )

    # The network.

    def do_deliver(self, words: list[str]) -> None:
        chosen = self.select(words)
        self.remove(chosen)
        for envelope in chosen:
            self.receive(envelope)

    def do_drop(self, words: list[str]) -> None:
        chosen = self.select(words) if words else list(self.network)
        self.remove(chosen)
        self.lines += [f"dropped: {describe.describe(one.message)}" for one in chosen]

    def do_duplicate(self, words: list[str]) -> None:
        for envelope in self.select(words):
            self.network.append(Envelope(envelope.message, envelope.content))
            self.say(f"doubled: {describe.describe(envelope.message)}")

    def do_pending(self, words: list[str]) -> None:
        self.lines += [describe.describe(one.message) for one in self.network]

    def do_partition(self, words: list[str]) -> None:
        groups = [{int(word) for word in group.split()} for group in " ".join(words).split("|")]
        groups.append(set(self.nodes) - set().union(*groups))
        side = {member: number for number, group in enumerate(groups) for member in group}
        self.cut_links = {(a, b) for a in side for b in side if side[a] != side[b]}

    def do_cut(self, words: list[str]) -> None:
        source, target = words
        self.cut_links.add((int(source), int(target)))

    def do_heal(self, words: list[str]) -> None:
        self.cut_links.clear()

    # Disks.

    def do_persist(self, words: list[str]) -> None:
        only_oldest = words[-1:] == ["oldest"]
        for node in self.some(words[:-1] if only_oldest else words):
            if node.writing:
                self.finish_writes(node, 1 if only_oldest else len(node.writing))
            elif words:
                raise ScriptError(f"n{node.member} writes nothing")

    def do_persist_state(self, words: list[str]) -> None:
        node = self.one(words)
        if not node.writing or node.writing[0].snapshot is None:
            raise ScriptError("expected a snapshot as the oldest write")
        node.disk.installing = node.writing[0].snapshot.position
        node.disk.state = node.staged[node.disk.installing]

    def do_crash(self, words: list[str]) -> None:
        self.crash(self.one(words))

    def do_restart(self, words: list[str]) -> None:
        node = self.node(words[0])
        if words[1:] == ["empty"]:
            node.disk = Disk(State(Membership()))
        self.crash(node)
        node.boot()
        self.observer.restarted(node.member)
        self.say(f"{describe.describe_status(node.core)}")
        self.input(node, lambda core: None)

    def do_flush(self, words: list[str]) -> None:
        node = self.one(words)
        node.disk.state = node.state
        node.storage.snapshot = node.state.position

    def do_compact(self, words: list[str]) -> None:
        node = self.node(words[0])
        if words[1:2] != ["upto"] or node.storage.snapshot is None:
            self.do_flush(words[:1])
        assert node.storage.snapshot is not None
        index = int(words[2]) if len(words) > 2 else node.storage.snapshot.index
        if index > node.storage.snapshot.index:
            raise ScriptError(f"only {node.storage.snapshot} is durable in the state")
        node.storage.compact(index)
        node.disk.compact(index)
        node.see()

    # Until nothing moves any more.

    def do_stabilize(self, words: list[str]) -> None:
        self.shows_messages = False
        self.stabilize(self.some(words))
        self.shows_messages = True

    def do_run(self, words: list[str]) -> None:
        self.stabilize(self.some(words))

    def stabilize(self, nodes: list[Node]) -> None:
        members = {node.member for node in nodes}
        for _ in range(ROUNDS_MAX):
            writing = [node for node in nodes if node.writing]
            for node in writing:
                self.finish_writes(node, len(node.writing))
            moving = [one for one in self.network if {one.message.source, one.message.target} <= members]
            self.remove(moving)
            for envelope in moving:
                self.receive(envelope)
            if not writing and not moving:
                return
        raise ScriptError(f"it still moves after {ROUNDS_MAX} rounds")

    # What can be looked at.

    def do_status(self, words: list[str]) -> None:
        for node in self.some(words):
            self.say(describe.describe_status(node.core) if node.is_up else f"n{node.member} is down")

    def do_progress(self, words: list[str]) -> None:
        self.lines += describe.describe_progress(self.one(words).core)

    def do_log(self, words: list[str]) -> None:
        for node in self.some(words):
            self.say(f"n{node.member} log {describe.describe_log(node.core)}")

    def do_state(self, words: list[str]) -> None:
        """What the state machine holds, without the entries that mean nothing to it."""
        for node in self.some(words):
            commands = [
                entry for entry in node.state.applied if entry.type is EntryType.NORMAL and entry.data
            ]
            data = " ".join(describe.describe_data(entry.data) for entry in commands)
            members = describe.describe_membership(node.state.membership)
            self.say(f"n{node.member} state at {node.state.position}: {data or 'empty'}, members {members}")
