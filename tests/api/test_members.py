"""The member operations' requests and responses, by the bytes that etcd 3.5.1 takes and sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.errors import BadRequest
from api.handlers import ROUTES
from api.roster import Member
from api.schema import requests
from api.schema.requests import MemberAdd, MemberUpdate
from api.schema.responses import Encoder

FIRST = Member(7, "n1", ("http://h:1", "http://h:2"), ("http://c:1",))
NEW = Member(9, "", ("http://h:3",), (), is_learner=True)
LIST = (
    b'"members":[{"ID":"7","name":"n1","peerURLs":["http://h:1","http://h:2"],"clientURLs":["http://c:1"]},'
    b'{"ID":"9","peerURLs":["http://h:3"],"isLearner":true}]}'
)
HEADER = b'{"header":{"cluster_id":"1","member_id":"7","raft_term":"4"},'


@pytest.mark.parametrize(
    ("decode", "body", "expected"),
    [
        (requests.decode_member_add, b"", MemberAdd((), False)),
        (requests.decode_member_add, b'{"peerURLs":null}', MemberAdd((), False)),
        (requests.decode_member_add, b'{"peerURLs":[" a",null],"x":1}', MemberAdd((" a", ""), False)),
        (requests.decode_member_add, b'{"isLearner":true,"peerURLs":["a"]}', MemberAdd(("a",), True)),
        (requests.decode_member_add, b'{"peerUrls":["a"],"peer_urls":["a"]}', MemberAdd((), False)),
        (requests.decode_member_id, b"{}", 0),
        (requests.decode_member_id, b'{"ID":null}', 0),
        (requests.decode_member_id, b'{"ID":"null"}', 0),
        (requests.decode_member_id, b'{"ID":5,"id":6}', 5),
        (requests.decode_member_id, b'{"ID":"18446744073709551615"}', (1 << 64) - 1),
        (requests.decode_member_id, b'{"ID":18446744073709551615}', (1 << 64) - 1),
        (requests.decode_member_update, b"null", MemberUpdate(0, ())),
        (requests.decode_member_update, b'{"ID":"5","peerURLs":["a","b"]}', MemberUpdate(5, ("a", "b"))),
        (requests.decode_move_leader, b'{"targetID":"5"}', 5),
        (requests.decode_move_leader, b'{"targetId":"5","target_id":"6"}', 0),
    ],
)
def test_requests_are_read(decode: Callable[[bytes], Any], body: bytes, expected: object) -> None:
    """Names are as they stand in etcd's proto: these have no other spelling."""
    assert decode(body) == expected


@pytest.mark.parametrize(
    ("decode", "body", "text"),
    [
        (requests.decode_member_add, '{"peerURLs":"a"}', "string into Go value of type []json.RawMessage"),
        (requests.decode_member_add, '{"peerURLs":[1]}', "number into Go value of type string"),
        (requests.decode_member_add, '{"isLearner":1}', "number into Go value of type bool"),
        (requests.decode_member_id, '{"ID":-1}', "number -1 into Go value of type uint64"),
        (requests.decode_member_id, '{"ID":"-1"}', "number -1 into Go value of type uint64"),
        (requests.decode_member_id, '{"ID":1.5}', "number 1.5 into Go value of type uint64"),
        (
            requests.decode_member_id,
            '{"ID":18446744073709551616}',
            "number 18446744073709551616 into Go value of type uint64",
        ),
        (requests.decode_member_update, '{"ID":true}', "bool into Go value of type uint64"),
        (requests.decode_move_leader, '{"targetID":[]}', "array into Go value of type uint64"),
    ],
)
def test_mistakes_are_named_in_gos_words(decode: Callable[[bytes], Any], body: str, text: str) -> None:
    """What etcd 3.5.1 says of the same bodies."""
    with pytest.raises(BadRequest, match="cannot unmarshal") as caught:
        decode(body.encode())
    assert str(caught.value) == f"json: cannot unmarshal {text}"


def test_responses_are_written() -> None:
    """A header without a revision, defaults left out, and nothing at all for a moved leader."""
    encoder = Encoder(cluster_id=1, member_id=7)
    assert encoder.members((FIRST, NEW), 4) == HEADER + LIST
    added = b'"member":{"ID":"9","peerURLs":["http://h:3"],"isLearner":true},'
    assert encoder.member_add(NEW, (FIRST, NEW), 4) == HEADER + added + LIST
    assert encoder.members((), 4) == HEADER[:-1] + b"}"
    assert encoder.move_leader() == b"{}"


class Recorder:
    """A service that notes what it is asked and answers with the same members always."""

    raft_term = 4

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def member_add(self, *arguments: object, **named: object) -> tuple[Member, tuple[Member, ...]]:
        self.asked.append(("add", *arguments, named))
        return NEW, (FIRST, NEW)

    async def member_remove(self, *arguments: object) -> tuple[Member, ...]:
        self.asked.append(("remove", *arguments))
        return (FIRST, NEW)

    async def member_update(self, *arguments: object) -> tuple[Member, ...]:
        self.asked.append(("update", *arguments))
        return (FIRST, NEW)

    async def member_promote(self, *arguments: object) -> tuple[Member, ...]:
        self.asked.append(("promote", *arguments))
        return (FIRST, NEW)

    async def move_leader(self, *arguments: object) -> None:
        self.asked.append(("move", *arguments))


async def test_every_path_asks_the_service_for_its_operation() -> None:
    """Both the present paths and those of etcd's youth."""
    for start in ("/v3", "/v3beta"):
        service, encoder = Recorder(), Encoder(1, 7)
        for path, body in [
            ("/cluster/member/add", b'{"peerURLs":["http://h:3"],"isLearner":true}'),
            ("/cluster/member/remove", b'{"ID":"5"}'),
            ("/cluster/member/update", b'{"ID":"5","peerURLs":["http://h:4"]}'),
            ("/cluster/member/promote", b'{"ID":"5"}'),
            ("/maintenance/transfer-leadership", b'{"targetID":"5"}'),
        ]:
            answer = await ROUTES.unary[start + path](service, encoder, body)  # type: ignore[arg-type]
            assert answer.startswith(HEADER) or answer == b"{}"
        assert service.asked == [
            ("add", ("http://h:3",), {"is_learner": True}),
            ("remove", 5),
            ("update", 5, ("http://h:4",)),
            ("promote", 5),
            ("move", 5),
        ]
