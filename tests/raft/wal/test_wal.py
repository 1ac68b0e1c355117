"""The write-ahead log keeps what it confirmed, whatever the disk does to the rest."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.core.types import ORIGIN, Entry, EntryType, HardState, Position
from raft.filesystem import RealFilesystem
from raft.wal.record import Installed, Installing, Malformed, decode_records, encode_frame
from raft.wal.recovery import read_identity
from raft.wal.segment import FORMAT_VERSION, Header, encode_header
from raft.wal.wal import Recovered, Wal, WalCorrupt, WalFailed, WrongIdentity
from tests.raft.wal.lossy import Crash, LossyDisk

DIRECTORY = Path("/wal")
IDENTITY = b"member 1"


def entries(first: int, count: int, term: int = 1, size: int = 20) -> list[Entry]:
    return [
        Entry(i, term, EntryType.NORMAL, b"%d@%d" % (i, term) + b"." * size)
        for i in range(first, first + count)
    ]


def open_wal(disk, directory: Path = DIRECTORY, segment_bytes: int = 2000) -> tuple[Wal, Recovered]:
    return Wal.open(disk, directory, identity=IDENTITY, segment_bytes=segment_bytes)


class Model:
    """What a log holds: entries by index, the later one winning, and the hard state."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.hard_state = HardState()

    def save(self, hard_state: HardState | None, new: list[Entry]) -> Model:
        after = Model()
        after.log = list(self.log)
        after.hard_state = hard_state or self.hard_state
        if new:
            del after.log[new[0].index - 1 :]
            after.log += new
        return after

    def describes(self, recovered: Recovered) -> bool:
        base = recovered.base.index
        return (
            recovered.hard_state == self.hard_state
            and recovered.entries == self.log[base:]
            and (base == 0 or self.log[base - 1].term == recovered.base.term)
        )


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    """An empty directory becomes an empty log."""
    wal, recovered = open_wal(RealFilesystem(), tmp_path / "new" / "wal")
    assert recovered == Recovered(HardState(), ORIGIN, [], None)
    wal.close()


def test_what_was_saved_is_recovered(tmp_path: Path) -> None:
    """Entries and hard state come back, over several segments."""
    wal, _ = open_wal(RealFilesystem(), tmp_path)
    model = Model()
    for number in range(40):
        new = entries(len(model.log) + 1, 3)
        wal.save(HardState(1, 2, number), new)
        model = model.save(HardState(1, 2, number), new)
    wal.close()
    assert len(list(tmp_path.glob("*.wal"))) > 2
    wal, recovered = open_wal(RealFilesystem(), tmp_path)
    wal.close()
    assert model.describes(recovered)
    assert wal.last_index == 120


def test_another_member_is_refused(tmp_path: Path) -> None:
    """A log of another identity is not touched."""
    files = RealFilesystem()
    wal, _ = open_wal(files, tmp_path)
    wal.save(HardState(1, 1, 0), [])
    wal.close()
    assert read_identity(files, tmp_path) == IDENTITY
    with pytest.raises(WrongIdentity, match="another member"):
        Wal.open(files, tmp_path, identity=b"member 2")


def test_a_log_in_which_nothing_is_belongs_to_nobody(tmp_path: Path) -> None:
    """Such a log is what a start leaves that was refused: it is begun anew for whoever comes next."""
    files = RealFilesystem()
    open_wal(files, tmp_path)[0].close()
    assert read_identity(files, tmp_path) is None
    wal, recovered = Wal.open(files, tmp_path, identity=b"member 2")
    assert recovered == Recovered(HardState(), ORIGIN, [], None)
    wal.save(None, entries(1, 1))
    wal.close()
    assert read_identity(files, tmp_path) == b"member 2"


def test_a_gap_is_refused(tmp_path: Path) -> None:
    """Entries that do not continue the log are a mistake of the caller."""
    wal, _ = open_wal(RealFilesystem(), tmp_path)
    with pytest.raises(ValueError, match="does not continue"):
        wal.save(None, entries(2, 1))
    wal.close()


