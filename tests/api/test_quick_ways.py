"""The quick ways through the schema say what the general ones say, of any body and any response."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.errors import BadRequest
from api.schema import base64_go, go_json, requests
from api.schema.fields import Field, Message, repeated
from api.schema.responses import Encoder
from api.service import Reply
from kvstate.commands import (
    CompactResponse,
    DeleteRange,
    DeleteRangeResponse,
    Put,
    PutResponse,
    Range,
    RangeResponse,
    Txn,
    TxnResponse,
)
from kvstate.types import EventType, KeyValue
from watch.watcher import WatchEvent, WatchResponse

# ---- requests ------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.binary(max_size=12).map(lambda data: base64.b64encode(data).decode()),
    st.binary(max_size=12).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("=")),
    st.text("AQYZz09+/-_=\n\r* é\0", max_size=9),
    st.sampled_from(["YR==", "YQ==YQ==", "YQ=", "=", "====", "Y===", "YQ===", "YQ\n==", "\ud800"]),
)
NUMBERS = st.one_of(
    st.integers(-(1 << 64), 1 << 65),
    st.integers(-(1 << 64), 1 << 65).map(str),
    st.sampled_from(
        ["", "0", "007", "-0", "-1", " 7", "7 ", "1e3", "1.5", "null", "true", "٣", "1_0", "7\n"]
    ),
)
SCALARS = st.one_of(
    TEXTS, NUMBERS, st.none(), st.booleans(), st.just(1.5), st.lists(st.integers(-1, 256), max_size=3)
)


class Pairs(list[tuple[str, Any]]):
    """An object whose names may come twice."""


def objects(names: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly objects with some of these names, plain ones among them."""
    return st.one_of(
        st.lists(st.tuples(st.sampled_from(names), values), max_size=3).map(Pairs),
        st.tuples(*(st.tuples(st.just(name), TEXTS) for name in names[:2])).map(Pairs),
        st.tuples(st.tuples(st.just(names[0]), TEXTS)).map(Pairs),
        SCALARS,
    )


FIELDS = [
    "key",
    "value",
    "range_end",
    "rangeEnd",
    "lease",
    "limit",
    "prev_kv",
    "prevKv",
    "ignoreValue",
    "other",
]
PUTS = objects(FIELDS, SCALARS)
OPS = objects(
    ["request_put", "requestPut", "request_range", "requestRange", "request_delete_range", "other"], PUTS
)
COMPARES = objects(["key", "target", "result", "mod_revision", "modRevision", "value"], SCALARS)


def lists_of(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(items, max_size=3), SCALARS)


NESTED = objects(["success", "failure", "compare"], lists_of(st.one_of(OPS, COMPARES)))
TXNS = objects(
    ["success", "failure", "compare"],
    lists_of(st.one_of(OPS, COMPARES, NESTED.map(lambda txn: Pairs([("request_txn", txn)])))),
)


def dump(value: Any, space: str = "") -> str:
    if isinstance(value, Pairs):
        members = (f"{json.dumps(name)}:{space}{dump(member, space)}" for name, member in value)
        return "{" + f",{space}".join(members) + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(dump(item, space) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


@st.composite
def bodies(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> bytes:
    """JSON of such a value, now and then with something wrong in it."""
    body = dump(draw(values), draw(st.sampled_from(["", " ", "\n"]))).encode("utf-8", "surrogatepass")
    if not draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(body)))
        body = (
            body[:place]
            + draw(st.sampled_from([b"", b'"', b"\\", b"}", b"\xff", b"\\u0041", b" "]))
            + (body[place + draw(st.integers(0, 1)) :])
        )
    return body + draw(st.sampled_from([b"", b"", b"\n", b" {}", b"x"]))


