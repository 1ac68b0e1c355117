"""Members that tests start one by one, each with flags of its own, as real processes.

    n1, n2, n3 = nodes(tmp_path, 3)
    n1.start(initial_cluster_token="mine")      # flags in snake_case; None leaves one out
    ...
    assert n1.exit_code() == 1
    assert n1.last_words() == "kvorum: …"       # there was exactly one such line, and no traceback

``running`` stops whatever was started inside it, and kills it where the test has failed. Where a whole
cluster is wanted that simply works, ``tests.common.clusters`` is shorter.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.common.ports import free_ports
from tests.common.processes import KVORUM_SERVE
from tests.common.servers import START_SECONDS, Server

QUICK = {"heartbeat_interval": "50", "election_timeout": "500"}
"""Elections that do not wait for long, yet survive a busy machine."""


class Node:
    """One member's place: name, ports, data directory, log. ``server`` is its present process."""

    def __init__(self, name: str, directory: Path, client_port: int, peer_port: int) -> None:
        self.name = name
        self.port = client_port
        self.client_url = f"http://127.0.0.1:{client_port}"
        self.peer_url = f"http://127.0.0.1:{peer_port}"
        self.data_dir = directory / name
        self.log = directory / f"{name}.log"
        self.founders: Sequence[Node] = (self,)
        self.flags: dict[str, str | None] = {}  # of every start, where the start does not say otherwise
        self.server: Server | None = None
        self._begin = 0  # where in the log the present process began

    def start(self, **flags: str | None) -> Node:
        """Start it; does not wait for anything."""
        assert not self.is_running, f"{self.name} runs already"
        settings: dict[str, str | None] = {
            "name": self.name,
            "data_dir": str(self.data_dir),
            "listen_client_urls": self.client_url,
            "listen_peer_urls": self.peer_url,
            "initial_cluster": ",".join(f"{one.name}={one.peer_url}" for one in self.founders),
            **QUICK,
            **self.flags,
            **flags,
        }
        command = [*KVORUM_SERVE]
        command += [
            f"--{flag.replace('_', '-')}={value}" for flag, value in settings.items() if value is not None
        ]
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        self.server = Server(command, self.port, self.log)
        return self

    @property
    def is_running(self) -> bool:
        return self.server is not None and self.server.process.poll() is None

    def wait_until_healthy(self) -> Node:
        assert self.server is not None
        self.server.wait_until_healthy()
        return self

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.server is not None
        return self.server.stop()

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()

    def said(self) -> str:
        """What the present process has written."""
        return self.log.read_bytes()[self._begin :].decode(errors="replace")

    def wait_until_it_says(self, text: str, seconds: float = START_SECONDS) -> None:
        wait_until(lambda: text in self.said(), seconds, lambda: f"{text!r} was not said:\n{self.said()}")

    def exit_code(self, seconds: float = START_SECONDS) -> int:
        """Wait until it ends by itself."""
        assert self.server is not None
        try:
            return self.server.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end:\n{self.said()}") from None

    def last_words(self) -> str:
        """The one line that it ended with. Beside it there may be log lines, up to warnings."""
        said = self.said()
        words = [line for line in said.splitlines() if line.startswith("kvorum: ")]
        assert len(words) == 1, said
        for trouble in ("Traceback", " ERROR", " CRITICAL", "Task exception", "never retrieved"):
            assert trouble not in said, said
        return words[0]

    def ask(self, path: str, body: object = None, *, timeout: float = 15) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def put(self, key: bytes, value: bytes = b"") -> int:
        """Returns the revision."""
        answer = self.call("/v3/kv/put", {"key": b64(key), "value": b64(value)})
        return int(answer["header"]["revision"])

    def get(self, key: bytes, **options: object) -> bytes | None:
        kvs = self.call("/v3/kv/range", {"key": b64(key), **options}).get("kvs")
        return base64.b64decode(kvs[0].get("value", "")) if kvs else None

    def status(self) -> dict[str, Any]:
        return self.call("/v3/maintenance/status", {})

    @property
    def member_id(self) -> str:
        return str(self.status()["header"]["member_id"])

    def call(self, path: str, body: object = None) -> dict[str, Any]:
        """The answer, which must be a success."""
        status, answer = self.ask(path, body)
        assert status == 200, answer
        return answer


