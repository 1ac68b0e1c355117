"""A copy of the state on LMDB, made while it is written, and installed in the place of another."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstate import snapshot
from kvstate.backend import Backend
from kvstate.codec import encode
from kvstate.commands import Put, Range
from kvstate.errors import CopyStopped, StateFault
from kvstate.lmdb_store import LmdbStore
from kvstate.machine import StateMachine
from kvstate.snapshot import StagedState, StateDirectory, stands_for


def put(machine: StateMachine, key: bytes, value: bytes) -> None:
    index = machine.applied[0] + 1
    assert machine.apply(index, 1, encode(Put(key, value), user="", wall_clock_ms=0)).error is None


def flush(machine: StateMachine) -> None:
    machine.freeze()
    machine.write_frozen()
    machine.release_frozen()


def founded(directory: Path, name: bytes, count: int = 10) -> tuple[StateDirectory, StateMachine]:
    """A state with ``count`` keys and a membership called like it, all durable."""
    state = StateDirectory(directory)
    machine = StateMachine(Backend(state.open()))
    machine.apply_membership(1, 1, name)
    for number in range(count):
        put(machine, b"%s/%06d" % (name, number), os.urandom(1000))
    flush(machine)
    return state, machine


def seen(machine: StateMachine) -> tuple:
    return machine.hash(), machine.revision, machine.applied, machine.membership


def reopened(directory: Path) -> tuple:
    machine = StateMachine(Backend(LmdbStore(directory)))
    try:
        return seen(machine)
    finally:
        machine.close()


def as_state(copy: Path, directory: Path) -> tuple:
    """What a copy holds, opened as a state of its own."""
    directory.mkdir()
    shutil.copy(copy, directory / "data.mdb")
    return reopened(directory)


class SlowCopy:
    """``copy_to`` on a thread, held up once a part of it is through, until it is released."""

    def __init__(self, state: StateDirectory, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.result: str | Exception | None = None
        self._state = state
        self._path = path
        fdatasync = os.fdatasync

        def slow(descriptor: int) -> None:
            if threading.current_thread() is self._thread:
                self.begun.set()
                assert self.gate.wait(10)
            fdatasync(descriptor)

        monkeypatch.setattr("kvstate.lmdb_store._COPY_SYNC_BYTES", 1 << 20)
        monkeypatch.setattr("kvstate.lmdb_store._COPY_CHUNK_BYTES", 1 << 16)
        monkeypatch.setattr(os, "fdatasync", slow)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self.begun.wait(10)

    def _run(self) -> None:
        try:
            self.result = self._state.copy_to(self._path)
        except Exception as error:
            self.result = error

    def end(self) -> str | Exception | None:
        self.gate.set()
        self._thread.join(10)
        return self.result


def test_a_copy_is_the_state_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is written, overwritten and read while it is made; writing waits for nothing."""
    state, machine = founded(tmp_path / "state", b"a", 5000)
    expected = seen(machine)
    copy = SlowCopy(state, tmp_path / "copy", monkeypatch)
    for number in range(4000):
        put(machine, b"a/%06d" % (number % 2000), os.urandom(1000))
        if number % 200 == 0:
            flush(machine)
            assert machine.range(Range(b"a/000000")).kvs
    flush(machine)
    digest = copy.end()
    assert digest == hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest()
    assert stands_for(tmp_path / "copy") == ((5001, 1), b"a")
    assert as_state(tmp_path / "copy", tmp_path / "other") == expected
    assert machine.applied == (9001, 1)
    machine.close()


def test_what_is_not_durable_is_not_copied(tmp_path: Path) -> None:
    """A snapshot may not hold what its sender could forget."""
    state, machine = founded(tmp_path / "state", b"a")
    put(machine, b"volatile", b"1")
    state.copy_to(tmp_path / "copy")
    assert stands_for(tmp_path / "copy")[0] == machine.durable_applied == (11, 1)
    machine.close()


