"""Requests as etcd's JSON, and its answers as the history's records. Pure.

This is the border of the evidence: what is lost or made up here would be judged wrongly. It shares no
code with ``api.schema``, which is what it judges. An answer that is no honest one (no revision where one
belongs, an operation of the wrong kind) is not decoded into something nearby: it raises ``BadAnswer``,
which is a violation.

What an error means is told by its text, and when in doubt the outcome is *unknown*:

    400 etcdserver: mvcc: required revision has been compacted   → error, decided by the state
    503 etcdserver: no leader                                    → unknown, though it may well be refused
    connection refused                                           → refused: the request was never sent
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any, NamedTuple

import orjson

from kvstate.commands import (
    Compact,
    CompactResponse,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    DeleteRangeResponse,
    Put,
    PutResponse,
    Range,
    RangeResponse,
    Response,
    Txn,
    TxnResponse,
)
from kvstate.errors import RequestError
from kvstate.types import EventType, KeyValue
from tests.sim.history import Operation, Outcome, Request
from watch.watcher import WatchCreate, WatchEvent, WatchResponse

PATHS: dict[type, str] = {
    Put: "/v3/kv/put",
    DeleteRange: "/v3/kv/deleterange",
    Range: "/v3/kv/range",
    Txn: "/v3/kv/txn",
    Compact: "/v3/kv/compaction",
}
_OPERANDS = {
    CompareTarget.VERSION: "version",
    CompareTarget.CREATE: "create_revision",
    CompareTarget.MOD: "mod_revision",
    CompareTarget.VALUE: "value",
    CompareTarget.LEASE: "lease",
}
_STATE_ERRORS = {cls.message: cls for cls in RequestError.__subclasses__()}
_MAXIMUM = 200_000


class BadAnswer(AssertionError):
    """The server said something that its API has no place for."""


class Interner:
    """The same key-values and events are told again and again: each is kept once."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(self, thing: Any) -> Any:
        if len(self._known) > _MAXIMUM:
            self._known.clear()  # it only saves memory
        return self._known.setdefault(thing, thing)


_intern = Interner()


# Requests.


def encode(request: Request) -> tuple[str, bytes]:
    """Path and body."""
    return PATHS[type(request)], orjson.dumps(_message(request))


def _message(request: Any) -> dict[str, Any]:
    match request:
        case Put():
            return _set(
                key=_b64(request.key),
                value=_b64(request.value),
                lease=str(request.lease) if request.lease else "",
                prev_kv=request.prev_kv,
                ignore_value=request.ignore_value,
                ignore_lease=request.ignore_lease,
            )
        case DeleteRange():
            return _set(key=_b64(request.key), range_end=_b64(request.range_end), prev_kv=request.prev_kv)
        case Range():
            return _set(
                key=_b64(request.key),
                range_end=_b64(request.range_end),
                limit=str(request.limit) if request.limit else "",
                revision=str(request.revision) if request.revision else "",
                serializable=request.serializable,
                keys_only=request.keys_only,
                count_only=request.count_only,
            )
        case Txn():
            return {
                "compare": [_compare(one) for one in request.compare],
                "success": [_operation(one) for one in request.success],
                "failure": [_operation(one) for one in request.failure],
            }
        case Compact():
            return {"revision": str(request.revision)}
    raise TypeError(f"the workload does not send {request!r}")


def _operation(op: Any) -> dict[str, Any]:
    names = {Put: "request_put", DeleteRange: "request_delete_range", Range: "request_range"}
    return {names[type(op)]: _message(op)}


def _compare(compare: Compare) -> dict[str, Any]:
    operand = compare.operand
    return {
        "key": _b64(compare.key),
        "result": CompareResult(compare.result).name,
        "target": CompareTarget(compare.target).name,
        _OPERANDS[CompareTarget(compare.target)]: _b64(operand)
        if isinstance(operand, bytes)
        else str(operand),
    }


def encode_watch(request: WatchCreate) -> bytes:
    filters = [{EventType.PUT: "NOPUT", EventType.DELETE: "NODELETE"}[kind] for kind in request.filters]
    create = _set(
        key=_b64(request.key),
        range_end=_b64(request.range_end),
        start_revision=str(request.start_revision) if request.start_revision else "",
        progress_notify=request.progress_notify,
        prev_kv=request.prev_kv,
        filters=filters,
    )
    return orjson.dumps({"create_request": create})


