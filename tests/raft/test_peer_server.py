"""What listens for the other members: whose messages it takes, and when it hangs up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import ClientWebSocketResponse, web

import raft.peer_server
from raft.codec import encode
from raft.core.messages import Message
from raft.handshake import CLUSTER, PROTOCOL, REASON, REFUSED, Identity, Sender
from raft.link import STREAM_PATH
from raft.peer_server import REQUEST_SENDER, PeerServer
from tests.raft.fake_peer import free_port, small

TWO = Identity(0xC1, 2, ("http://two:2380",))
THREE = Identity(0xC1, 3)
REMOVED = Identity(0xC1, 8)


class Serving:
    """Member 1's server, what it delivers, and members that connect to it."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        self.heard_of: list[Sender] = []
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.server = PeerServer(
            Identity(0xC1, 1),
            receive=self.received.put_nowait,
            heard_of=self.heard_of.append,
            removed=lambda: frozenset({8}),
            has_started=lambda _: False,
            handlers={"/raft/ask": self._answer, "/raft/wait": self._wait},
            open_pages={"/page": self._page},
            ping_interval=5.0,
        )
        self.url = f"http://127.0.0.1:{free_port()}"
        self.session = aiohttp.ClientSession()

    async def open(self) -> None:
        await self.server.open([("127.0.0.1", int(self.url.rpartition(":")[2]))])

    async def connect(self, member: Identity) -> ClientWebSocketResponse:
        return await self.session.ws_connect(self.url + STREAM_PATH, headers=member.headers(1))

    async def get(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status, dict(response.headers), await response.text()

    async def _answer(self, request: web.Request) -> web.Response:
        sender = request[REQUEST_SENDER]
        return web.Response(text=f"{request.method} of {sender.member_id}: {await request.text()}")

    async def _wait(self, request: web.Request) -> web.Response:
        self.asked.set()
        await self.gate.wait()
        return web.Response()

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text="welcome")


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    """All that happens inside must happen soon."""
    one = Serving()
    async with one.session, asyncio.timeout(5):
        await one.open()
        try:
            yield one
        finally:
            await one.server.close()


async def end_of(stream: ClientWebSocketResponse) -> tuple[int | None, str]:
    """How a stream ends: the code, and what is said."""
    message = await stream.receive()
    while message.type is aiohttp.WSMsgType.BINARY:
        message = await stream.receive()
    return message.data, str(message.extra or "")


async def test_a_member_delivers_its_messages() -> None:
    """In their order over frames, and who it is is told before the first of them."""
    async with serving() as one:
        stream = await one.connect(TWO)
        await stream.send_bytes(encode([small(1, source=2, target=1), small(2, source=2, target=1)]))
        await stream.send_bytes(encode([small(3, source=2, target=1)]))
        for number in (1, 2, 3):
            assert await one.received.get() == small(number, source=2, target=1)
        assert one.heard_of == [Sender(2, TWO.peer_urls)]


@pytest.mark.parametrize("path", [STREAM_PATH, "/raft/ask"])
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "not-a-member"),
        ({**TWO.headers(1), CLUSTER: "c2"}, "cluster"),
        (TWO.headers(3), "other-member"),
        (REMOVED.headers(1), "removed"),
    ],
)
async def test_strangers_are_refused(path: str, headers: dict[str, str], reason: str) -> None:
    """With status 412, the reason and a sentence in the headers, and the sentence as the body: on every path
    that is for members."""
    async with serving() as one:
        status, answered, text = await one.get(path, headers)
        assert (status, answered[REASON], answered[REFUSED] + "\n") == (412, reason, text)
        assert one.heard_of == []


async def test_a_stranger_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For each sender and reason."""
    async with serving() as one:

        async def lines(*requests: dict[str, str]) -> int:
            caplog.clear()
            for headers in requests:
                await one.get(STREAM_PATH, headers)
            return caplog.text.count("was refused")

        assert await lines(TWO.headers(3), TWO.headers(3), TWO.headers(3)) == 1
        assert await lines(THREE.headers(3), {**TWO.headers(1), CLUSTER: "c2"}, TWO.headers(3)) == 2
        monkeypatch.setattr(raft.peer_server, "_REMIND_SECONDS", 0.0)
        assert await lines(TWO.headers(3)) == 1


async def test_a_header_of_any_bytes_is_refused_in_order() -> None:
    """What a stranger sends and is quoted to it may not make the answer fail."""
    async with serving() as one:
        raw = f"GET {STREAM_PATH} HTTP/1.1\r\nHost: x\r\nX-Kvorum-From: 2\r\n{PROTOCOL}: ".encode()
        port = int(one.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw + b"\xff\xfe\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 412 ")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"nonsense", "protocol version 110"),
        (b"\1\x91\x91\x63", "tag 99"),
        ("text", "text"),
        (encode([small(1, source=3, target=1)]), "from member 3 to member 1 came from member 2"),
        (encode([small(1, source=2, target=3)]), "from member 2 to member 3 came from member 2"),
    ],
    ids=["garbage", "no message", "text", "another source", "another target"],
)
async def test_what_is_no_message_ends_the_connection(
    frame: bytes | str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and the sender hear why, and nothing that came after it is delivered."""
    async with serving() as one:
        stream = await one.connect(TWO)
        await stream.send_bytes(encode([small(1, source=2, target=1)]))
        if isinstance(frame, str):
            await stream.send_str(frame)
        else:
            await stream.send_bytes(frame)
        await stream.send_bytes(encode([small(2, source=2, target=1)]))
        code, reason = await end_of(stream)
        assert code == aiohttp.WSCloseCode.PROTOCOL_ERROR
        assert said in reason
        assert said in caplog.text
        assert one.received.get_nowait() == small(1, source=2, target=1)
        assert one.received.empty()
        # It is let in again.
        stream = await one.connect(TWO)
        await stream.send_bytes(encode([small(3, source=2, target=1)]))
        assert await one.received.get() == small(3, source=2, target=1)


