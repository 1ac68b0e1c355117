"""bench, check perf and top: real servers, and what is said of them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from kvorum import Client
from kvorum.cli.check import MODELS, judge
from kvorum.load.measuring import Measured
from tests.common.clusters import start_kvorum_cluster
from tests.common.commands import KVORUM, command
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server, running, start_etcd

SECONDS = 60.0


def say(arguments: list[str], code: int = 0) -> tuple[str, str]:
    ran = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=False, timeout=SECONDS)
    assert ran.returncode == code, ran.stderr + ran.stdout
    return ran.stdout, ran.stderr


def pass_(arguments: list[str]) -> str:
    """Its output once it passes: on a busy machine some write may take half a second, though not always."""
    for _ in range(5):
        ran = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=False)
        if ran.returncode == 0:
            return ran.stdout
    raise AssertionError(ran.stdout + ran.stderr)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about in {SECONDS} s"


def keys(server: Server, prefix: str) -> int:
    with Client(server.url) as client:
        return client.range(prefix, prefix=True, count_only=True).count


# bench


@pytest.mark.parametrize("kind", ["put", "get", "range", "txn", "watch"])
def test_so_many_are_made_as_are_wanted(kind: str, kvorum_server: Server, key: str) -> None:
    """Each kind of load: all are answered, the figures fit each other, and nothing is left."""
    arguments = ["bench", kind, "--total=100", "--clients=4", "--keys=300", f"--prefix={key}", "-o", "json"]
    found = json.loads(say([*command("kvorum", kvorum_server), *arguments])[0])
    assert found["count"] == (400 if kind == "watch" else 100)
    assert found["errors"] == {}
    took = found["milliseconds"]
    order = ["fastest", "p50", "p90", "p95", "p99", "p99.9", "slowest"]
    assert [took[name] for name in order] == sorted(took[name] for name in order)
    assert 0 < took["fastest"] <= took["mean"] <= took["slowest"]
    assert found["perSecond"] == pytest.approx(found["count"] / found["seconds"], rel=0.05)
    assert keys(kvorum_server, key) == 0


def test_it_writes_what_is_asked_for(kvorum_server: Server, key: str) -> None:
    """Values of that size, below that prefix, and they stay where that is wanted."""
    arguments = ["bench", "put", "--total=50", "--keys=7", "--value-size=1000", f"--prefix={key}", "--keep"]
    say([*command("kvorum", kvorum_server), *arguments])
    with Client(kvorum_server.url) as client:
        found = list(client.items(key))
    assert 1 <= len(found) <= 7
    assert sum(kv.version for kv in found) == 50
    assert {len(kv.value) for kv in found} == {1000}


def test_a_rate_is_kept(kvorum_server: Server, key: str) -> None:
    """Not more than asked for, and for as long as asked for."""
    arguments = ["bench", "put", "--seconds=2s", "--rate=50", f"--prefix={key}", "-o", "json"]
    found = json.loads(say([*command("kvorum", kvorum_server), *arguments])[0])
    assert 50 <= found["count"] <= 101


def test_keys_of_others_are_not_touched(kvorum_server: Server, key: str) -> None:
    """A prefix that is in use is refused, with etcdctl's words and exit code."""
    with Client(kvorum_server.url) as client:
        client.put(f"{key}mine", "1")
    _, error = say([*command("kvorum", kvorum_server), "bench", "put", f"--prefix={key}"], code=3)
    assert error.startswith(f'Error: prefix "{key}" has keys. Delete with ')
    assert keys(kvorum_server, key) == 1


def test_a_server_that_is_not_there_is_a_bad_connection() -> None:
    """Before anything is measured."""
    _, error = say([*KVORUM, f"--endpoints=127.0.0.1:{free_port()}", "bench", "put"], code=2)
    assert "cannot connect to" in error


# check perf


def test_a_healthy_server_passes(kvorum_server: Server, key: str) -> None:
    """With etcdctl's words; the keys are gone."""
    arguments = ["check", "perf", "--duration=2", f"--prefix={key}", "--auto-compact"]
    out = pass_([*command("kvorum", kvorum_server), *arguments])
    out = re.sub(r"\d+\.\d{6}s", "TIME", re.sub(r"revision \d+", "revision N", out))
    assert re.sub(r"is 1[345]\d writes", "is 150 writes", out) == (
        "Compacting with revision N\n"
        "Compacted with revision N\n"
        "PASS: Throughput is 150 writes/s\n"
        "PASS: Slowest request took TIME\n"
        "PASS: Stddev is TIME\n"
        "PASS\n"
    )
    assert keys(kvorum_server, key) == 0