def outcome(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except BadRequest as error:
        return str(error)


def by_tables(read: Callable[[Any], Any]) -> Callable[[bytes], Any]:
    def decode(body: bytes) -> Any:
        try:
            return read(orjson.loads(body))
        except (ValueError, BadRequest):
            return read(go_json.parse(body))

    return decode


def put_by_table(value: Any) -> Put:
    return Put(**requests._PUT.read(value))


def range_by_table(value: Any) -> Range:
    return Range(**requests._RANGE.read(value))


def delete_by_table(value: Any) -> DeleteRange:
    return DeleteRange(**requests._DELETE_RANGE.read(value))


def txn_by_table(value: Any) -> Txn:
    op = Message(
        Field("request_range", range_by_table),
        Field("request_put", put_by_table),
        Field("request_delete_range", delete_by_table),
        Field("request_txn", txn_by_table),
    )

    def last(value: Any) -> Any:
        return [None, *op.read(value).values()][-1]

    fields = Message(
        Field("compare", repeated(requests._compare)),
        Field("success", repeated(last)),
        Field("failure", repeated(last)),
    ).read(value)
    return Txn(*(tuple(fields.get(name, ())) for name in ("compare", "success", "failure")))


@given(body=bodies(PUTS))
@example(body=b'{"key":"YQ==","value":"Yg=="}')
@example(body=b'{"key":"YQ==","key":"Yg=="}')
@example(body=b'{"key":"YQ==","value":"*","value":"Yg=="}')
def test_put(body: bytes) -> None:
    """A put is what its table makes of it, or wrong in the same words."""
    assert outcome(requests.decode_put, body) == outcome(by_tables(put_by_table), body)


@given(body=bodies(PUTS))
@example(body=b'{"key":"YQ=="}')
def test_range(body: bytes) -> None:
    """A range is what its table makes of it, or wrong in the same words."""
    assert outcome(requests.decode_range, body) == outcome(by_tables(range_by_table), body)


@given(body=bodies(PUTS))
def test_delete_range(body: bytes) -> None:
    """A deletion is what its table makes of it, or wrong in the same words."""
    assert outcome(requests.decode_delete_range, body) == outcome(by_tables(delete_by_table), body)


@given(body=bodies(TXNS))
@example(
    body=b'{"success":[{"request_put":{"key":"YQ==","value":"Yg=="}},{"requestPut":{}},{"request_put":null}]}'
)
@example(body=b'{"success":[{"request_put":0}]}')
def test_txn(body: bytes) -> None:
    """A transaction is what the tables make of it, or wrong in the same words."""
    assert outcome(requests.decode_txn, body) == outcome(by_tables(txn_by_table), body)


def decode_by_the_book(text: str) -> Any:
    return base64_go._decode_unusual(text.encode("utf-8", "surrogatepass"))


@given(text=st.one_of(TEXTS, st.text(max_size=9)))
@example(text="YW*I=")
def test_base64(text: str) -> None:
    """What is plain is read as what is not, or is wrong in the same words."""
    assert outcome(base64_go.decode, text) == outcome(decode_by_the_book, text)


@given(data=st.binary(max_size=2000))
def test_base64_there_and_back(data: bytes) -> None:
    """What is encoded is standard base64, and decoded it is the same again."""
    assert base64_go.encode(data) == base64.b64encode(data)
    assert base64_go.decode(base64_go.encode(data).decode()) == data


@pytest.mark.parametrize(
    "number", ["1", "007", "-5", "999999999999999999", "9223372036854775807", "9223372036854775808"]
)
def test_integers_in_strings(number: str) -> None:
    """64 bits may come in a string: what stands in it is JSON, so without leading zeros."""
    body = b'{"key":"YQ==","lease":"%b"}' % number.encode()
    if number == "007":
        assert outcome(requests.decode_put, body) == "invalid character '0' after top-level value"
    elif number == "9223372036854775808":
        assert "cannot unmarshal number 9223372036854775808" in outcome(requests.decode_put, body)
    else:
        assert outcome(requests.decode_put, body) == Put(b"a", lease=int(number))


# ---- responses -----------------------------------------------------------------------------------

COUNTS = st.one_of(st.just(0), st.integers(0, 1 << 63), st.sampled_from([1, 2]))
KVS = st.builds(
    KeyValue, st.binary(min_size=1, max_size=9), COUNTS, COUNTS, COUNTS, st.binary(max_size=9), COUNTS
)
RANGED = st.builds(RangeResponse, st.lists(KVS, max_size=3), st.booleans(), COUNTS)
PUT_BEFORE = st.builds(PutResponse, st.none() | KVS)
DELETED = st.builds(DeleteRangeResponse, COUNTS, st.lists(KVS, max_size=3))
UNNESTED = st.one_of(RANGED, PUT_BEFORE, DELETED)


def txn_responses(nested: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(TxnResponse, st.booleans(), st.lists(st.tuples(COUNTS, nested), max_size=3))


RESPONSES = st.one_of(UNNESTED, st.just(CompactResponse()), txn_responses(UNNESTED | txn_responses(UNNESTED)))
EVENTS = st.builds(WatchEvent, st.sampled_from(EventType), KVS, st.none() | KVS)
WATCH_RESPONSES = st.builds(
    WatchResponse,
    watch_id=st.integers(-1, 3),
    revision=COUNTS,
    created=st.booleans(),
    canceled=st.booleans(),
    compact_revision=st.just(0) | COUNTS,
    cancel_reason=st.sampled_from(["", "a <reason>"]),
    events=st.lists(EVENTS, max_size=3).map(tuple),
    may_fragment=st.booleans(),
)


def message(**fields: Any) -> dict[str, Any]:
    """As the gateway has it: integers as strings, bytes in base64, and nothing that has its default."""
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        elif isinstance(value, int) and not isinstance(value, bool):
            value = str(value) if value else ""
        if value or isinstance(value, dict):
            shown[name] = value
    return shown


def shown_kv(kv: KeyValue) -> dict[str, Any]:
    shown = {**message(**kv._asdict()), "mod_revision": str(kv.mod_revision)}
    return {name: shown[name] for name in KeyValue._fields if name in shown}


def optional(kv: KeyValue | None) -> dict[str, Any] | None:
    return None if kv is None else shown_kv(kv)


def header(revision: int, raft_term: int) -> dict[str, Any]:
    term = {"raft_term": str(raft_term)}
    return {**message(cluster_id=1, member_id=2, revision=revision), **term}


def shown_response(shown_header: dict[str, Any], response: Any) -> dict[str, Any]:
    match response:
        case PutResponse(prev_kv):
            return message(header=shown_header, prev_kv=optional(prev_kv))
        case RangeResponse(kvs, more, count):
            return message(header=shown_header, kvs=[shown_kv(kv) for kv in kvs], more=more, count=count)
        case DeleteRangeResponse(deleted, kvs):
            return message(header=shown_header, deleted=deleted, prev_kvs=[shown_kv(kv) for kv in kvs])
        case CompactResponse():
            return message(header=shown_header)
        case TxnResponse(succeeded, responses):
            names = {RangeResponse: "range", PutResponse: "put", DeleteRangeResponse: "delete_range"}
            shown = [
                {f"response_{names.get(type(nested), 'txn')}": shown_response(message(revision=at), nested)}
                for at, nested in responses
            ]
            return message(header=shown_header, succeeded=succeeded, responses=shown)
    raise AssertionError(response)


@given(replies=st.lists(st.tuples(RESPONSES, COUNTS, st.integers(0, 2)), min_size=1, max_size=4))
def test_replies(replies: list[tuple[Any, int, int]]) -> None:
    """Each says what a plain encoder of messages says, whatever was said before it."""
    encoder = Encoder(1, 2)
    for response, revision, raft_term in replies:
        expected = orjson.dumps(shown_response(header(revision, raft_term), response))
        assert encoder.reply(Reply(response, revision), raft_term) == expected


def shown_event(event: WatchEvent) -> dict[str, Any]:
    kind = "DELETE" if event.type == EventType.DELETE else ""
    return message(type=kind, kv=shown_kv(event.kv), prev_kv=optional(event.prev_kv))


def shown_watch(response: WatchResponse, raft_term: int, events: list[Any], *, is_last: bool) -> bytes:
    shown = message(
        header=header(0 if response.compact_revision else response.revision, raft_term),
        watch_id=response.watch_id,
        created=response.created,
        canceled=response.canceled,
        compact_revision=response.compact_revision,
        cancel_reason=response.cancel_reason,
        fragment=not is_last,
        events=events,
    )
    encoded = orjson.dumps({"result": shown}) + b"\n"
    return encoded.replace(b"<", b"\\u003c").replace(b">", b"\\u003e")


@given(
    responses=st.lists(st.tuples(WATCH_RESPONSES, st.integers(0, 2)), min_size=1, max_size=4),
    is_repeated=st.booleans(),
)
def test_watch_frames(responses: list[tuple[WatchResponse, int]], is_repeated: bool) -> None:
    """Each says what a plain encoder of messages says, told to one stream or to several."""
    encoder = Encoder(1, 2)
    for response, raft_term in responses * (1 + is_repeated):
        events = [shown_event(event) for event in response.events]
        whole = [shown_watch(response, raft_term, events, is_last=True)]
        assert encoder.watch(response, raft_term, 1 << 20) == whole
        frames = encoder.watch(response, raft_term, 0)
        if response.may_fragment and events:
            assert frames == [
                shown_watch(response, raft_term, [event], is_last=number == len(events) - 1)
                for number, event in enumerate(events)
            ]
        else:
            assert frames == whole
