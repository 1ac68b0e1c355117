"""Requests and answers as the JSON gateway has them: pure functions.

64-bit integers are strings there, keys and values base64, and what has its default value is left out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson

from kvorum.errors import ServerError, server_error
from kvorum.types import (
    DeleteResult,
    Event,
    Key,
    KeyValue,
    OperationResult,
    PutResult,
    RangeResult,
    TxnResult,
)

Message = dict[str, Any]
SORT_TARGETS = ("KEY", "VERSION", "CREATE", "MOD", "VALUE")


def as_bytes(key: Key) -> bytes:
    return key.encode() if isinstance(key, str) else key


def b64(data: bytes) -> str:
    """A key or value as it stands in JSON."""
    return base64.b64encode(data).decode()


def unb64(text: str | None) -> bytes:
    return base64.b64decode(text) if text else b""


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with ``prefix``."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


def key_range(
    key: Key, range_end: Key | None = None, *, prefix: bool = False, from_key: bool = False
) -> Message:
    """``key`` and ``range_end`` of a request. Raises ValueError where more than one end is given."""
    if (range_end is not None) + prefix + from_key > 1:
        raise ValueError("range_end, prefix and from_key exclude one another: give one of them")
    begin = as_bytes(key)
    if prefix:
        return {"key": b64(begin or b"\0"), "range_end": b64(prefix_end(begin))}
    if from_key:
        return {"key": b64(begin or b"\0"), "range_end": b64(b"\0")}
    if range_end is not None:
        return {"key": b64(begin), "range_end": b64(as_bytes(range_end))}
    return {"key": b64(begin)}


def range_request(
    selected: Message,
    *,
    limit: int = 0,
    revision: int = 0,
    sort_by: str = "KEY",
    descending: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    serializable: bool = False,
) -> Message:
    if sort_by not in SORT_TARGETS:
        raise ValueError(f"sort_by is {sort_by!r}: expected one of {', '.join(SORT_TARGETS)}")
    request = dict(selected)
    if limit:
        request["limit"] = str(limit)
    if revision:
        request["revision"] = str(revision)
    if descending or sort_by != "KEY":
        request["sort_target"] = sort_by
        request["sort_order"] = "DESCEND" if descending else "ASCEND"
    for name, wanted in (
        ("keys_only", keys_only),
        ("count_only", count_only),
        ("serializable", serializable),
    ):
        if wanted:
            request[name] = True
    return request


def put_request(key: Key, value: Key, *, lease: int = 0, prev_kv: bool = False) -> Message:
    request: Message = {"key": b64(as_bytes(key)), "value": b64(as_bytes(value))}
    if lease:
        request["lease"] = str(lease)
    if prev_kv:
        request["prev_kv"] = True
    return request


def key_value(kv: Message) -> KeyValue:
    return KeyValue(
        unb64(kv.get("key")),
        unb64(kv.get("value")),
        int(kv.get("create_revision", 0)),
        int(kv.get("mod_revision", 0)),
        int(kv.get("version", 0)),
        int(kv.get("lease", 0)),
    )


def event(message: Message) -> Event:
    previous = message.get("prev_kv")
    return Event(
        message.get("type", "PUT"), key_value(message["kv"]), key_value(previous) if previous else None
    )


def revision_of(answer: Message) -> int:
    return int(answer.get("header", {}).get("revision", 0))


def range_result(answer: Message, revision: int) -> RangeResult:
    kvs = tuple(map(key_value, answer.get("kvs", ())))
    return RangeResult(kvs, int(answer.get("count", 0)), bool(answer.get("more")), revision)


def put_result(answer: Message, revision: int) -> PutResult:
    return PutResult(revision, key_value(answer["prev_kv"]) if "prev_kv" in answer else None)


def delete_result(answer: Message, revision: int) -> DeleteResult:
    previous = tuple(map(key_value, answer.get("prev_kvs", ())))
    return DeleteResult(revision, int(answer.get("deleted", 0)), previous)


def txn_result(answer: Message, revision: int) -> TxnResult:
    responses = tuple(_operation_result(one, revision) for one in answer.get("responses", ()))
    return TxnResult(bool(answer.get("succeeded")), revision, responses)


_RESULTS: dict[str, Callable[[Message, int], OperationResult]] = {
    "response_range": range_result,
    "response_put": put_result,
    "response_delete_range": delete_result,
    "response_txn": txn_result,
}


def _operation_result(response: Message, revision: int) -> OperationResult:
    [(name, answer)] = response.items()
    return _RESULTS[name](answer, revision)


# What goes over the wire.


def encode(message: Message) -> bytes:
    return orjson.dumps(message)


def decode(status: int, body: bytes) -> Message:
    """The answer to a unary call. Raises ServerError: the refusal, or what is no answer of a gateway."""
    try:
        answer = orjson.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        text = body.decode("utf-8", "replace").strip()
        error = ServerError(f"the server answered {status} {text[:200]}")
        error.maybe_done = status >= 500
        raise error
    if status != 200:
        raise refusal(answer)
    return answer


def decode_frame(line: bytes) -> Message:
    """One result of a stream. Raises ServerError where the stream ends with a refusal."""
    frame = orjson.loads(line)
    if "error" in frame:
        raise refusal(frame)
    result: Message = frame["result"]
    return result


def refusal(answer: Message) -> ServerError:
    """What a unary call or a stream ends with, of either generation of gateways."""
    error = answer.get("error")
    if isinstance(error, dict):
        return server_error(error.get("message", ""), int(error.get("grpc_code") or error.get("code", 2)))
    return server_error(error or answer.get("message", ""), answer.get("code", 2))


class Lines:
    """Bytes as they come → whole lines."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        *lines, rest = data.split(b"\n")
        if not lines:
            self._pieces.append(rest)
            return []
        lines[0] = b"".join([*self._pieces, lines[0]])
        self._pieces = [rest] if rest else []
        return [line for line in lines if line]
