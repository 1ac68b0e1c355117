"""The crash test: concurrent writers, SIGKILL at a random moment, restart on the same data, again
and again. After each: every acknowledged write is there with its revision, revisions are
continuous, and the state's hash equals that of a replay of the log.

Between a kill and the restart the end of the log is spoiled now and then, as a power cut may:
what was being written is torn or garbled, never what had been synced. And on copies, bytes in
the middle are flipped: such a node must refuse to start and name the file and the offset.

    scripts/crashtest [--rounds 100] [--cutting-rounds 20] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path

from kvstate.backend import Backend, MemoryStore
from kvstate.lmdb_store import LmdbStore
from kvstate.machine import StateMachine
from raft.core.types import Entry, EntryType
from raft.filesystem import RealFilesystem
from raft.proposals import split
from raft.wal.record import Frame, decode_frame, decode_records
from raft.wal.recovery import recover
from raft.wal.segment import decode_header
from tests.common.ports import free_port
from tests.common.servers import Server, start_kvorum
from tests.e2e.history import History, Writer, call, current_revision, events_after

WRITERS = 6
KEEP_LOG = ("--snapshot-count", "10000000")
CUT_LOG = ("--snapshot-count", "200")


class Replica:
    """A state machine in memory that is fed from the log alone."""

    def __init__(self) -> None:
        self.machine = StateMachine(Backend(MemoryStore()))

    def follow(self, wal_directory: Path) -> None:
        """Apply what the log has beyond what was applied."""
        for entry in recover(RealFilesystem(), wal_directory).entries:
            if entry.index > self.machine.applied[0]:
                is_command = entry.type is EntryType.NORMAL and entry.data
                self.machine.apply(entry.index, entry.term, split(entry.data)[1] if is_command else b"")


class CrashTest:
    def __init__(self, directory: Path, seed: int, say=print) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.history = History()
        self.replica = Replica()
        self.say = say
        self.spoiled = {"truncated": 0, "garbled": 0, "appended": 0}
        self.refused = 0
        self._round = 0

    @property
    def wal(self) -> Path:
        return self.directory / "data" / "wal"

    def run(self, rounds: int, *, cut_log: bool) -> None:
        """``cut_log`` lets the log be cut all the time; a replay from its beginning is impossible then."""
        for _ in range(rounds):
            self._round += 1
            self._write_and_kill(CUT_LOG if cut_log else KEEP_LOG)
            if self._round % 10 == 0:
                self._check_damage_is_refused()
            if self.random.random() < 0.5:
                self._spoil_tail()
            self._check_after_restart(replay=not cut_log)

    def _write_and_kill(self, flags: tuple[str, ...]) -> None:
        server = self._start(flags)
        writers = [
            Writer(number, server.port, self.history, self.random.getrandbits(64))
            for number in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        moment = threading.Event()
        moment.wait(self.random.expovariate(1 / 0.25))  # a random moment is what is wanted here
        server.kill()
        for writer in writers:
            writer.join(timeout=15)
            assert writer.error is None, writer.error
            assert not writer.is_alive(), "a writer hangs on a dead node"

    def _check_after_restart(self, *, replay: bool) -> None:
        if replay:
            self.replica.follow(self.wal)
        # Without --snapshot-count the log is cut at its default pace, which these rounds do not reach.
        server = self._start(KEEP_LOG)
        try:
            current = current_revision(server.port)
            self.history.check_events(events_after(server.port, self.history.verified_to, current), current)
            if replay:
                state = int(call(server.port, "/v3/maintenance/hash", {})["hash"])
                expected = self.replica.machine.hash()
                assert state == expected, f"the state's hash is {state}, a replay of the log gives {expected}"
        finally:
            server.kill()
        if replay:
            self.replica.follow(self.wal)

    def check_everything(self) -> None:
        """Judge the whole history once more, from the first revision on."""
        server = self._start(KEEP_LOG)
        try:
            current = current_revision(server.port)
            events = events_after(server.port, 1, current)
        finally:
            assert server.stop() == 0
        assert [int(event["kv"]["mod_revision"]) for event in events] == list(range(2, current + 1))
        found = {int(event["kv"]["mod_revision"]) for event in events}
        assert found >= self.history.acknowledged.keys()

    # Spoiling the log.

    def _spoil_tail(self) -> None:
        """Do to the end of the log what a power cut in the middle of a write may do."""
        path = sorted(self.wal.glob("*.wal"))[-1]
        data = path.read_bytes()
        frames = frames_of(data)
        end = frames[-1][0] + frames[-1][1].size if frames else decode_header(data)[1].size
        if frames and self._may_be_unsynced(frames[-1][1]):
            start = frames[-1][0]
            if self.random.random() < 0.5:
                kind = "truncated"
                data = data[: self.random.randrange(start, end)]
            else:
                kind = "garbled"
                data = self._garble(data, start, end)
        else:
            # All frames were synced: the spoiled write is one that had just begun.
            kind = "appended"
            data = data[:end] + self.random.randbytes(self.random.randrange(1, 9000))
        path.write_bytes(data)
        self.spoiled[kind] += 1

    def _garble(self, data: bytes, start: int, end: int) -> bytes:
        spoiled = bytearray(data)
        where = self.random.randrange(start, end)
        count = min(self.random.choice([1, 7, 512, 4096]), end - where)
        junk = bytes(count) if self.random.random() < 0.5 else self.random.randbytes(count)
        spoiled[where : where + count] = junk
        return bytes(spoiled)

    def _may_be_unsynced(self, frame: Frame) -> bool:
        """Whether nobody can know that this frame, the last, was durable: nothing in it was
        acknowledged, and the state has applied nothing of it."""
        entries = [record for record in decode_records(frame.payload) if isinstance(record, Entry)]
        if not entries or not all(entry.data for entry in entries):
            return False
        with tempfile.TemporaryDirectory(dir=self.directory) as copy:
            shutil.copytree(self.directory / "data" / "state", Path(copy) / "state")
            machine = StateMachine(Backend(LmdbStore(Path(copy) / "state")))
            applied = machine.applied[0]
            machine.close()
        acknowledged = [value for _, value in list(self.history.acknowledged.values())[-1000:]]
        return applied < entries[0].index and not any(
            value in entry.data for entry in entries for value in acknowledged
        )

    def _check_damage_is_refused(self) -> None:
        """Flip a byte of a frame that is not the last one, in a copy."""
        with tempfile.TemporaryDirectory(dir=self.directory) as copy:
            copied = Path(copy)
            shutil.copytree(self.directory / "data", copied / "data")
            candidates = [
                (path, offset, frame)
                for path in sorted((copied / "data" / "wal").glob("*.wal"))
                for offset, frame in frames_of(path.read_bytes())
            ]
            if len(candidates) < 2:
                return
            path, offset, frame = self.random.choice(candidates[:-1])
            data = bytearray(path.read_bytes())
            data[offset + self.random.randrange(frame.size)] ^= 1 << self.random.randrange(8)
            path.write_bytes(data)
            server = start_kvorum(copied, *KEEP_LOG)
            assert server.process.wait(timeout=20) == 1, "a damaged log was accepted"
            said = server.log.read_text()
            assert f"{path} at offset {offset}:" in said, f"file and offset are missing in: {said}"
            self.refused += 1

    def _start(self, flags: tuple[str, ...]) -> Server:
        server = start_kvorum(self.directory, *flags, port=free_port())
        return server.wait_until_healthy()


def frames_of(data: bytes) -> list[tuple[int, Frame]]:
    """The frames of a segment behind its header, with their offsets."""
    decoded = decode_header(data)
    assert not isinstance(decoded, str), decoded
    header, frame = decoded
    frames, offset = [], frame.size
    while isinstance(found := decode_frame(data, offset, header.marker), Frame):
        frames.append((offset, found))
        offset += found.size
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/crashtest", description="Kill a node again and again.")
    parser.add_argument("--rounds", type=int, default=100, help="kills with the log kept whole")
    parser.add_argument("--cutting-rounds", type=int, default=20, help="kills with the log cut all the time")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    print(
        f"crashtest --rounds {options.rounds} --cutting-rounds {options.cutting_rounds} --seed {options.seed}"
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kvorum-crashtest-") as directory:
        test = CrashTest(Path(directory), options.seed)
        test.run(options.rounds, cut_log=False)
        test.run(options.cutting_rounds, cut_log=True)
        test.check_everything()
        print(
            f"{options.rounds + options.cutting_rounds} kills in {time.monotonic() - started:.0f} s:"
            f" {len(test.history.acknowledged)} acknowledged writes, all there with their revisions;"
            f" {test.history.verified_to - 1} revisions without a gap; hash = replay after each kill with"
            f" the log kept; tails spoiled: {test.spoiled}; damage in the middle refused {test.refused} times"
        )


if __name__ == "__main__":
    main()