def test_every_prefix_recovers_to_whole_batches() -> None:
    """Wherever the file ends, the whole batches before that are there and nothing else."""
    disk = LossyDisk()
    wal, _ = open_wal(disk, segment_bytes=100_000)
    models, ends = [Model()], []
    for number in range(4):
        new = entries(len(models[-1].log) + 1, 2)
        wal.save(HardState(1, 1, number), new)
        models.append(models[-1].save(HardState(1, 1, number), new))
        ends.append(wal.size_bytes)
    wal.close()
    path = DIRECTORY / f"{1:016x}.wal"
    data = disk.read(path)[: ends[-1]]
    header_end = ends[0] - (ends[1] - ends[0])
    for length in range(header_end, len(data) + 1):
        disk.replace(path, data[:length])
        wal, recovered = open_wal(disk, segment_bytes=100_000)
        wal.close()
        whole = sum(end <= length for end in ends)
        assert models[whole].describes(recovered), length
        assert (recovered.cut is None) == (length in (*ends, header_end)), length


def test_every_garbled_byte_is_found() -> None:
    """A wrong byte in the last frame is a torn write and cut; anywhere before, it is damage and
    refused with the frame's offset."""
    disk = LossyDisk()
    wal, _ = open_wal(disk, segment_bytes=100_000)
    starts = []
    for number in range(4):
        starts.append(wal.size_bytes)
        wal.save(HardState(1, 1, number), entries(number * 2 + 1, 2))
    end = wal.size_bytes
    wal.close()
    path = DIRECTORY / f"{1:016x}.wal"
    good = disk.read(path)
    for position in range(end):
        for flip in (0x01, 0x80, 0xFF):
            data = bytearray(good)
            data[position] ^= flip
            disk.replace(path, bytes(data))
            if position >= starts[-1]:
                wal, recovered = open_wal(disk, segment_bytes=100_000)
                wal.close()
                assert recovered.cut is not None
                assert recovered.cut.offset == starts[-1]
                assert len(recovered.entries) == 6
            else:
                with pytest.raises(WalCorrupt) as caught:
                    open_wal(disk, segment_bytes=100_000)
                assert caught.value.path == path
                assert caught.value.offset == max((s for s in starts if s <= position), default=0)


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    """A segment that is gone from the middle, or was cut short, is damage."""
    wal, _ = open_wal(RealFilesystem(), tmp_path, 1000)
    for number in range(30):
        wal.save(HardState(1, 1, number), entries(number * 2 + 1, 2))
    wal.close()
    paths = sorted(tmp_path.glob("*.wal"))
    second = paths[1].read_bytes()
    paths[1].unlink()
    with pytest.raises(WalCorrupt, match="segment is missing"):
        open_wal(RealFilesystem(), tmp_path)
    paths[1].write_bytes(second[:400])
    with pytest.raises(WalCorrupt):
        open_wal(RealFilesystem(), tmp_path)


def test_a_stored_copy_of_the_log_is_not_taken_for_the_log(tmp_path: Path) -> None:
    """Who stores a log file's bytes as a value does not make a torn tail look like damage."""
    wal, _ = open_wal(RealFilesystem(), tmp_path, 100_000)
    wal.save(None, entries(1, 3))
    [path] = tmp_path.glob("*.wal")
    copy = path.read_bytes()[: wal.size_bytes]
    start = wal.size_bytes
    wal.save(None, [Entry(4, 1, EntryType.NORMAL, copy)])
    wal.close()
    data = bytearray(path.read_bytes())
    data[start + 9] ^= 1
    path.write_bytes(data)
    wal, recovered = open_wal(RealFilesystem(), tmp_path, 100_000)
    wal.close()
    assert recovered.cut is not None
    assert len(recovered.entries) == 3


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    """A file of a later format is not guessed at; both versions are named."""
    header = Header(b"12345678", 1, ORIGIN, HardState(), IDENTITY)
    data, _ = encode_header(header, 0)
    payload = bytearray(data[28:-4])
    payload[1] = FORMAT_VERSION + 1
    frame, _ = encode_frame(b"KVORUMWL", 0, 0, bytes(payload))
    (tmp_path / f"{1:016x}.wal").write_bytes(frame)
    with pytest.raises(WalCorrupt, match=f"version {FORMAT_VERSION + 1}.*version {FORMAT_VERSION}"):
        open_wal(RealFilesystem(), tmp_path)


def test_golden_bytes() -> None:
    """The format on disk does not change by accident (FORMAT.md explains these bytes)."""
    disk = LossyDisk(seed=1)
    wal, _ = open_wal(disk)
    wal.save(HardState(3, 7, 1), [Entry(1, 3, EntryType.NORMAL, b"put")])
    data = disk.read(DIRECTORY / f"{1:016x}.wal")[: wal.size_bytes]
    assert data.hex(" ", 8) == GOLDEN


