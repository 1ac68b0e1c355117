"""A snapshot on its way: real servers on this machine, and a proxy that does to them what networks do."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from raft.core.membership import encode
from raft.core.messages import InstallSnapshot
from raft.core.types import Membership, Position, SnapshotMeta
from raft.snapshot_transfer import (
    LENGTH,
    MESSAGE,
    OFFSET,
    PATH,
    SHA256,
    SnapshotReceiver,
    SnapshotSender,
    TransferSettings,
    decode_message,
    encode_message,
)

THREE = Membership(frozenset({1, 2, 3}), frozenset({4}), context=b"context")
HASTY = TransferSettings(
    stalled_after=1, finish_timeout=2, backoff=0.01, backoff_max=0.05, silent_after=5, kept_for=5
)
CONTENT = os.urandom(5 << 20)


class Source:
    """A state that is at ``index``; copies of it wait at a gate."""

    def __init__(self, content: bytes = CONTENT, index: int = 10) -> None:
        self.content = content
        self.index = index
        self.copies = 0
        self.gate = threading.Event()
        self.gate.set()
        self.copying = threading.Event()
        self.was_stopped = False

    def copy_to(self, path: Path) -> str:
        self.copies += 1
        content = b"%08d" % self.index + self.content
        path.write_bytes(content[:1000])
        self.copying.set()
        assert self.gate.wait(10)
        if self.was_stopped:
            raise RuntimeError("the copy was stopped")
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def stop_copies(self) -> None:
        self.was_stopped = True
        self.gate.set()

    def stands_for(self, copy: Path) -> tuple[tuple[int, int], bytes]:
        with copy.open("rb") as file:
            return (int(file.read(8)), 3), encode(THREE)


@dataclass
class Proxy:
    """Passes bytes on to ``port``, until it cuts, changes or holds them."""

    port: int
    cut_after: list[int] = field(
        default_factory=list
    )  # per connection that carries much: bytes until it is cut
    flip_at: list[int] = field(default_factory=list)  # per such connection: where a bit changes
    hold_after: int | None = None  # nothing more is passed on to the server
    passed: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        back = asyncio.create_task(self._back(up_reader, writer))
        try:
            await self._forth(reader, up_writer)
        except ConnectionError:
            pass
        finally:
            back.cancel()
            for one in (writer, up_writer):
                one.transport.abort()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here, is_large = 0, False
        cut = flip = None
        while data := await reader.read(1 << 14):
            if data.startswith(b"POST"):
                is_large = True
                cut = self.cut_after.pop(0) if self.cut_after else None
                flip = self.flip_at.pop(0) if self.flip_at else None
                here = 0
            while self.hold_after is not None and is_large and here >= self.hold_after:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if flip is not None and here <= flip < here + len(data):
                changed = bytearray(data)
                changed[flip - here] ^= 1
                data = bytes(changed)
            here += len(data)
            self.passed += len(data)
            if cut is not None and here >= cut:
                return
            writer.write(data)
            await writer.drain()


class Follower:
    """A member that takes snapshots, behind a proxy."""

    def __init__(self, directory: Path, source: Source) -> None:
        self.directory = directory
        self.delivered: list[tuple[InstallSnapshot, bytes]] = []
        self.refuse: Exception | None = None
        self.receiver = SnapshotReceiver(directory, source.stands_for, self.deliver, HASTY)
        self.posts = 0
        self.url = self.proxied = ""
        self.proxy: Proxy

    def deliver(self, message: InstallSnapshot, path: Path) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.delivered.append((message, path.read_bytes()))
        path.unlink()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.posts += request.method == "POST"
        return await self.receiver.handle(request)

    @property
    def files(self) -> list[str]:
        return sorted(os.listdir(self.directory))


@asynccontextmanager
async def follower(directory: Path, source: Source) -> AsyncIterator[Follower]:
    one = Follower(directory, source)
    runner = web.ServerRunner(web.Server(one.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    one.url = f"http://127.0.0.1:{port}"
    one.proxy = Proxy(port)
    server = await asyncio.start_server(one.proxy.serve, "127.0.0.1", 0, limit=1 << 14)
    one.proxied = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        await one.receiver.close()
        server.close()
        await runner.cleanup()
        assert one.files == []


@asynccontextmanager
async def sending(directory: Path, source: Source) -> AsyncIterator[SnapshotSender]:
    async with aiohttp.ClientSession() as session:
        sender = SnapshotSender(directory, source, session, HASTY)
        yield sender
        await sender.close()
        assert os.listdir(directory) == []


@asynccontextmanager
async def both(tmp_path: Path) -> AsyncIterator[tuple[Source, SnapshotSender, Follower]]:
    source = Source()
    async with follower(tmp_path / "in", source) as one, sending(tmp_path / "out", source) as sender:
        yield source, sender, one


def asked(index: int = 10, target: int = 2) -> InstallSnapshot:
    """What the core sends: it knows no newer state, and perhaps an older membership."""
    return InstallSnapshot(1, target, 4, SnapshotMeta(Position(index, 3), Membership(frozenset({1}))))


def carried(source: Source, target: int = 2) -> InstallSnapshot:
    return InstallSnapshot(1, target, 4, SnapshotMeta(Position(source.index, 3), THREE))


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # it is a fact, not an event
            await asyncio.sleep(0.01)


async def test_a_snapshot_arrives(tmp_path: Path) -> None:
    """With what its content stands for, which is newer than what was asked for; no copy stays."""
    async with both(tmp_path) as (source, sender, one):
        source.index = 12
        assert await sender.send(asked(10), one.url + "/", {"X-Cluster": "c"})
        assert one.delivered == [(carried(source), b"00000012" + CONTENT)]
        await eventually(lambda: os.listdir(tmp_path / "out") == [])


async def test_a_broken_transfer_is_resumed(tmp_path: Path) -> None:
    """Cut in the middle, several times, it goes on where it stopped: little is sent twice."""
    async with both(tmp_path) as (_, sender, one):
        one.proxy.cut_after = [1_500_000, 1_000, 1_000_000, 700_000]
        assert await sender.send(asked(), one.proxied, {})
        [(_, content)] = one.delivered
        assert content[8:] == CONTENT
        assert one.posts >= 4
        assert one.proxy.passed < 1.2 * len(CONTENT)


async def test_many_short_connections_are_enough(tmp_path: Path) -> None:
    """Also where no connection lasts for a whole chunk."""
    async with both(tmp_path) as (_, sender, one):
        one.proxy.cut_after = [200_000] * 20
        assert await sender.send(asked(), one.proxied, {})
        assert one.delivered[0][1][8:] == CONTENT
        assert one.posts > 20


async def test_damage_is_found_and_all_sent_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One wrong bit: the file is refused and dropped, and a whole one follows."""
    async with both(tmp_path) as (_, sender, one):
        one.proxy.flip_at = [2_000_000]
        assert await sender.send(asked(), one.proxied, {})
        assert [content[8:] for _, content in one.delivered] == [CONTENT]
        assert "its checksum is wrong" in caplog.text
        assert one.posts == 2
        assert one.proxy.passed > 2 * len(CONTENT)


