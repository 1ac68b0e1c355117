"""What a server starts from after a crash: log and state, wherever between the two it happened."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.storage import MemoryStorage
from raft.core.types import ORIGIN, Entry, EntryType, HardState, Membership, Position
from raft.restart import Discontinuous, resume
from raft.wal.record import Installed, Installing
from raft.wal.wal import Recovered, Wal
from tests.raft.wal.lossy import Crash, LossyDisk

VOTERS = Membership(frozenset({1, 2, 3}))
EVERYTHING = 1 << 60


def entries(first: int, count: int, term: int = 1, size: int = 10) -> list[Entry]:
    return [
        Entry(i, term, EntryType.NORMAL, b"%d@%d" % (i, term) + b"." * size)
        for i in range(first, first + count)
    ]


class Server:
    """What survives a crash: a disk with a log, and the position of a state, which changes at once."""

    def __init__(self, seed: int = 0, segment_bytes: int = 100_000) -> None:
        self.disk = LossyDisk(seed)
        self.segment_bytes = segment_bytes
        self.applied = ORIGIN
        self.wal, self.recovered = self.open()

    def open(self) -> tuple[Wal, Recovered]:
        return Wal.open(self.disk, Path("/wal"), identity=b"", segment_bytes=self.segment_bytes)

    def mark(
        self, mark: Installing | Installed, hard_state: HardState | None = None, log: Sequence[Entry] = ()
    ) -> None:
        self.wal.write(self.wal.encode([(hard_state, log)], mark))

    def resume(self) -> MemoryStorage:
        """Start from what is there."""
        self.wal, self.recovered = self.open()
        return resume(self.wal, self.recovered, self.applied, VOTERS)


def content(storage: MemoryStorage) -> tuple[HardState, Position, list[Entry]]:
    base = storage.first_index - 1
    log = list(storage.entries(storage.first_index, storage.last_index + 1, EVERYTHING))
    return storage.initial_state()[0], Position(base, storage.term(base)), log


@pytest.mark.parametrize("index", range(6))
def test_a_state_within_its_log_goes_on_with_it(index: int) -> None:
    """A log is taken as it stands, and nothing is written, wherever in it the state is."""
    server = Server()
    server.wal.save(HardState(2, 3, 1), entries(1, 5))
    server.applied = Position(index, 1 if index else 0)
    wal, recovered = server.open()
    operations = server.disk.operations
    storage = resume(wal, recovered, server.applied, VOTERS)
    assert content(storage) == (HardState(2, 3, 1), ORIGIN, entries(1, 5))
    assert storage.initial_state()[1] == VOTERS
    assert storage.snapshot == (server.applied if index else None)
    assert server.disk.operations == operations


@pytest.mark.parametrize("applied", [Position(4, 1), Position(9, 2), Position(9, 1), ORIGIN])
def test_a_state_outside_its_log_is_refused(applied: Position) -> None:
    """A state before the log, or beyond it without a mark, belongs to another log; the message says
    what each of the two holds."""
    server = Server()
    server.mark(Installed(Position(5, 2)), HardState(2, 0, 5), entries(6, 3, term=2))
    server.applied = applied
    with pytest.raises(Discontinuous, match=f"entries 6 to 8, but the state is at {applied.index}$"):
        server.resume()


def test_a_state_without_a_log_is_refused() -> None:
    """Who lost the whole log must not begin a new one under its old state."""
    server = Server()
    server.applied = Position(3, 1)
    with pytest.raises(Discontinuous, match="the state is at 3"):
        server.resume()


@pytest.mark.parametrize(("applied", "found"), [(Position(7, 3), 2), (Position(5, 1), 2)])
def test_a_state_of_another_term_is_refused(applied: Position, found: int) -> None:
    """A log that has another term where the state is tells another story, also right at its beginning."""
    server = Server()
    server.mark(Installed(Position(5, 2)), HardState(3, 0, 5), entries(6, 3, term=2))
    server.applied = applied
    expected = f"term {found} at {applied.index}, but the state at {applied}$"
    with pytest.raises(Discontinuous, match=expected):
        server.resume()


@pytest.mark.parametrize(
    ("hard_state", "kept"),
    [
        (HardState(1, 1, 2), HardState(4, 0, 10)),
        (HardState(4, 2, 2), HardState(4, 2, 2)),
        (HardState(6, 3, 2), HardState(6, 3, 2)),
    ],
)
def test_an_interrupted_installation_is_finished(hard_state: HardState, kept: HardState) -> None:
    """The state is the snapshot's and the log not yet: the log begins behind it, durably. The term
    is at least the snapshot's; if it was known before, the vote given in it stands."""
    server = Server()
    server.wal.save(hard_state, entries(1, 3))
    server.mark(Installing(Position(10, 4)))
    server.applied = Position(10, 4)
    storage = server.resume()
    assert content(storage) == (kept, Position(10, 4), [])
    assert storage.snapshot == (10, 4)
    core = Consensus(Config(id=1, rng=random.Random(0)), storage, last_applied=10)
    assert (core.current_term, core.voted_for, core.commit_index) == (kept.current_term, kept.voted_for, 10)

    server.disk.crash()
    server.wal, recovered = server.open()
    assert recovered == Recovered(kept, Position(10, 4), [], None)
    server.wal.save(None, entries(11, 2, term=4))
    assert content(server.resume()) == (kept, Position(10, 4), entries(11, 2, term=4))


