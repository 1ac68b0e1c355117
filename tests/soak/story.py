"""Stories for the judges: what a server, honest or not, says in etcd's JSON, as if it came from a socket."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import orjson

from tests.sim.history import KeepAlive, Operation, WatchLog
from tests.soak.call_wire import note_answer as note_call
from tests.soak.calls import Ask, Call
from tests.soak.clients import Watcher, Workload
from tests.soak.evidence import EVERYTHING, Evidence, Final, judge
from tests.soak.wire import note_answer
from watch.watcher import WatchCreate

Json = dict[str, Any]


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


def kv(key: str, value: str, create: int, mod: int, version: int) -> Json:
    return {
        "key": b64(key),
        "create_revision": str(create),
        "mod_revision": str(mod),
        "version": str(version),
        "value": b64(value),
    }


def put(key: str, value: str, create: int, mod: int, version: int) -> Json:
    return {"kv": kv(key, value, create, mod, version)}


def delete(key: str, mod: int) -> Json:
    return {"type": "DELETE", "kv": {"key": b64(key), "mod_revision": str(mod)}}


class Story:
    """What clients of two nodes ask and are told, in the order in which it is written down."""

    def __init__(self) -> None:
        self.now = 1000.0  # by the machine's monotonic clock
        self.load = Workload([], seed=0, rate=1.0, fail=self._fail, clock=lambda: self.now)
        self._watchers: dict[int, tuple[Watcher, WatchLog]] = {}

    def _fail(self, what: str) -> None:
        raise AssertionError(what)

    def begin(self, request: Any) -> Operation:
        operation = Operation(0, 1, request, self.load.stamp())
        self.load.history.operations.append(operation)
        return operation

    def end(self, operation: Operation, status: int, body: Json) -> None:
        note_answer(operation, status, orjson.dumps(body))
        operation.returned = self.load.stamp()

    def ask(self, request: Any, revision: int, **body: Any) -> Operation:
        operation = self.begin(request)
        self.end(operation, 200, {"header": {"revision": str(revision)}, **body})
        return operation

    def call(self, request: Ask, revision: int, **body: Any) -> Call:
        """Of leases, locks and elections, answered at once."""
        call = self.begin_call(request)
        message: Json = {"header": {"revision": str(revision)}, **body}
        self.end_call(call, 200, {"result": message} if isinstance(request, KeepAlive) else message)
        return call

    def begin_call(self, request: Ask) -> Call:
        call = Call(0, 1, request, self.load.stamp())
        self.load.coordination.calls.append(call)
        return call

    def end_call(self, call: Call, status: int, body: Json) -> None:
        """Status 0: not answered."""
        if status:
            note_call(call, status, orjson.dumps(body))
        call.returned = self.load.stamp()

    def watch(self, node: int, start: int = 2) -> None:
        request = WatchCreate(*EVERYTHING, start_revision=start)
        log = WatchLog(node, request, self.load.stamp())
        self.load.history.watches.append(log)
        self._watchers[node] = Watcher(self.load, node, None, is_random=False, prev_kv=False), log  # type: ignore[arg-type]
        self.hear(node, 1, created=True)

    def hear(self, node: int, revision: int, *events: Json, **more: Any) -> None:
        watcher, log = self._watchers[node]
        result = {
            "header": {"revision": str(revision)},
            **more,
            **({"events": list(events)} if events else {}),
        }
        watcher._heard(log, orjson.dumps({"result": result}))

    def judge(self, finals: dict[int, tuple[int, int]] | None = None) -> None:
        """``finals``: by node, the revision and hash that it has at the end."""
        for _, log in self._watchers.values():
            log.connected = True
        told = [
            Final(node, revision, {"hashkv": hash_}) for node, (revision, hash_) in (finals or {}).items()
        ]
        judge(Evidence(self.load.history, told, [], self.load.coordination))