async def test_a_transfer_that_is_always_damaged_ends(tmp_path: Path) -> None:
    """It is not begun anew for ever."""
    async with both(tmp_path) as (_, sender, one):
        one.proxy.flip_at = [2_000_000] * 10
        assert not await sender.send(asked(), one.proxied, {})
        assert one.posts == 1 + HASTY.restarts_max
        assert one.delivered == []


async def test_two_followers_share_one_copy(tmp_path: Path) -> None:
    """Who needs a snapshot while one is being copied or sent gets that one, and each its own transfer."""
    async with both(tmp_path) as (source, sender, one), follower(tmp_path / "in2", source) as two:
        source.gate.clear()
        sends = [
            asyncio.create_task(sender.send(asked(10, 2), one.url, {})),
            asyncio.create_task(sender.send(asked(9, 3), two.url, {})),
        ]
        await eventually(source.copying.is_set)
        source.gate.set()
        assert await asyncio.gather(*sends) == [True, True]
        assert source.copies == 1
        assert [one.delivered[0][0], two.delivered[0][0]] == [carried(source, 2), carried(source, 3)]


async def test_a_copy_that_is_too_old_is_not_used(tmp_path: Path) -> None:
    """Who asks for more than the copy holds gets one of its own; the first goes on."""
    async with both(tmp_path) as (source, sender, one), follower(tmp_path / "in2", source) as two:
        one.proxy.hold_after = 100_000
        first = asyncio.create_task(sender.send(asked(10, 2), one.proxied, {}))
        await eventually(lambda: one.posts == 1)
        source.index = 20
        assert await sender.send(asked(20, 3), two.url, {})
        one.proxy.hold_after = None
        assert await first
        assert source.copies == 2
        assert [one.delivered[0][1][:8], two.delivered[0][1][:8]] == [b"00000010", b"00000020"]


async def test_a_state_that_is_behind_its_promise_is_not_sent(tmp_path: Path) -> None:
    """Nor copied again and again."""
    async with both(tmp_path) as (source, sender, one):
        assert not await sender.send(asked(11), one.url, {})
        assert (source.copies, one.posts) == (1, 0)


async def test_a_state_of_a_later_term_is_not_sent(tmp_path: Path) -> None:
    """Who asked for it led an earlier one, and leads no more."""
    async with both(tmp_path) as (_, sender, one):
        assert not await sender.send(replace(asked(), term=2), one.url, {})
        assert one.delivered == []
        assert await sender.send(replace(asked(), term=3), one.url, {})


async def test_a_follower_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    """Whether it is gone, or its connection stands without moving; the copy goes too."""
    async with both(tmp_path) as (_, sender, one):
        assert not await sender.send(asked(), "http://127.0.0.1:1", {})
        one.proxy.hold_after = 1_000_000
        assert not await sender.send(asked(), one.proxied, {})
        await eventually(lambda: os.listdir(tmp_path / "out") == [])
        one.proxy.hold_after = None
        assert await sender.send(asked(), one.url, {})
        assert len(one.delivered) == 1