async def test_a_frame_is_delivered_up_to_what_is_wrong_in_it() -> None:
    """The messages before it in the same frame were good ones; none behind it is taken."""
    async with serving() as one:
        stream = await one.connect(TWO)
        good, late = small(1, source=2, target=1), small(3, source=2, target=1)
        await stream.send_bytes(encode([good, small(2, source=3, target=1), late]))
        await end_of(stream)
        assert one.received.get_nowait() == good
        assert one.received.empty()


async def test_a_frame_that_is_too_large_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log hears why."""
    monkeypatch.setattr(raft.peer_server, "FRAME_BYTES_MAX", 1000)
    async with serving() as one:
        stream = await one.connect(TWO)
        await stream.send_bytes(bytes(2000))
        code, _ = await end_of(stream)
        assert code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        await one.server.close()
        assert one.received.empty()
    assert "member 2 sent what is no message" in caplog.text


async def test_a_member_that_hangs_up_is_not_complained_about(caplog: pytest.LogCaptureFixture) -> None:
    """Whether it says goodbye or not."""
    caplog.set_level(logging.INFO, "raft.peer_server")
    async with serving() as one:
        await (await one.connect(TWO)).close()
        stream = await one.connect(THREE)
        connection = stream._conn
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()
    assert [record for record in caplog.records if record.name == "raft.peer_server"] == []


async def test_a_newer_connection_replaces_the_older() -> None:
    """The older one ends at once and takes nothing with it: the newer delivers, and ends when the member is
    dropped."""
    async with serving() as one:
        older = await one.connect(TWO)
        newer = await one.connect(TWO)
        await end_of(older)
        await newer.send_bytes(encode([small(1, source=2, target=1)]))
        assert await one.received.get() == small(1, source=2, target=1)
        await one.server.drop(2)
        assert (await end_of(newer))[0] == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_member_that_is_dropped_is_hung_up_on() -> None:
    """It hears why; the others stay, and to drop who is not there does nothing."""
    async with serving() as one:
        two, three = await one.connect(TWO), await one.connect(THREE)
        await one.server.drop(2)
        await one.server.drop(2)
        await one.server.drop(9)
        assert await end_of(two) == (aiohttp.WSCloseCode.POLICY_VIOLATION, "removed from the cluster")
        await three.send_bytes(encode([small(1, source=3, target=1)]))
        assert await one.received.get() == small(1, source=3, target=1)


async def test_members_are_answered_on_other_paths() -> None:
    """The handler knows who asks, whatever the method."""
    async with (
        serving() as one,
        one.session.post(one.url + "/raft/ask", headers=TWO.headers(1), data=b"hello") as response,
    ):
        assert await response.text() == "POST of 2: hello"


async def test_an_open_page_is_for_everybody() -> None:
    """Nobody's headers are asked for."""
    async with serving() as one:
        assert (await one.get("/page", {}))[::2] == (200, "welcome")


async def test_an_address_that_is_taken_is_told() -> None:
    """``open`` raises OSError, and what it had opened is closed again."""
    async with serving() as one:
        other = Serving()
        async with other.session:
            port, taken = (int(url.rpartition(":")[2]) for url in (other.url, one.url))
            with pytest.raises(OSError, match="in use"):
                await other.server.open([("127.0.0.1", port), ("127.0.0.1", taken)])
            with pytest.raises(aiohttp.ClientConnectorError):
                await other.get("/page", {})


async def test_close_waits_for_no_peer() -> None:
    """Every stream ends with a goodbye, at once, though nobody reads it; afterwards the port refuses."""
    async with serving() as one:
        streams = [await one.connect(TWO), await one.connect(THREE)]
        async with asyncio.timeout(0.3):
            await one.server.close()
        for stream in streams:
            assert (await end_of(stream))[0] == aiohttp.WSCloseCode.GOING_AWAY
        with pytest.raises(aiohttp.ClientConnectorError):
            await one.connect(TWO)


async def test_close_waits_for_no_peer_that_is_hung_up_on() -> None:
    """One that does not answer a goodbye is not waited for longer than half a second."""
    async with serving() as one:
        stream = await one.connect(TWO)
        await stream.send_bytes(b"nonsense")
        await stream._reader.read()  # the goodbye, which is not answered
        async with asyncio.timeout(0.9):
            await one.server.close()