GOLDEN = (
    "4b564f52554d574c 0000000000000000 0000004200000000 0fde6c050001f5b1 65224a58b7910000"
    " 0000000000010000 0000000000000000 0000000000000000 0000000000000000 0000000000000000"
    " 0000000000006d65 6d6265722031efbb b467f5b165224a58 b791000000000000 006200000036efbb"
    " b467cb48217c0200 0000140000000000 0000010000000000 0000030070757401 0000001800000000"
    " 0000000300000000 0000000700000000 00000001eb0f65b5"
)


def test_golden_bytes_of_a_snapshots_marks() -> None:
    """Neither does that of the two marks: kind 3, then kind 4 before the entries and the hard state."""
    disk = LossyDisk(seed=1)
    wal, _ = open_wal(disk)
    start = wal.size_bytes
    wal.write(wal.encode([], Installing(Position(5, 3))))
    entry = Entry(6, 3, EntryType.NORMAL, b"put")
    wal.write(wal.encode([(HardState(3, 7, 5), [entry])], Installed(Position(5, 3))))
    data = disk.read(DIRECTORY / f"{1:016x}.wal")[start : wal.size_bytes]
    assert data.hex(" ", 8) == GOLDEN_MARKS


GOLDEN_MARKS = (
    "f5b165224a58b791 0000000000000062 00000015efbbb467 98d324df03000000 1000000000000000"
    " 0500000000000000 03358c3b5bf5b165 224a58b791000000 0000000097000000 4b358c3b5b6aaa2a"
    " b704000000100000 0000000000050000 0000000000030200 0000140000000000 0000060000000000"
    " 0000030070757401 0000001800000000 0000000300000000 0000000700000000 00000005cab248fa"
)


# What marks mean.


def mark(wal: Wal, what: Installing | Installed, hard_state: HardState | None = None, new=()) -> None:
    wal.write(wal.encode([(hard_state, new)], what))


def test_a_log_marked_for_a_snapshot_stands() -> None:
    """A mark that a snapshot is being installed takes nothing away, and is found until the snapshot is
    installed, even if the log goes on in other segments."""
    disk = LossyDisk()
    wal, _ = open_wal(disk, segment_bytes=200)
    wal.save(HardState(1, 2, 3), entries(1, 5))
    mark(wal, Installing(Position(9, 2)))
    _, recovered = open_wal(disk, segment_bytes=200)
    assert recovered == Recovered(HardState(1, 2, 3), ORIGIN, entries(1, 5), None, Position(9, 2))
    for index in range(6, 9):
        wal, _ = open_wal(disk, segment_bytes=200)
        wal.save(None, entries(index, 1, size=200))
    assert len(disk.contents) > 2
    _, recovered = open_wal(disk, segment_bytes=200)
    assert recovered.installing == (9, 2)
    assert len(recovered.entries) == 8


def test_the_last_mark_counts() -> None:
    """A snapshot that was not installed is forgotten over the next."""
    disk = LossyDisk()
    wal, _ = open_wal(disk)
    mark(wal, Installing(Position(9, 2)))
    mark(wal, Installing(Position(7, 3)))
    assert open_wal(disk)[1].installing == (7, 3)


@pytest.mark.parametrize("position", [Position(3, 2), Position(5, 2), Position(9, 2)])
def test_an_installed_snapshot_takes_the_place_of_the_log(position: Position) -> None:
    """What stands before the mark is gone, whether it ended before the snapshot's position or behind; what
    stands with it and after it is the log."""
    disk = LossyDisk()
    wal, _ = open_wal(disk)
    wal.save(HardState(1, 2, 0), entries(1, 5))
    mark(wal, Installing(position))
    hard_state, new = HardState(2, 0, position.index), entries(position.index + 1, 2, term=2)
    mark(wal, Installed(position), hard_state)
    assert wal.last_index == position.index
    wal, recovered = open_wal(disk)
    assert recovered == Recovered(hard_state, position, [], None)

    mark(wal, Installed(position), None, new)
    assert wal.last_index == position.index + 2
    wal, recovered = open_wal(disk)
    assert recovered == Recovered(hard_state, position, new, None)

    newer = entries(position.index + 2, 2, term=3)
    wal.save(None, newer)
    _, recovered = open_wal(disk)
    assert recovered == Recovered(hard_state, position, [new[0], *newer], None)