async def test_a_newer_transfer_replaces_the_older(tmp_path: Path) -> None:
    """One at a time to a follower, one incoming file per sender."""
    async with both(tmp_path) as (source, sender, one):
        one.proxy.hold_after = 1_500_000
        older = asyncio.create_task(sender.send(asked(10), one.proxied, {}))
        await eventually(lambda: len(one.files) == 1)
        [file] = one.files
        source.index = 20
        assert await sender.send(asked(20), one.url, {})
        assert not await older
        assert one.delivered[0][0] == carried(source)
        assert file not in one.files


async def test_what_could_not_be_handed_on_has_not_arrived(tmp_path: Path) -> None:
    """The sender hears of it, and tries again until it is given up."""
    async with both(tmp_path) as (_, sender, one):
        one.refuse = RuntimeError("this member is stopping")
        assert not await sender.send(asked(), one.url, {})
        assert one.files == []
        assert one.posts > 1


async def test_a_copy_that_fails_is_no_snapshot(tmp_path: Path) -> None:
    """Consensus will ask again, and gets one then."""
    async with both(tmp_path) as (source, sender, one):
        source.was_stopped = True
        assert not await sender.send(asked(), one.url, {})
        source.was_stopped = False
        assert await sender.send(asked(), one.url, {})


async def test_closing_ends_everything(tmp_path: Path) -> None:
    """A copy under way, a transfer under way, on both sides: no file and no task is left."""
    async with both(tmp_path) as (source, sender, one):
        one.proxy.hold_after = 1_500_000
        transfer = asyncio.create_task(sender.send(asked(), one.proxied, {}))
        await eventually(lambda: len(one.files) == 1)
        source.gate.clear()
        source.copying.clear()
        copy = asyncio.create_task(sender.send(asked(20, 3), one.url, {}))
        await eventually(source.copying.is_set)
        await sender.close()
        assert await asyncio.gather(transfer, copy) == [False, False]
        assert not await sender.send(asked(), one.url, {})
        await one.receiver.close()
        assert one.files == os.listdir(tmp_path / "out") == []
        one.proxy.hold_after = None
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_cancelled_transfer_leaves_nothing(tmp_path: Path) -> None:
    """Who waits for it may stop to."""
    async with both(tmp_path) as (source, sender, one):
        source.gate.clear()
        task = asyncio.create_task(sender.send(asked(), one.url, {}))
        await eventually(source.copying.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: os.listdir(tmp_path / "out") == [])
        assert source.was_stopped


async def test_left_over_files_are_removed_at_the_start(tmp_path: Path) -> None:
    """Of an earlier life; both sides may share the directory."""
    for name in ("copy-1", "incoming-1"):
        (tmp_path / name).write_bytes(b"half")
    source = Source()
    async with follower(tmp_path, source) as one:
        assert one.files == ["copy-1"]
        async with sending(tmp_path, source):
            assert one.files == []


async def test_what_nobody_goes_on_with_is_dropped(tmp_path: Path) -> None:
    """A sender that is gone leaves its file here only for a while."""
    async with both(tmp_path) as (_, sender, one):
        one.receiver.settings = TransferSettings(kept_for=0.2)
        one.proxy.cut_after = [1_500_000]
        task = asyncio.create_task(sender.send(asked(), one.proxied, {}))
        await eventually(lambda: len(one.files) == 1)
        task.cancel()
        await eventually(lambda: one.files == [])


async def test_only_what_was_announced_is_taken(tmp_path: Path) -> None:
    """Too little, too much, another position, an id that is a path: refused, and nothing stays."""
    async with both(tmp_path) as (source, _, one), aiohttp.ClientSession() as session:
        whole = b"00000010" + CONTENT[:1000]
        good = {
            OFFSET: "0",
            LENGTH: str(len(whole)),
            SHA256: hashlib.sha256(whole).hexdigest(),
            MESSAGE: encode_message(carried(source)),
        }

        async def post(name: str, body: bytes, **changed: str) -> int:
            headers = good | {f"Kvorum-Snapshot-{key}": value for key, value in changed.items()}
            async with session.post(f"{one.url}{PATH}/{name}", data=body, headers=headers) as response:
                return response.status

        newer = InstallSnapshot(1, 2, 4, SnapshotMeta(Position(11, 3), THREE))
        assert await post("0" * 32, whole[:-1]) == 422
        assert await post("1" * 32, whole + b"x") == 422
        assert await post("2" * 32, whole, Message=encode_message(newer)) == 422
        assert await post("3" * 32, whole, Offset="5") == 409
        assert await post("..%2f..%2fetc%2fpasswd", whole) == 400
        assert await post("4" * 32, whole, Length="-1") == 400
        assert await post("4" * 32, whole, Message="AAAA") == 400
        assert one.delivered == []
        assert await post("5" * 32, whole) == 204
        assert await post("5" * 32, b"", Offset=str(len(whole))) == 204  # its answer had been lost
        assert len(one.delivered) == 1


def test_the_message_survives_its_header() -> None:
    """Whatever it says."""
    message = InstallSnapshot(2**64 - 1, 2, 3, SnapshotMeta(Position(4, 5), THREE))
    assert decode_message(encode_message(message)) == message