def _set(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


# Answers.


class Answer(NamedTuple):
    revision: int
    response: Response


def decode(request: Request, body: bytes) -> Answer:
    """What a 200 says. Raises BadAnswer."""
    message = _loads(body)
    header = message.get("header")
    if not isinstance(header, dict):
        raise BadAnswer(f"no header in the answer to {request!r}: {body[:300]!r}")
    revision = _int(header, "revision")
    if revision < 1:
        raise BadAnswer(f"no revision in the header of the answer to {request!r}: {body[:300]!r}")
    return Answer(revision, _response(request, message))


def _response(request: Any, message: dict[str, Any]) -> Response:
    match request:
        case Put():
            return PutResponse(_optional_kv(message, "prev_kv"))
        case DeleteRange():
            return DeleteRangeResponse(_int(message, "deleted"), _kvs(message, "prev_kvs"))
        case Range():
            return RangeResponse(
                _kvs(message, "kvs"), bool(message.get("more", False)), _int(message, "count")
            )
        case Compact():
            return CompactResponse()
        case Txn():
            return _txn_response(request, message)
    raise TypeError(f"the workload does not send {request!r}")


def _txn_response(request: Txn, message: dict[str, Any]) -> TxnResponse:
    succeeded = bool(message.get("succeeded", False))
    asked = request.success if succeeded else request.failure
    answered = message.get("responses", [])
    if len(answered) != len(asked):
        raise BadAnswer(
            f"a transaction of {len(asked)} operations was answered by {len(answered)}: {request!r}"
        )
    names = {Put: "response_put", DeleteRange: "response_delete_range", Range: "response_range"}
    responses = []
    for op, one in zip(asked, answered, strict=True):
        name = names[type(op)]
        if list(one) != [name]:
            raise BadAnswer(f"operation {op!r} was answered by {list(one)}")
        inner = one[name]
        responses.append((_int(inner.get("header", {}), "revision"), _response(op, inner)))
    return TxnResponse(succeeded, responses)


def decode_watch(line: bytes) -> WatchResponse | None:
    """One line of a watch's stream; None for an error that ends it."""
    message = _loads(line)
    if "error" in message:
        return None
    result = message.get("result")
    if not isinstance(result, dict) or not isinstance(result.get("header"), dict):
        raise BadAnswer(f"a watch was told {line[:300]!r}")
    return WatchResponse(
        watch_id=_int(result, "watch_id"),
        revision=_int(result["header"], "revision"),
        created=bool(result.get("created", False)),
        canceled=bool(result.get("canceled", False)),
        compact_revision=_int(result, "compact_revision"),
        cancel_reason=str(result.get("cancel_reason", "")),
        events=tuple(_event(one) for one in result.get("events", [])),
    )


def _event(message: dict[str, Any]) -> WatchEvent:
    kind = EventType[message.get("type", "PUT")]
    event: WatchEvent = _intern(WatchEvent(kind, _kv(message["kv"]), _optional_kv(message, "prev_kv")))
    return event


def _kv(message: dict[str, Any]) -> KeyValue:
    kv: KeyValue = _intern(
        KeyValue(
            b64decode(message.get("key", "")),
            _int(message, "create_revision"),
            _int(message, "mod_revision"),
            _int(message, "version"),
            b64decode(message.get("value", "")),
            _int(message, "lease"),
        )
    )
    return kv


def _optional_kv(message: dict[str, Any], name: str) -> KeyValue | None:
    return _kv(message[name]) if name in message else None


def _kvs(message: dict[str, Any], name: str) -> list[KeyValue]:
    return [_kv(one) for one in message.get(name, [])]


def _int(message: dict[str, Any], name: str) -> int:
    return int(message.get(name, 0))


def _loads(body: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadAnswer(f"no JSON: {body[:300]!r}") from error
    if not isinstance(message, dict):
        raise BadAnswer(f"no JSON object: {body[:300]!r}")
    return message


def note_answer(operation: Operation, status: int, body: bytes) -> str:
    """Enter an answer into the history; the text of an error."""
    if status == 200:
        answer = decode(operation.request, body)
        operation.outcome = Outcome.OK
        operation.revision, operation.response = answer.revision, answer.response
        return ""
    error = state_error(status, body)
    if error is not None:
        operation.outcome, operation.error = Outcome.ERROR, error
    return error_text(body)


def state_error(status: int, body: bytes) -> RequestError | None:
    """The refusal that the state decided, if this answer is one. Anything else promises nothing."""
    if status not in (400, 404):
        return None
    try:
        message = orjson.loads(body).get("message", "")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    cls = _STATE_ERRORS.get(message)
    return cls() if cls is not None else None


def error_text(body: bytes) -> str:
    """For counting."""
    try:
        message = orjson.loads(body)
        return str(message.get("message") or message["error"]["message"])
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return body[:60].decode("ascii", "backslashreplace")