def nodes(directory: Path, size: int, **flags: str | None) -> list[Node]:
    """Members ``n1``, ``n2``, … that found a cluster together, with these flags; not started."""
    ports = free_ports(2 * size)
    made = [Node(f"n{i + 1}", directory, ports[i], ports[size + i]) for i in range(size)]
    for node in made:
        node.founders = made
        node.flags = {"initial_cluster_token": directory.name, **flags}
    return made


def leader_of(members: Sequence[Node], seconds: float = START_SECONDS) -> Node:
    """The one that all of these agree on; waits until they do."""
    found: list[Node] = []

    def agreed() -> bool:
        says = [node.status() for node in members]
        leaders = {one.get("leader") for one in says}
        found[:] = [
            node for node, one in zip(members, says, strict=True) if {one["header"]["member_id"]} == leaders
        ]
        return bool(found)

    wait_until(agreed, seconds, lambda: "no leader was agreed on:\n" + "\n".join(map(Node.said, members)))
    return found[0]


def assert_same_state(members: Sequence[Node]) -> None:
    """Every member has the same keys and the same history."""
    revision = members[0].put(b"hashed")  # what is compacted has no hash
    hashes = {
        (answer["hash"], answer["compact_revision"])
        for answer in (node.call("/v3/maintenance/hashkv", {"revision": revision}) for node in members)
    }
    assert len(hashes) == 1, hashes


class Watch(threading.Thread):
    """Every event of all keys from ``start`` on, as they come: (revision, key, value), in ``events``."""

    def __init__(self, node: Node, start: int = 0) -> None:
        super().__init__(daemon=True)
        self.events: list[tuple[int, bytes, bytes]] = []
        self.end: object = None  # what ended it
        self._connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
        create: dict[str, object] = {"key": b64(b"\0"), "range_end": b64(b"\0")}
        if start:
            create["start_revision"] = start
        self._connection.request("POST", "/v3/watch", json.dumps({"create_request": create}))
        self._response = self._connection.getresponse()
        assert json.loads(self._response.readline())["result"]["created"]
        self.start()

    def run(self) -> None:
        try:
            while line := self._response.readline():
                result = json.loads(line)["result"]
                if result.get("canceled"):
                    self.end = result
                    return
                for event in result.get("events", []):
                    kv = event["kv"]
                    key, value = (base64.b64decode(kv.get(name, "")) for name in ("key", "value"))
                    self.events.append((int(kv["mod_revision"]), key, value))
            self.end = "closed"
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.end = error
        finally:
            self._response.close()
            self._connection.close()

    def wait_for(self, revision: int) -> list[tuple[int, bytes, bytes]]:
        """All events up to this revision."""
        wait_until(
            lambda: self.end or (self.events and self.events[-1][0] >= revision),
            otherwise=lambda: f"no event of revision {revision}, the last is {self.events[-1:]}",
        )
        assert self.end is None, self.end
        return [event for event in self.events if event[0] <= revision]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def start_all(members: Sequence[Node]) -> None:
    """Start these together, and wait until all are healthy."""
    for node in members:
        node.start()
    for node in members:
        node.wait_until_healthy()


@contextlib.contextmanager
def running(members: Sequence[Node]) -> Iterator[None]:
    """What was started of these is stopped behind."""
    try:
        yield
    except BaseException:
        for node in members:
            if node.is_running:
                node.kill()
        raise
    for node in members:
        if node.is_running:
            node.server.process.terminate()
    for node in members:
        if node.server is not None:
            node.stop()


def wait_until(
    condition: Callable[[], object],
    seconds: float = START_SECONDS,
    otherwise: Callable[[], str] = lambda: "waited in vain",
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
