"""Leases over HTTP: what is read and written, the one-shot keepalive and the stream, on every path."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from api.errors import BadRequest
from api.handlers import ROUTES
from api.schema import requests
from api.schema.requests import LeaseTimeToLive
from api.schema.responses import Encoder, stream_error
from api.service import Reply, TimeToLive
from kvstate.commands import LeaseGrant, LeaseGrantResponse, LeaseRevokeResponse
from raft.errors import TimedOut
from tests.common.servers import Server

HEADER = b'{"header":{"cluster_id":"1","member_id":"7","revision":"3","raft_term":"4"}'


@pytest.mark.parametrize(
    ("decode", "body", "expected"),
    [
        (requests.decode_lease_grant, b"", LeaseGrant(0, 0)),
        (requests.decode_lease_grant, b'{"TTL":"60","ID":"-7"}', LeaseGrant(-7, 60)),
        (requests.decode_lease_grant, b'{"ttl":60,"id":7}', LeaseGrant(0, 0)),
        (requests.decode_lease_id, b'{"ID":7,"keys":1}', 7),
        (requests.decode_lease_id, b'{"ID":"-9223372036854775808"}', -(1 << 63)),
        (requests.decode_lease_id, b"null", 0),
        (requests.decode_lease_time_to_live, b'{"ID":7,"keys":true}', LeaseTimeToLive(7, True)),
        (requests.decode_lease_time_to_live, b"{}", LeaseTimeToLive(0, False)),
    ],
)
def test_requests_are_read(decode: Callable[[bytes], Any], body: bytes, expected: object) -> None:
    """Names are as they stand in etcd's proto: these have no other spelling."""
    assert decode(body) == expected


def test_of_two_mistakes_the_ttl_is_named() -> None:
    """It is the first field of the proto."""
    with pytest.raises(BadRequest, match="'x'"):
        requests.decode_lease_grant(b'{"ID":"y","TTL":"x"}')


def test_responses_are_written() -> None:
    """Defaults left out, integers as strings, keys in base64."""
    encoder = Encoder(1, 7)
    assert encoder.reply(Reply(LeaseGrantResponse(-5, 60), 3), 4) == HEADER + b',"ID":"-5","TTL":"60"}'
    assert encoder.reply(Reply(LeaseRevokeResponse(5), 3), 4) == HEADER + b"}"
    assert encoder.lease_alive(5, 60, 3, 4) == b'{"result":' + HEADER + b',"ID":"5","TTL":"60"}}\n'
    assert encoder.lease_alive(5, 0, 3, 4) == b'{"result":' + HEADER + b',"ID":"5"}}\n'
    found = encoder.lease_time_to_live(5, TimeToLive(0, 60, [b"a", b"b"]), 3, 4)
    assert found == HEADER + b',"ID":"5","grantedTTL":"60","keys":["YQ==","Yg=="]}'
    assert encoder.lease_time_to_live(5, None, 3, 4) == HEADER + b',"ID":"5","TTL":"-1"}'
    assert encoder.leases([-5, 5], 3, 4) == HEADER + b',"leases":[{"ID":"-5"},{"ID":"5"}]}'
    assert encoder.leases([], 3, 4) == HEADER + b"}"


def test_what_ends_a_stream_is_understood_by_clients_of_every_gateway() -> None:
    """It has the names of all versions."""
    assert json.loads(stream_error(TimedOut("late"))) == {
        "error": {
            "grpc_code": 14,
            "http_code": 503,
            "message": "etcdserver: request timed out",
            "http_status": "Service Unavailable",
            "code": 14,
        }
    }


class Recorder:
    """A service that notes what it is asked."""

    raft_term = 4
    revision = 3

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def lease_grant(self, *arguments: object) -> Reply:
        self.asked.append(("grant", *arguments))
        return Reply(LeaseGrantResponse(5, 60), 3)

    async def lease_revoke(self, *arguments: object) -> Reply:
        self.asked.append(("revoke", *arguments))
        return Reply(LeaseRevokeResponse(5), 3)

    async def lease_keep_alive(self, *arguments: object) -> int:
        self.asked.append(("keep alive", *arguments))
        return 60

    async def lease_time_to_live(self, *arguments: object, **named: object) -> None:
        self.asked.append(("time to live", *arguments, named))

    async def lease_list(self) -> list[int]:
        self.asked.append(("list",))
        return []