@pytest.mark.parametrize("applied", [ORIGIN, Position(2, 1), Position(3, 1)])
def test_a_mark_alone_changes_nothing(applied: Position) -> None:
    """The log is marked and the state not replaced: both go on as they were."""
    server = Server()
    server.wal.save(HardState(1, 1, 2), entries(1, 3))
    server.mark(Installing(Position(10, 4)))
    server.applied = applied
    assert content(server.resume()) == (HardState(1, 1, 2), ORIGIN, entries(1, 3))
    assert server.recovered.installing == (10, 4)


def test_a_mark_does_not_excuse_another_position() -> None:
    """A state beyond the log is damage, if it is not the very one that the mark speaks of."""
    server = Server()
    server.wal.save(HardState(1, 1, 2), entries(1, 3))
    server.mark(Installing(Position(10, 4)))
    for applied in (Position(11, 4), Position(9, 4), Position(10, 3)):
        server.applied = applied
        with pytest.raises(Discontinuous):
            server.resume()


def test_a_position_that_was_marked_and_then_reached_is_one_like_others() -> None:
    """A snapshot that was never installed leaves its mark; when the log has come to its position by
    itself, nothing of the log is given up."""
    server = Server()
    server.wal.save(HardState(1, 1, 2), entries(1, 3))
    server.mark(Installing(Position(5, 1)))
    server.wal.save(HardState(1, 1, 6), entries(4, 4))
    server.applied = Position(5, 1)
    assert content(server.resume()) == (HardState(1, 1, 6), ORIGIN, entries(1, 7))
    assert server.recovered.installing == (5, 1)


def test_a_marked_position_may_be_where_the_log_begins() -> None:
    """The same when the log was cut right there since."""
    server = Server(segment_bytes=50)
    server.wal.save(HardState(1, 1, 5), entries(1, 5))
    server.mark(Installing(Position(5, 1)))  # begins a segment
    server.wal.compact(5)
    server.wal.save(None, entries(6, 2))
    server.applied = Position(5, 1)
    assert content(server.resume()) == (HardState(1, 1, 5), Position(5, 1), entries(6, 2))
    assert server.recovered.installing == (5, 1)


@pytest.mark.parametrize("index", [5, 10, 19, 20])
def test_a_log_that_conflicts_with_the_snapshot_goes(index: int) -> None:
    """Also a log that reaches beyond the snapshot's position is given up, if it has another term there."""
    server = Server(segment_bytes=50)
    server.wal.save(HardState(1, 1, 0), entries(1, 5))
    server.wal.compact(5)
    server.wal.save(HardState(1, 1, 0), entries(6, 15))
    server.wal.compact(5)
    server.mark(Installing(Position(index, 3)))
    server.applied = Position(index, 3)
    assert content(server.resume()) == (HardState(3, 0, index), Position(index, 3), [])
    server.disk.crash()
    assert content(server.resume()) == (HardState(3, 0, index), Position(index, 3), [])


# A crash at every operation of the disk.


@dataclass(frozen=True)
class Kept:
    """What a server must start from: hard state, the position before the log, the log."""

    hard_state: HardState
    base: Position
    log: tuple[Entry, ...] = ()

    @property
    def last(self) -> Position:
        return Position(self.log[-1].index, self.log[-1].term) if self.log else self.base

    def at(self, index: int) -> Position:
        return (
            Position(index, self.log[index - self.base.index - 1].term)
            if index > self.base.index
            else self.base
        )

    def saved(self, hard_state: HardState, new: Sequence[Entry]) -> Kept:
        upto = new[0].index - self.base.index - 1 if new else len(self.log)
        return Kept(hard_state, self.base, (*self.log[:upto], *new))

    def is_in(self, storage: MemoryStorage) -> bool:
        """What was compacted may be gone, or not yet."""
        hard_state, base, log = content(storage)
        return (
            hard_state == self.hard_state
            and self.base.index <= base.index <= self.last.index
            and base == self.at(base.index)
            and log == list(self.log[base.index - self.base.index :])
        )


