"""The DNS server's sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest

from kvorum.nameserver import server as module
from kvorum.nameserver.answers import Answer, Answers, ZoneSettings
from kvorum.nameserver.server import Nameserver
from kvorum.services.records import instance
from tests.kvorum.nameserver.test_answers import directory_of

HOST = "127.0.0.1"
QUERY = dns.message.make_query("web.service.kvorum", "A")
LARGE = dns.message.make_query("many.service.kvorum", "A")


@pytest.fixture
async def server() -> AsyncIterator[Nameserver]:
    many = [instance("many", f"10.0.1.{n}:80") for n in range(200)]
    directory = directory_of(instance("web", "10.0.0.1:80"), *many)
    answers = Answers(directory, ZoneSettings(dns.name.from_text("kvorum.")))
    async with Nameserver(answers.to, HOST, 0) as server:
        yield server


async def test_udp_and_tcp_are_answered_on_one_port(server: Nameserver) -> None:
    by_udp = await dns.asyncquery.udp(QUERY, HOST, port=server.port, timeout=5)
    by_tcp = await dns.asyncquery.tcp(QUERY, HOST, port=server.port, timeout=5)
    assert by_udp.answer == by_tcp.answer != []


async def test_what_udp_truncates_tcp_tells(server: Nameserver) -> None:
    answer, used_tcp = await dns.asyncquery.udp_with_fallback(LARGE, HOST, port=server.port, timeout=5)
    assert (used_tcp, len(answer.answer[0])) == (True, 200)


async def test_a_connection_may_ask_more_than_once_and_byte_by_byte(server: Nameserver) -> None:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    framed = len(QUERY.to_wire()).to_bytes(2, "big") + QUERY.to_wire()
    for byte in framed:
        writer.write(bytes([byte]))
        await writer.drain()
    writer.write(framed * 2)
    for _ in range(3):
        length = int.from_bytes(await reader.readexactly(2), "big")
        assert len(dns.message.from_wire(await reader.readexactly(length)).answer) == 1
    writer.close()


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\x05abc", b"\xff\xff" + b"x" * 70_000, b"\0\x02ab"])
async def test_a_connection_that_says_nonsense_harms_nobody(server: Nameserver, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    writer.write(data)
    if data:
        writer.write_eof()
        await reader.read()
    by_tcp = await dns.asyncquery.tcp(QUERY, HOST, port=server.port, timeout=5)
    assert by_tcp.rcode() == dns.rcode.NOERROR
    writer.close()


async def test_who_says_nothing_is_hung_up_on(server: Nameserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TCP_IDLE_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection(HOST, server.port)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_where_there_are_too_many_connections_the_most_silent_goes(
    server: Nameserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever opens as many as there may be, and says nothing, would keep all others out."""
    monkeypatch.setattr(module, "TCP_CONNECTIONS_MAX", 2)

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(len(QUERY.to_wire()).to_bytes(2, "big") + QUERY.to_wire())
        return bool(await reader.read(1024))

    async with asyncio.timeout(5):
        connections = [await asyncio.open_connection(HOST, server.port) for _ in range(2)]
        first, second = connections
        assert await ask(*second)
        assert await ask(*first)
        third = await asyncio.open_connection(HOST, server.port)
        assert await ask(*third)
        assert await second[0].read() == b""
        assert await ask(*first)
    for _, writer in (*connections, third):
        writer.close()


async def test_who_asks_much_at_once_does_not_keep_others_from_being_answered() -> None:
    asked = list[str]()

    def ask(name: dns.name.Name, *_: object) -> Answer:
        if not asked:
            sender.sendto(QUERY.to_wire(), (HOST, server.port))
        asked.append(str(name))
        return Answer()

    many = dns.message.make_query("many.service.kvorum", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        async with Nameserver(ask, HOST, 0) as server, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write((len(many).to_bytes(2, "big") + many) * 200)
            for _ in range(200):
                await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            writer.close()
    assert asked.index("web.service.kvorum.") < 20


async def test_nonsense_by_udp_harms_nobody(server: Nameserver) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (b"", b"x", b"x" * 20, bytes(12), b"\xff" * 1400):
            sender.sendto(data, (HOST, server.port))
    assert (await dns.asyncquery.udp(QUERY, HOST, port=server.port, timeout=5)).answer


async def test_an_address_in_use_is_an_error(server: Nameserver) -> None:
    with pytest.raises(OSError, match="in use"):
        async with Nameserver(lambda *_: None, HOST, server.port):  # type: ignore[arg-type,return-value]
            pass


async def test_afterwards_the_port_is_free(server: Nameserver) -> None:
    async with Nameserver(lambda *_: None, HOST, 0) as second:  # type: ignore[arg-type,return-value]
        port = second.port
        reader, writer = await asyncio.open_connection(HOST, port)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    async with Nameserver(lambda *_: None, HOST, port):  # type: ignore[arg-type,return-value]
        pass