def test_a_gap_behind_a_snapshot_is_refused() -> None:
    """Entries continue the snapshot, no longer the log before it."""
    wal, _ = open_wal(LossyDisk())
    wal.save(HardState(1, 2, 0), entries(1, 5))
    with pytest.raises(ValueError, match="does not continue a log that ends at 9@2"):
        wal.encode([(None, entries(11, 1, term=2))], Installed(Position(9, 2)))
    mark(wal, Installed(Position(3, 2)))
    with pytest.raises(ValueError, match="does not continue a log that ends at 3@2"):
        wal.save(None, entries(6, 1))
    wal.save(None, entries(4, 1, term=2))


def test_what_a_snapshot_stands_for_can_be_removed() -> None:
    """Segments before an installed snapshot go as all others do, when all their entries are compacted: the
    snapshot's position is then in the header of the segment that remains."""
    disk = LossyDisk()
    wal, _ = open_wal(disk, segment_bytes=400)
    for index in range(1, 41):
        wal.save(HardState(1, 2, index), entries(index, 1))
    mark(wal, Installing(Position(50, 2)))
    mark(wal, Installed(Position(50, 2)), HardState(2, 0, 50))
    for index in range(51, 61):
        wal.save(None, entries(index, 1, term=2))
    before = len(disk.contents)
    wal.compact(50)
    assert len(disk.contents) < before - 3
    _, recovered = open_wal(disk, segment_bytes=400)
    assert recovered.base.index <= 50
    assert recovered.base.term == 2
    assert recovered.hard_state == HardState(2, 0, 50)
    assert recovered.entries == entries(recovered.base.index + 1, 60 - recovered.base.index, term=2)
    assert recovered.installing is None


def test_a_longer_log_before_a_snapshot_goes_when_its_entries_are_compacted() -> None:
    """A segment is kept as long as it holds an entry beyond what is compacted, replaced or not: what
    is removed never leaves a hole."""
    disk = LossyDisk()
    wal, _ = open_wal(disk, segment_bytes=400)
    for index in range(1, 41):
        wal.save(HardState(1, 2, 0), entries(index, 1))
    mark(wal, Installed(Position(10, 2)), HardState(2, 0, 10), entries(11, 40, term=2))
    for compacted in (10, 25, 40, 50):
        wal.compact(compacted)
        _, recovered = open_wal(disk, segment_bytes=400)
        assert recovered.base == (10, 2)
        assert recovered.entries == entries(11, 40, term=2)
    wal.save(None, entries(51, 1, term=2))
    wal.compact(50)
    _, recovered = open_wal(disk, segment_bytes=400)
    assert recovered.base == (50, 2)
    assert recovered.entries == entries(51, 1, term=2)
    assert len(disk.contents) == 1


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"\3\0\0\0\x0f" + bytes(15), "cannot be read"),
        (b"\4\0\0\0\x11" + bytes(17), "cannot be read"),
        (b"\4\0\0\0\x10" + bytes(15), "longer than its frame"),
        (b"\5\0\0\0\0", "kind 5, which this version does not know"),
    ],
)
def test_records_that_mean_nothing_are_refused(payload: bytes, problem: str) -> None:
    """Bytes whose checksum is right and that no version has written are not guessed at."""
    with pytest.raises(Malformed, match=problem):
        list(decode_records(payload))


def test_compaction_keeps_what_is_needed(tmp_path: Path) -> None:
    """Segments go from the oldest on, as far as all their entries are compacted, never the last."""
    wal, _ = open_wal(RealFilesystem(), tmp_path, 1000)
    model = Model()
    for _ in range(60):
        new = entries(len(model.log) + 1, 1)
        wal.save(None, new)
        model = model.save(None, new)
    before = len(list(tmp_path.glob("*.wal")))
    wal.compact(30)
    assert len(list(tmp_path.glob("*.wal"))) < before
    wal.close()
    wal, recovered = open_wal(RealFilesystem(), tmp_path)
    assert 0 < recovered.base.index <= 30
    assert model.describes(recovered)
    wal.compact(10**9)
    assert len(list(tmp_path.glob("*.wal"))) == 1
    wal.close()