def test_real_etcd_passes_and_is_defragmented(tmp_path: Path) -> None:
    """It answers in chunks where ours gives a length."""
    with running(start_etcd(tmp_path)) as server:
        out = pass_([*command("kvorum", server), "check", "perf", "--duration=2", "--auto-defrag"])
    assert out.startswith(
        f'Defragmenting "127.0.0.1:{server.port}"\nDefragmented "127.0.0.1:{server.port}"\n'
    )
    assert out.endswith("\nPASS\n")


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (
            Measured(took=[0.01] * 100, seconds=1.0),
            "FAIL: Throughput too low: 101 writes/s\nPASS: Slowest request took 0.010000s\n"
            "PASS: Stddev is 0.000000s\nFAIL\n",
        ),
        (
            Measured(took=[0.01] * 149 + [0.6], seconds=1.0),
            "PASS: Throughput is 151 writes/s\nSlowest request took too long: 0.600000s\n"
            "PASS: Stddev is 0.048012s\nFAIL\n",
        ),
        (
            Measured(took=[0.01, 0.45] * 75, seconds=1.0),
            "PASS: Throughput is 151 writes/s\nPASS: Slowest request took 0.450000s\n"
            "Stddev too high: 0.220000s\nFAIL\n",
        ),
        (
            Measured(took=[0.01] * 150, errors=Counter({"no leader": 2}), seconds=1.0),
            "FAIL: too many errors\nFAIL: ERROR(no leader) -> 2\nPASS: Throughput is 151 writes/s\n"
            "PASS: Slowest request took 0.010000s\nPASS: Stddev is 0.000000s\nFAIL\n",
        ),
    ],
)
def test_the_verdict_is_etcdctl_s(
    measured: Measured, words: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """For each thing that can be wrong."""
    assert judge(measured, MODELS["s"]) is False
    assert capfdbinary.readouterr().out.decode() == words


def test_the_exit_code_says_that_it_failed(kvorum_server: Server, key: str) -> None:
    """15,000 writes a second are more than a test's machine bears, or its client makes."""
    arguments = ["check", "perf", "--load=xl", "--duration=1", f"--prefix={key}"]
    out, _ = say([*command("kvorum", kvorum_server), *arguments], code=1)
    assert out.startswith("FAIL: Throughput too low: ")
    assert out.endswith("\nFAIL\n")
    assert keys(kvorum_server, key) == 0


def test_an_unknown_load_is_refused_as_etcdctl_does(kvorum_server: Server) -> None:
    """With its exit code."""
    for tool in ("kvorum", "etcdctl"):
        _, error = say([*command(tool, kvorum_server), "check", "perf", "--load=q"], code=4)
        assert error == "Error: unknown load option q\n"


@pytest.mark.parametrize(
    "words", [("check", "perf"), ("check", "datascale", "--load=m"), ("bench", "put", "--seconds=60s")]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_interrupted_cleans_up(
    words: tuple[str, ...], number: signal.Signals, kvorum_server: Server, key: str
) -> None:
    """No signal leaves keys that were only there for the load."""
    process = subprocess.Popen([*command("kvorum", kvorum_server), *words, f"--prefix={key}"], cwd=ROOT)
    wait_until(lambda: keys(kvorum_server, key))
    process.send_signal(number)
    assert process.wait(SECONDS) == 128 + number
    assert keys(kvorum_server, key) == 0


# top


def test_top_shows_every_member(tmp_path: Path) -> None:
    """Who leads, who does not answer, and how fast the log grows."""
    with start_kvorum_cluster(tmp_path, 3) as cluster:
        endpoints = ",".join(f"127.0.0.1:{member.port}" for member in cluster.members)
        base = [*KVORUM, f"--endpoints={endpoints}", "top", "--once"]
        leader = cluster.leader()
        found = {one["name"]: one for one in json.loads(say([*base, "--interval=100ms", "-o=json"])[0])}
        assert set(found) == {"n1", "n2", "n3"}
        assert {name for name, one in found.items() if one["role"] == "leader"} == {f"n{leader + 1}"}
        assert all(one["health"] and one["dbSize"] and one["latencyMilliseconds"] for one in found.values())
        with subprocess.Popen([*KVORUM, f"--endpoints={endpoints}", "bench", "put", "--rate=50"]) as load:
            wait_until(lambda: keys(cluster.members[leader], "/kvorum-bench/"))
            rates = [one["raftIndexPerSecond"] for one in json.loads(say([*base, "-o=json"])[0])]
            load.send_signal(signal.SIGINT)
        assert all(5 <= rate <= 200 for rate in rates), rates
        killed = (leader + 1) % 3
        cluster.kill(killed)
        out, _ = say([*base, "--interval=100ms"], code=1)
        assert out.startswith(f"2 of 3 members answer · leader n{leader + 1} · revision ")
        [line] = [line for line in out.splitlines() if line.startswith(f"n{killed + 1} ")]
        assert "no answer" in line
        assert "\033" not in out


def test_top_needs_a_terminal(kvorum_server: Server) -> None:
    """And says what to do without one."""
    _, error = say([*command("kvorum", kvorum_server), "top"], code=128)
    assert error == "Error: top needs a terminal: with --once it prints one frame\n"


def test_top_is_drawn_on_a_terminal(kvorum_server: Server) -> None:
    """Again and again, until Ctrl-C, which leaves the terminal as it was."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(KVORUM[0], [*command("kvorum", kvorum_server), "top", "--interval=100ms"])
    shown = b""
    try:
        while shown.count(b"members answer") < 3:
            shown += os.read(terminal, 65_536)
        os.write(terminal, b"\x03")
        while b"\033[?1049l" not in shown:
            shown += os.read(terminal, 65_536)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    finally:
        os.close(terminal)
    assert b"healthy" in shown
