"""Keys as bench/requests.lua names them, put in transactions over several connections."""

from __future__ import annotations

import base64
import contextlib
import http.client
from concurrent.futures import ThreadPoolExecutor

from bench.clusters import Side

VALUE_BYTES = 128
PUTS_PER_TXN = 100
TXN_BYTES = 1_000_000  # servers take 1.5 MiB
CONNECTIONS = 8


def fill(side: Side, keys: int, first: int = 0, value_bytes: int = VALUE_BYTES) -> None:
    """The keys from number ``first`` until ``keys`` are there."""
    per_txn = max(1, min(PUTS_PER_TXN, TXN_BYTES // value_bytes))
    starts = iter(range(first, keys, per_txn))  # a range's iterator may be shared by threads
    leader = side.leader

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", leader.port, timeout=60)
        with contextlib.closing(connection):
            for start in starts:
                body = transaction(range(start, min(start + per_txn, keys)), value_bytes)
                connection.request("POST", "/v3/kv/txn", body)
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    raise SystemExit(f"{side.name} answered {response.status} while filled: {answer!r}")

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(work) for _ in range(CONNECTIONS)]:
            done.result()


def transaction(numbers: range, value_bytes: int = VALUE_BYTES) -> bytes:
    value = base64.b64encode(b"v" * value_bytes)
    return b'{"success":[%s]}' % b",".join(
        b'{"request_put":%s}' % put_body(key(number), value) for number in numbers
    )


def put_body(key: bytes, encoded_value: bytes) -> bytes:
    """A put; its value is in base64 already, since many have the same."""
    return b'{"key":"%s","value":"%s"}' % (base64.b64encode(key), encoded_value)


def key(number: int) -> bytes:
    return b"bench/key%08d" % number