def test_a_conflict_across_a_removed_segment(tmp_path: Path) -> None:
    """A suffix that replaced entries of an older segment is right after that segment is gone."""
    wal, _ = open_wal(RealFilesystem(), tmp_path, 1000)
    wal.save(HardState(1, 0, 0), entries(1, 20, term=1))
    wal.save(HardState(2, 0, 0), entries(15, 3, term=2))  # in the second segment
    wal.save(HardState(2, 0, 17), entries(18, 20, term=2))
    wal.compact(20)
    wal.close()
    wal, recovered = open_wal(RealFilesystem(), tmp_path)
    wal.close()
    assert recovered.base == Position(15, 2)
    assert recovered.entries == entries(16, 22, term=2)


# Crashes and errors at every operation.


class Evidence:
    """The states of the log that may be found after a crash."""

    def __init__(self) -> None:
        self.possible = [Model()]

    def add(self, model: Model, durable: bool) -> None:
        """A state is being written, or is durable: then it is the only one."""
        self.possible = [model] if durable else [*self.possible, model]


def play(disk: LossyDisk, wal: Wal, model: Model, rng: random.Random, confirm) -> None:
    """Save batches, now and then with a conflict, and compact. ``confirm`` is told each state of
    the log, before it is written (False) and when it is durable (True)."""
    term = 1
    for number in range(14):
        first = len(model.log) + 1
        if rng.random() < 0.2 and len(model.log) > 3:
            term += 1
            first -= rng.randrange(1, 3)
        new = entries(first, rng.randrange(0, 4), term, rng.choice([5, 700]))
        hard_state = HardState(term, 1, number) if rng.random() < 0.7 else None
        model = model.save(hard_state, new)
        confirm(model, False)
        wal.save(hard_state, new)
        confirm(model, True)
        if rng.random() < 0.2:
            wal.compact(len(model.log) - 8)


@pytest.mark.parametrize("seed", range(5))
def test_a_crash_at_any_operation_loses_nothing_confirmed(seed: int) -> None:
    """After a crash anywhere the log holds what was confirmed last, or what was just being
    written; and again after a crash while it recovers."""
    crash_at = 0
    while True:
        crash_at += 1
        disk = LossyDisk(seed * 1000 + crash_at)
        evidence = Evidence()

        disk.crash_at = crash_at
        try:
            wal, _ = open_wal(disk)
            play(disk, wal, Model(), random.Random(seed), evidence.add)
        except Crash:
            pass
        else:
            assert crash_at > 30, "the game is too short to say anything"
            return
        for again in range(1, 4):
            disk.crash()
            disk.crash_at = disk.operations + again
            try:
                _, recovered = open_wal(disk)
            except Crash:
                continue
            assert any(model.describes(recovered) for model in evidence.possible)
        disk.crash()
        wal, recovered = open_wal(disk)
        [found] = [model for model in evidence.possible if model.describes(recovered)][:1]
        wal.save(HardState(9, 9, 0), entries(len(found.log) + 1, 2, 9))
        disk.crash()
        _, recovered = open_wal(disk)
        assert found.save(HardState(9, 9, 0), entries(len(found.log) + 1, 2, 9)).describes(recovered)


@pytest.mark.parametrize("seed", range(3))
def test_an_error_at_any_operation_is_final(seed: int) -> None:
    """After an error of the disk every call fails, and what was confirmed is there when the log is
    opened again."""
    fail_at = 0
    while True:
        fail_at += 1
        disk = LossyDisk(seed * 1000 + fail_at)
        evidence = Evidence()

        wal, _ = open_wal(disk)
        disk.fail_at = disk.operations + fail_at
        try:
            play(disk, wal, Model(), random.Random(seed), evidence.add)
        except WalFailed:
            pass
        else:
            return
        with pytest.raises(WalFailed):
            wal.save(None, [])
        with pytest.raises(WalFailed):
            wal.compact(1)
        disk.crash()
        _, recovered = open_wal(disk)
        assert any(model.describes(recovered) for model in evidence.possible)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 900)), max_size=30), st.booleans()
)
def test_the_log_is_a_list(saves: list[tuple[int, int, int]], reopen: bool) -> None:
    """Whatever is appended and replaced, the log holds what a list would."""
    disk = LossyDisk()
    wal, _ = open_wal(disk)
    model, term = Model(), 1
    for back, count, size in saves:
        if back:
            term += 1
        first = max(len(model.log) + 1 - back, 1)
        new = entries(first, count, term, size)
        wal.save(HardState(term, 0, 0), new)
        model = model.save(HardState(term, 0, 0), new)
        if reopen:
            wal, recovered = open_wal(disk)
            assert model.describes(recovered)
    _, recovered = open_wal(disk)
    assert model.describes(recovered)