@pytest.mark.parametrize("start", ["/v3", "/v3beta"])
async def test_every_path_asks_the_service_for_its_operation(start: str) -> None:
    """Those of the lease service and the older ones below /kv, and both below etcd's old root."""
    service, encoder, calls = Recorder(), Encoder(1, 7), {**ROUTES.unary, **ROUTES.single}
    for path, body in [
        ("/lease/grant", b'{"TTL":60,"ID":5}'),
        ("/lease/revoke", b'{"ID":5}'),
        ("/kv/lease/revoke", b'{"ID":6}'),
        ("/lease/keepalive", b'{"ID":5}'),
        ("/lease/timetolive", b'{"ID":5}'),
        ("/kv/lease/timetolive", b'{"ID":6,"keys":true}'),
        ("/lease/leases", b"{}"),
        ("/kv/lease/leases", b""),
    ]:
        answer = await calls[start + path](service, encoder, body)  # type: ignore[arg-type]
        assert HEADER in answer
    assert service.asked == [
        ("grant", 60, 5),
        ("revoke", 5),
        ("revoke", 6),
        ("keep alive", 5),
        ("time to live", 5, {"keys": False}),
        ("time to live", 6, {"keys": True}),
        ("list",),
        ("list",),
    ]


# Over the wire.


def granted(server: Server) -> int:
    return int(call(server, "/v3/lease/grant", b'{"TTL":500}')[1]["ID"])


def call(server: Server, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, json.loads(answer)


def test_the_server_chooses_positive_ids(kvorum_server: Server) -> None:
    """All different, where none is given."""
    ids = {granted(kvorum_server) for _ in range(10)}
    assert len(ids) == 10
    assert all(0 < one < 1 << 63 for one in ids)


def test_both_ways_of_a_keepalive_say_the_same(kvorum_server: Server) -> None:
    """The short one, and the stream that a header without a meaning here leads to."""
    lease = granted(kvorum_server)
    for body in (b'{"ID":"%d"}' % lease, b'{"ID":99}', b"{}", b"{", b"[]", b'{"ID":true}', b'{"ID":99}x'):
        short, long = (
            call(kvorum_server, "/v3/lease/keepalive", body, **headers)
            for headers in ({}, {"TE": "trailers"})
        )
        assert short == long


def test_a_keepalive_stream_answers_as_requests_come(kvorum_server: Server) -> None:
    """Each when it is there, in a chunk of its own; the end of the body ends the answer, and the
    connection can be used again."""
    lease = granted(kvorum_server)
    with socket.create_connection(("127.0.0.1", kvorum_server.port), timeout=10) as connection:
        stream = connection.makefile("rb")
        connection.sendall(
            b"POST /v3/lease/keepalive HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for turn in range(3):
            send_chunk(connection, b'{"ID":"%d"}' % lease)
            if not turn:
                assert b"200" in stream.readline()
                while stream.readline() != b"\r\n":
                    pass
            assert json.loads(read_chunk(stream))["result"]["TTL"] == "500"
        send_chunk(connection, b'{"I')
        send_chunk(connection, b'D":99} {"ID":98}')
        for absent in ("99", "98"):
            result = json.loads(read_chunk(stream))["result"]
            assert (result["ID"], result.get("TTL")) == (absent, None)
        send_chunk(connection, b"")
        assert read_chunk(stream) == b""
        connection.sendall(b"POST /v3/lease/leases HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert b"200" in stream.readline()


def test_a_broken_request_ends_a_keepalive_stream(kvorum_server: Server) -> None:
    """What came before is answered; nothing is said of it, as in etcd. The first one's has a status."""
    lease = granted(kvorum_server)
    good = b'{"ID":"%d"}' % lease
    status, answer = call(kvorum_server, "/v3/lease/keepalive", good + b'{"ID":"x"}' + good)
    assert (status, answer["result"]["TTL"]) == (200, "500")
    status, answer = call(kvorum_server, "/v3/lease/keepalive", b'{"ID":"x"}' + good)
    assert (status, answer["code"]) == (400, 3)


def send_chunk(connection: socket.socket, data: bytes) -> None:
    connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))


def read_chunk(stream: Any) -> bytes:
    size = int(stream.readline(), 16)
    data = stream.read(size)
    assert stream.readline() == b"\r\n"
    return data