class Game:
    """Saves, and now and then a snapshot that is installed, as the driver does both. ``possible`` is what
    a crash at this moment may leave."""

    def __init__(self, server: Server, rng: random.Random, kept: Kept) -> None:
        self.server = server
        self.rng = rng
        self.possible = [kept]

    @property
    def kept(self) -> Kept:
        """What is confirmed."""
        assert len(self.possible) == 1
        return self.possible[0]

    def play(self) -> None:
        for _ in range(3):
            for _ in range(self.rng.randrange(2, 5)):
                self.save()
            self.install()
        self.save()

    def save(self) -> None:
        """Entries at the end or, of a newer term, in the place of some that are not committed; then the
        state follows some way, and what lies behind it may be removed."""
        server, rng, kept = self.server, self.rng, self.kept
        term, vote, commit = kept.hard_state
        first = kept.last.index + 1
        floor = max(commit, server.applied.index)
        if rng.random() < 0.3 and first > floor + 1:
            first, term, vote = rng.randrange(floor + 1, first), term + 1, rng.randrange(3)
        new = entries(first, rng.randrange(4), max(term, 1), rng.choice([5, 600]))
        last = new[-1].index if new else kept.last.index
        hard_state = HardState(max(term, 1), vote, rng.randrange(floor, last + 1))
        after = kept.saved(hard_state, new)
        self.possible.append(after)
        server.wal.save(hard_state, new)
        self.possible = [after]
        server.applied = after.at(rng.randrange(server.applied.index, hard_state.commit_index + 1))
        if rng.random() < 0.4:
            server.wal.compact(server.applied.index)

    def install(self) -> None:
        """A snapshot of what is not in the log: beyond its end, or of another term. The newer term
        need not be durable when the snapshot is marked."""
        server, rng, kept = self.server, self.rng, self.kept
        term, _, commit = kept.hard_state
        if rng.random() < 0.4 and kept.last.index > commit:
            position = Position(rng.randrange(commit, kept.last.index) + 1, term + 1)
        else:
            position = Position(kept.last.index + rng.randrange(1, 5), term + rng.randrange(2))
        server.mark(Installing(position))
        server.applied = position
        if position.term > term:
            self.possible = [Kept(HardState(position.term, 0, position.index), position)]
        else:
            self.possible = [Kept(kept.hard_state, position)]
        new = entries(position.index + 1, rng.randrange(3), position.term)
        hard_state = HardState(position.term, rng.randrange(3), position.index)
        after = Kept(hard_state, position, tuple(new))
        self.possible.append(after)
        server.mark(Installed(position), hard_state, new)
        self.possible = [after]


def restart(server: Server, possible: Sequence[Kept]) -> Kept:
    """Start from what is there; it must be one of the possible."""
    storage = server.resume()
    Consensus(Config(id=1, rng=random.Random(0)), storage, last_applied=server.applied.index)
    assert storage.first_index - 1 <= server.applied.index <= storage.last_index
    assert storage.term(server.applied.index) == server.applied.term
    [found, *_] = [kept for kept in possible if kept.is_in(storage)]
    return found


@pytest.mark.parametrize("seed", range(35))
def test_a_crash_at_any_operation_loses_nothing_confirmed(seed: int) -> None:
    """A server that crashed anywhere starts from what was confirmed last or was just being written, its
    state within its log; also when it crashes again while it starts; and it goes on from there."""
    crash_at = 0
    while True:
        crash_at += 1
        server = Server(seed * 1000 + crash_at, segment_bytes=700)
        game = Game(server, random.Random(seed), Kept(HardState(), ORIGIN))
        server.disk.crash_at = server.disk.operations + crash_at
        try:
            game.play()
        except Crash:
            pass
        else:
            assert crash_at > 25, "the game is too short to say anything"
            server.disk.crash()
            assert restart(server, game.possible) == game.kept
            return
        for again in range(1, 9):
            server.disk.crash()
            server.disk.crash_at = server.disk.operations + again
            try:
                restart(server, game.possible)
            except Crash:
                continue
        server.disk.crash()
        found = restart(server, game.possible)
        further = Game(server, random.Random(crash_at), found)
        further.play()
        server.disk.crash()
        assert restart(server, further.possible) == further.kept