@pytest.mark.parametrize("why", ["grows", "closes", "is told to"])
def test_a_copy_ends_before_the_map_moves(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Growing or closing the map while LMDB reads from it would be the end of the process: the copy is
    stopped first, whether or not anybody reads what it writes, and another one succeeds."""
    monkeypatch.setattr("kvstate.lmdb_store.INITIAL_MAP_BYTES", 1 << 26)
    state, machine = founded(tmp_path / "state", b"a", 5000)
    copy = SlowCopy(state, tmp_path / "copy", monkeypatch)
    if why == "grows":
        before = state._store._map_bytes  # type: ignore[union-attr]
        for number in range(130):
            put(machine, b"large/%d" % number, bytes(1_000_000))
        flush(machine)
        assert state._store._map_bytes > before  # type: ignore[union-attr]
    elif why == "closes":
        machine.close()
    else:
        state.stop_copies()
    assert isinstance(copy.end(), CopyStopped)
    (tmp_path / "copy").unlink()
    if why == "closes":
        with pytest.raises(CopyStopped):
            state.copy_to(tmp_path / "copy")
        return
    state.copy_to(tmp_path / "copy")
    assert stands_for(tmp_path / "copy")[0] == machine.durable_applied
    machine.close()


def test_growing_and_copying_at_random(tmp_path: Path) -> None:
    """Copies one after the other while the map grows many times: each is whole or was stopped."""
    state = StateDirectory(tmp_path / "state")
    store = state._store = LmdbStore(tmp_path / "state", map_bytes=1 << 20)
    machine = StateMachine(Backend(store))
    put(machine, b"k", b"v")
    flush(machine)
    ends: list[str] = []
    stop = threading.Event()

    def copy_on() -> None:
        while not stop.is_set():
            path = tmp_path / f"copy-{len(ends)}"
            try:
                state.copy_to(path)
                assert stands_for(path)[0][0] > 0
                ends.append("whole")
            except CopyStopped:
                ends.append("stopped")
            path.unlink()

    thread = threading.Thread(target=copy_on)
    thread.start()
    for number in range(100):
        put(machine, b"k%d" % number, bytes(500_000))
        flush(machine)
    stop.set()
    thread.join()
    assert "whole" in ends
    assert set(ends) <= {"whole", "stopped"}
    machine.close()


def test_a_copy_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """And stops LMDB's thread: no file, no thread stays."""
    state, machine = founded(tmp_path / "state", b"a", 2000)
    with pytest.raises(FileNotFoundError):
        state.copy_to(tmp_path / "nowhere" / "copy")
    assert not [thread for thread in threading.enumerate() if thread.name == "copy"]
    state.copy_to(tmp_path / "copy")
    machine.close()


def test_what_is_no_copy_is_refused(tmp_path: Path) -> None:
    """Rather than taken for a state at 0."""
    (tmp_path / "garbage").write_bytes(os.urandom(100_000))
    with pytest.raises(StateFault):
        stands_for(tmp_path / "garbage")
    state = StateDirectory(tmp_path / "state")
    state.open().close()
    with pytest.raises(StateFault, match="holds no state"):
        stands_for(tmp_path / "state" / "data.mdb")


def test_the_map_fits_the_address_space(tmp_path: Path) -> None:
    """Where a process may not have so many addresses it gets a smaller map, and works."""
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "from pathlib import Path; from kvstate.lmdb_store import LmdbStore, Table\n"
        f"store = LmdbStore(Path({str(tmp_path)!r})); store.write([{{b'k': b'v'}} for _ in Table])\n"
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": os.getcwd()})


# Installing.


def staged_copy(tmp_path: Path) -> tuple[Path, tuple]:
    """A copy of another state, as it was received, and what that state is."""
    source, other = founded(tmp_path / "source", b"new", 50)
    (tmp_path / "snapshots").mkdir()
    copy = tmp_path / "snapshots" / "incoming"
    source.copy_to(copy)
    expected = seen(other)
    other.close()
    return copy, expected


def test_an_installed_copy_is_the_state(tmp_path: Path) -> None:
    """The old state is readable until it is closed; after that the machine goes on from the copy."""
    copy, expected = staged_copy(tmp_path)
    state, machine = founded(tmp_path / "state", b"old")
    before = seen(machine)
    staged = state.stage(copy)
    thread = threading.Thread(target=staged.install)
    thread.start()
    thread.join()
    assert seen(machine) == before
    assert not copy.exists()
    machine.restore(staged.open)
    assert seen(machine) == expected
    assert machine.durable_applied == expected[2]
    put(machine, b"after", b"1")
    flush(machine)
    state.copy_to(tmp_path / "again")  # of the new state
    assert stands_for(tmp_path / "again") == (machine.applied, b"new")
    expected = seen(machine)
    machine.close()
    assert reopened(tmp_path / "state") == expected
    assert sorted(os.listdir(tmp_path / "state")) == ["data.mdb", "lock.mdb"]


def test_a_copy_of_the_old_state_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends a snapshot when he gets one."""
    copy, expected = staged_copy(tmp_path)
    state, machine = founded(tmp_path / "state", b"old", 5000)
    slow = SlowCopy(state, tmp_path / "copy", monkeypatch)
    staged = state.stage(copy)
    staged.install()
    machine.restore(staged.open)
    assert isinstance(slow.end(), CopyStopped)
    assert seen(machine) == expected
    machine.close()


class PowerCut(BaseException):
    pass


def each_operation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Yields functions that arrange for the process to end before its n-th file operation."""
    for last in range(100):

        def arm(last: int = last) -> None:
            left = [last]
            for name in ("fsync", "rename", "unlink", "open"):
                real = getattr(os, name)

                def step(*args: object, real: Callable = real) -> object:
                    if not left[0]:
                        raise PowerCut
                    left[0] -= 1
                    return real(*args)

                monkeypatch.setattr(snapshot.os, name, step)

        yield arm


def test_a_crash_leaves_the_old_state_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before every operation of an installation: first the old, from some operation on the new."""
    copy, new = staged_copy(tmp_path)
    _, machine = founded(tmp_path / "old", b"old")
    old = seen(machine)
    found = []
    for number, arm in enumerate(each_operation(monkeypatch)):
        base = tmp_path / str(number)
        shutil.copytree(tmp_path / "old", base / "state")
        shutil.copy(copy, base / "incoming")
        staged = StagedState(StateDirectory(base / "state"), base / "incoming")
        with monkeypatch.context():
            arm()
            try:
                staged.install()
                is_over = True
            except PowerCut:
                is_over = False
            monkeypatch.undo()
        if staged._old is not None:
            os.close(staged._old)
        found.append(reopened(base / "state"))
        if is_over:
            break
    machine.close()
    assert found[0] == old
    assert found[-1] == new
    assert len(found) > 8
    at = found.index(new)
    assert found == [old] * at + [new] * (len(found) - at)


def test_a_reader_of_the_old_state_does_not_spoil_the_new_one(tmp_path: Path) -> None:
    """Another process may look into the state with LMDB's tools, and hold its lock file."""
    copy, expected = staged_copy(tmp_path)
    state, machine = founded(tmp_path / "state", b"old")
    script = (
        "import lmdb, sys\n"
        f"env = lmdb.open({str(tmp_path / 'state')!r}, readonly=True, max_dbs=9); txn = env.begin()\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tool:
        assert tool.stdout is not None
        assert tool.stdout.readline() == "open\n"
        staged = state.stage(copy)
        staged.install()
        machine.restore(staged.open)
        assert seen(machine) == expected
        for number in range(20):
            put(machine, b"k", b"%d" % number)
            flush(machine)
        expected = seen(machine)
        tool.communicate("")
    machine.close()
    assert reopened(tmp_path / "state") == expected


def test_an_unwanted_copy_goes(tmp_path: Path) -> None:
    """And nothing else."""
    copy, _ = staged_copy(tmp_path)
    state, machine = founded(tmp_path / "state", b"old")
    expected = seen(machine)
    state.stage(copy).discard()
    for thread in threading.enumerate():
        if thread.name == "discard":
            thread.join()
    assert not copy.exists()
    machine.close()
    assert reopened(tmp_path / "state") == expected
