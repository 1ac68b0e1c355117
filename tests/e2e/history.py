"""What clients did and what they were told: the evidence a crashed node is judged by.

Every write has a value of its own, so an event can be traced to the one request that may
have caused it. A request without an answer may have happened once, or never.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import threading
from dataclasses import dataclass, field


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class History:
    """Filled by writers, judged by ``check_events``. Thread-safe for the writers' use."""

    acknowledged: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)  # revision → key, value
    unknown: dict[bytes, bytes] = field(default_factory=dict)  # value → key, of requests without an answer
    verified_to: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def attempt(self, key: bytes, value: bytes) -> None:
        with self._lock:
            self.unknown[value] = key

    def acknowledge(self, key: bytes, value: bytes, revision: int) -> None:
        with self._lock:
            del self.unknown[value]
            if revision in self.acknowledged:
                raise AssertionError(f"revision {revision} was acknowledged twice")
            self.acknowledged[revision] = (key, value)

    def check_events(self, events: list[dict], current: int) -> None:
        """Judge the store's history after ``verified_to`` up to its revision ``current``."""
        expected = self.verified_to + 1
        for event in events:
            kv = event["kv"]
            key, value = base64.b64decode(kv["key"]), base64.b64decode(kv["value"])
            revision = int(kv["mod_revision"])
            assert revision == expected, f"revision {revision} follows {expected - 1}"
            expected += 1
            if revision in self.acknowledged:
                assert self.acknowledged[revision] == (key, value), (
                    f"revision {revision} was acknowledged as {self.acknowledged[revision]},"
                    f" but holds {(key, value)}"
                )
            else:
                assert self.unknown.pop(value, None) == key, (
                    f"revision {revision} holds {(key, value)}, which nobody wrote or which happened twice"
                )
        assert expected == current + 1, f"the history ends at {expected - 1}, the store is at {current}"
        lost = [revision for revision in self.acknowledged if revision > current]
        assert not lost, f"acknowledged revisions {lost[:5]} are beyond the store's revision {current}"
        self.verified_to = current


class Writer(threading.Thread):
    """Writes as fast as it is answered, until the node is gone."""

    def __init__(self, number: int, port: int, history: History, seed: int) -> None:
        super().__init__(daemon=True)
        self._number = number
        self._port = port
        self._history = history
        self._random = random.Random(seed)
        self.error: Exception | None = None

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            self._write_until_refused(connection)
        finally:
            connection.close()

    def _write_until_refused(self, connection: http.client.HTTPConnection) -> None:
        while True:
            key = b"key/%d" % self._random.randrange(200)
            value = b"%d-%s" % (self._number, self._random.randbytes(12).hex().encode())
            value += b"." * self._random.choice([0, 10, 100, 2000])
            self._history.attempt(key, value)
            try:
                revision = self._write(connection, key, value)
            except (OSError, http.client.HTTPException):
                return
            except Exception as error:
                self.error = error
                return
            self._history.acknowledge(key, value, revision)

    def _write(self, connection: http.client.HTTPConnection, key: bytes, value: bytes) -> int:
        put = {"key": b64(key), "value": b64(value)}
        if self._random.random() < 0.2:
            path, body = "/v3/kv/txn", {"success": [{"request_put": put}]}
        else:
            path, body = "/v3/kv/put", put
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        answer = response.read()
        if response.status == 503:
            raise http.client.HTTPException("the node refuses: outcome unknown")
        assert response.status == 200, answer
        return int(json.loads(answer)["header"]["revision"])


def call(port: int, path: str, body: dict) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return json.loads(answer)
    finally:
        connection.close()


def current_revision(port: int) -> int:
    return int(call(port, "/v3/kv/range", {"key": b64(b"\0"), "count_only": True})["header"]["revision"])


def events_after(port: int, revision: int, current: int) -> list[dict]:
    """Every event from ``revision + 1`` to ``current``, by a watch."""
    if revision >= current:
        return []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        create = {"key": b64(b"\0"), "range_end": b64(b"\0"), "start_revision": str(revision + 1)}
        connection.request("POST", "/v3/watch", json.dumps({"create_request": create}))
        response = connection.getresponse()
        events: list[dict] = []
        while not events or int(events[-1]["kv"]["mod_revision"]) < current:
            frame = json.loads(response.readline())["result"]
            assert not frame.get("canceled"), frame
            events += frame.get("events", [])
        return events
    finally:
        connection.close()
