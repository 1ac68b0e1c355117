"""Requests and answers as the JSON gateway has them: pure functions.

64-bit integers are strings there, keys and values base64, and what has its default value is left out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson

from kvorum.errors import (
    UNAVAILABLE,
    UNKNOWN,
    ConnectionFailed,
    ServerError,
    Unavailable,
    server_error,
)
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
    """Raises TypeError for what is neither."""
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, (bytes, bytearray, memoryview)):
        return bytes(key)
    raise TypeError(f"a key or value of type {type(key).__name__}: expected str or bytes")


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
    if type(lease) is not int:
        raise TypeError(f"lease is of type {type(lease).__name__}: expected the id of a lease")
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
    if isinstance(answer, dict):
        if error := _refusal(answer):
            raise error
        if status == 200:
            return answer
    raise _strange(status, body)


def decode_frame(line: bytes) -> Message:
    """One result of a stream. Raises ServerError where the stream ends with a refusal, and ConnectionFailed
    where it ends in something else."""
    try:
        frame = orjson.loads(line)
    except ValueError:
        frame = None
    if isinstance(frame, dict):
        if error := _refusal(frame):
            raise error
        if isinstance(result := frame.get("result"), dict):
            return result
    raise ConnectionFailed(f"the stream ends in {_as_text(line)!r}", maybe_done=True)


def refusal(answer: Message) -> ServerError:
    """What a unary call or a stream ends with, of either generation of gateways."""
    return _refusal(answer) or server_error(str(answer.get("error") or answer.get("message", "")))


def _refusal(answer: Message) -> ServerError | None:
    """None for what is not a gateway's: only those have codes of gRPC."""
    error = answer.get("error")
    told = error if isinstance(error, dict) else answer
    code, message = told.get("grpc_code") or told.get("code"), told.get("message") or error
    if type(code) is not int or not 0 < code <= 16 or not isinstance(message, str):
        return None
    return server_error(message, code)


def _strange(status: int, body: bytes) -> ServerError:
    """Somebody stands between us and the server. He may have passed the request on, unless he says that it
    is wrong."""
    is_passing = status in (429, 502, 503, 504)
    text = f"the server answered {status} {_as_text(body)}"
    error = Unavailable(text, UNAVAILABLE) if is_passing else ServerError(text, UNKNOWN)
    error.maybe_done = not 300 <= status < 500 or status in (408, 499)
    return error


def _as_text(body: bytes) -> str:
    return body[:800].decode("utf-8", "replace").strip()[:200]


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

    def rest(self) -> bytes:
        """What came behind the last line, once nothing more will come."""
        rest, self._pieces = b"".join(self._pieces), []
        return rest
