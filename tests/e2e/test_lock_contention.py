"""Several ``kvorum lock`` want the same lock, while holders and leaders are killed: never do two hold it."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.common.nodes import Node, b64, leader_of, nodes, running, start_all, wait_until
from tests.common.servers import ROOT

HOLDER = Path(__file__).with_name("holder.py")
LOCK = "contended"
TTL = 2
CONTENDERS = 3
SECONDS = 20.0


class Contender(threading.Thread):
    """Asks for the lock again and again, with a new process each time."""

    def __init__(self, members: list[Node], journal: Path, seed: int) -> None:
        super().__init__(daemon=True)
        addresses = [f"127.0.0.1:{node.port}" for node in members]
        random.Random(seed).shuffle(addresses)
        self._command = [
            *(sys.executable, "-m", "kvorum", f"--endpoints={','.join(addresses)}"),
            *("lock", f"--ttl={TTL}", LOCK, "--"),
            *(sys.executable, "-S", "-E", str(HOLDER), str(journal), "counter", *addresses),
        ]
        self._stopped = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.codes: list[int] = []
        self.said: list[str] = []

    def run(self) -> None:
        while not self._stopped.is_set():
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            _, error = self._process.communicate()
            self.codes.append(self._process.returncode)
            self.said.append(error.decode())

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def kill(self) -> None:
        """SIGKILL to ``kvorum lock``: nobody gives the lock up."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        self._stopped.set()
        if self._process is not None:
            self._process.terminate()
        self.join(timeout=30)
        assert not self.is_alive()


def read(journal: Path) -> list[tuple[str, int]]:
    if not journal.exists():
        return []
    lines = [line.split() for line in journal.read_text().splitlines()]
    return [(word, int(token)) for word, token in lines]


def holders(journal: Path) -> list[int]:
    return [token for word, token in read(journal) if word == "begin"]


def test_never_do_two_hold_it(tmp_path: Path) -> None:
    """By the order of what holders say in one file, and by what the store has taken from them."""
    journal, rng = tmp_path / "journal", random.Random(1)
    members = nodes(tmp_path, 3)
    with running(members):
        start_all(members)
        contenders = [Contender(members, journal, seed) for seed in range(CONTENDERS)]
        for one in contenders:
            one.start()
        try:
            killed = harass(members, contenders, journal, rng)
            begun = len(holders(journal))
            wait_until(lambda: len(holders(journal)) >= begun + 3)  # it goes on
        finally:
            for one in contenders:
                one.stop()
        members[0].call("/v3/kv/range", {"key": b64(LOCK.encode()), "range_end": "AA=="})
        judge(read(journal), killed)
        counted = history(members[0], b"counter")
    tokens = [int(value.split()[0]) for value in counted]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) > 3


def harass(members: list[Node], contenders: list[Contender], journal: Path, rng: random.Random) -> set[int]:
    """Kill the leader, or who holds the lock, again and again: the tokens of holders that were killed."""
    killed: set[int] = set()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        before = len(holders(journal))
        wait_until(lambda before=before: len(holders(journal)) > before)
        if rng.random() < 0.5:
            found = holders(journal)[-1]
            for one in contenders:
                if rng.random() < 0.7:
                    one.kill()
            if holders(journal)[-1] == found:
                killed.add(found)
        else:
            leader = leader_of(members)
            leader.kill()
            wait_until(lambda before=before: len(holders(journal)) > before + 1)
            leader.start()
            leader.wait_until_healthy()
    return killed


def judge(said: list[tuple[str, int]], killed: set[int]) -> None:
    """Nothing of a holder comes behind the first word of a later one, nor behind its own last."""
    ended: set[int] = set()
    latest = 0
    for word, token in said:
        assert token >= latest, f"{word} {token} behind the beginning of {latest}"
        assert word != "fenced", f"{token} was fenced off while it thought that it held the lock"
        assert word != "begin" or token > latest, f"{token} begins twice"
        assert token not in ended
        latest = token
        if word == "end":
            ended.add(token)
    assert len({token for _, token in said}) > 5
    assert len(ended) > 5


def history(node: Node, key: bytes) -> list[str]:
    """Every value that a key ever had."""
    import base64

    last = node.call("/v3/kv/range", {"key": b64(key)})
    revision = int(last["kvs"][0]["mod_revision"])
    values = []
    while revision:
        answer = node.call("/v3/kv/range", {"key": b64(key), "revision": str(revision)})
        if not answer.get("kvs"):
            break
        [kv] = answer["kvs"]
        values.append(base64.b64decode(kv["value"]).decode())
        revision = int(kv["mod_revision"]) - 1
    return values[::-1]
