"""Several ``kvorum lock`` want the same lock, while holders and leaders are killed: never do two hold it."""

from __future__ import annotations

import base64
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from tests.common.nodes import Node, b64, leader_of, nodes, running, start_all, wait_until
from tests.common.servers import ROOT

HOLDER = Path(__file__).with_name("holder.py")
LOCK = "contended"
TTL = 2
CONTENDERS = 3
DISTURBANCES = 3


class Said(NamedTuple):
    """A line of the journal: what a holder said, its fencing token, and the ``kvorum lock`` it runs under."""

    word: str
    token: int
    parent: int


def read(journal: Path) -> list[Said]:
    if not journal.exists():
        return []
    lines = [line.split() for line in journal.read_text().splitlines()]
    return [Said(word, int(token), int(parent)) for word, token, parent in lines]


def begun(journal: Path) -> int:
    return sum(said.word == "begin" for said in read(journal))


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
        self._is_stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        while not self._is_stopped:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            self._process.wait()

    def kill_if(self, pid: int) -> None:
        """SIGKILL, so that nobody gives the lock up."""
        if self._process is not None and self._process.pid == pid:
            self._process.kill()

    def stop(self) -> None:
        self._is_stopped = True
        if self._process is not None:
            self._process.terminate()
        self.join(timeout=30)
        assert not self.is_alive()


def test_never_do_two_hold_it(tmp_path: Path) -> None:
    """By the order of what holders say in one file, and by what the store has taken from them."""
    journal = tmp_path / "journal"
    members = nodes(tmp_path, 3)
    with running(members):
        start_all(members)
        contenders = [Contender(members, journal, seed) for seed in range(CONTENDERS)]
        for one in contenders:
            one.start()
        try:
            for number in range(DISTURBANCES):
                before = begun(journal)
                wait_until(lambda before=before: begun(journal) > before)
                disturb(number, members, contenders, journal)
            before = begun(journal)
            wait_until(lambda: begun(journal) >= before + 3)  # it goes on
        finally:
            for one in contenders:
                one.stop()
        judge(read(journal))
        tokens = [int(value.split()[0]) for value in history(members[0], b"counter")]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) >= 3


def disturb(number: int, members: list[Node], contenders: list[Contender], journal: Path) -> None:
    """By turns: kill who holds the lock, the leader, both."""
    time.sleep(random.Random(number).uniform(0, 0.3))
    if number % 3 != 1:
        holder = read(journal)[-1].parent
        for one in contenders:
            one.kill_if(holder)
    if number % 3 != 0:
        leader = leader_of(members)
        leader.kill()
        leader.start()
        leader.wait_until_healthy()


def judge(journal: list[Said]) -> None:
    """Nothing of a holder comes behind the first word of a later one, nor behind its own last."""
    ended: set[int] = set()
    latest = 0
    for word, token, _ in journal:
        assert token >= latest, f"{word} {token} behind the beginning of {latest}"
        assert word != "begin" or token > latest, f"{token} begins twice"
        assert word != "fenced", f"{token} thought that it held the lock"
        assert token not in ended, f"{word} {token} behind its end"
        latest = token
        if word == "end":
            ended.add(token)
    assert len(ended) >= 2
    assert {token for _, token, _ in journal} - ended, "none was killed"


def history(node: Node, key: bytes) -> list[str]:
    """Every value that a key ever had."""
    values: list[str] = []
    revision = 0
    while kvs := node.call("/v3/kv/range", {"key": b64(key), "revision": str(revision)}).get("kvs"):
        values.append(base64.b64decode(kvs[0]["value"]).decode())
        revision = int(kvs[0]["mod_revision"]) - 1
    return values[::-1]
