"""What is sent: paths and bodies of one kind of load, one after the other. Pure, but for chance."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from kvorum.messages import b64, encode, key_range
from kvorum.txn import Get, Operation, Put, missing, txn_request
from kvorum.types import PutResult

KINDS = ("put", "get", "range", "txn", "watch")
Request = tuple[str, bytes]


@dataclass(frozen=True)
class Shape:
    """``keys``: so many different ones, below ``prefix``. ``per_range``: keys that a range returns."""

    prefix: bytes
    keys: int
    value_bytes: int
    per_range: int = 100
    per_txn: int = 10
    serializable: bool = False

    def key(self, number: int) -> bytes:
        return b"%b%012d" % (self.prefix, number)


def requests(kind: str, shape: Shape, rng: random.Random) -> Iterator[Request]:
    """Without end."""
    value = rng.randbytes(shape.value_bytes)
    while True:
        number = rng.randrange(shape.keys)
        if kind == "put":
            yield put(shape.key(number), value)
        elif kind == "get":
            message = {"key": b64(shape.key(number)), "serializable": shape.serializable}
            yield "/v3/kv/range", encode(message)
        elif kind == "range":
            first = rng.randrange(max(shape.keys - shape.per_range, 0) + 1)
            selected = key_range(shape.key(first), shape.key(first + shape.per_range))
            yield "/v3/kv/range", encode({**selected, "serializable": shape.serializable})
        else:
            yield _txn(shape, value, rng)


def put(key: bytes, value: bytes) -> Request:
    return "/v3/kv/put", encode({"key": b64(key), "value": b64(value)})


def filling(shape: Shape, rng: random.Random) -> Iterator[list[Operation[PutResult]]]:
    """The keys that there have to be before they can be read, by the hundred."""
    value = rng.randbytes(shape.value_bytes)
    for first in range(0, shape.keys, 100):
        yield [Put(shape.key(number), value) for number in range(first, min(first + 100, shape.keys))]


def _txn(shape: Shape, value: bytes, rng: random.Random) -> Request:
    """One compare, of a key that is never there, and as many puts as wanted."""
    keys = rng.sample(range(shape.keys), min(shape.per_txn, shape.keys))
    puts = [Put(shape.key(number), value) for number in keys]
    guard = shape.prefix + b"never"
    return "/v3/kv/txn", encode(txn_request([missing(guard)], puts, [Get(guard)]))
