"""watch --exec: a command for each change, one at a time, and none left out."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvorum.cli.main
from kvorum import Client
from tests.common.clusters import start_kvorum_cluster
from tests.common.commands import KVORUM
from tests.common.servers import ROOT, Server

SECONDS = 60.0


@contextlib.contextmanager
def watching(endpoints: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*KVORUM, f"--endpoints={endpoints}", "watch", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)  # what is left of a command may hold the pipe


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about in {SECONDS} s"
        time.sleep(0.01)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def store(kvorum_server: Server) -> Iterator[Client]:
    with Client(kvorum_server.url) as client:
        yield client


def test_a_change_is_told_in_the_environment_and_on_standard_input(
    store: Client, kvorum_server: Server, key: str, tmp_path: Path
) -> None:
    """With etcdctl's quotes and without, and the value before it where that is asked for."""
    start = store.put(f"{key}a", 'one "two"\n').revision
    store.put(f"{key}a", "2")
    store.delete(f"{key}a")
    log = tmp_path / "log"
    names = ("$ETCD_WATCH_EVENT_TYPE", "$ETCD_WATCH_KEY", "$ETCD_WATCH_VALUE", "$KVORUM_WATCH_KEY")
    shown = "|".join((*names, "$ETCD_WATCH_REVISION", "$KVORUM_WATCH_PREV_VALUE"))
    command = f'{{ printf "%s\\n" "{shown}"; wc -c; }} >> {log}'
    with watching(f"127.0.0.1:{kvorum_server.port}", key, f"--rev={start}", "--prev-kv", "--exec", command):
        wait_until(lambda: len(lines(log)) == 7)
    assert log.read_text() == (
        f'"PUT"|"{key}a"|"one \\"two\\"\\n"|{key}a|{start}|\n10\n'
        f'"PUT"|"{key}a"|"2"|{key}a|{start + 1}|one "two"\n\n1\n'
        f'"DELETE"|"{key}a"|""|{key}a|{start + 2}|2\n0\n'
    )


def test_values_that_fit_into_no_variable_come_on_standard_input(
    store: Client, kvorum_server: Server, key: str, tmp_path: Path
) -> None:
    """All bytes of them, also where there are zeros among them."""
    value = bytes(range(256)) * 4000
    start = store.put(f"{key}a", value).revision
    out = tmp_path / "out"
    with watching(
        f"127.0.0.1:{kvorum_server.port}",
        key,
        f"--rev={start}",
        f"--exec=cat > {out}.tmp; mv {out}.tmp {out}",
    ):
        wait_until(out.exists)
    assert out.read_bytes() == value


def test_a_batch_is_a_revision(store: Client, kvorum_server: Server, key: str, tmp_path: Path) -> None:
    """One run for a transaction's changes, a line of JSON for each."""
    with store.txn() as txn:
        txn.put(f"{key}a", "1")
        txn.put(f"{key}b", "2")
    store.put(f"{key}c", "3")
    log = tmp_path / "log"
    command = f'{{ echo "$ETCD_WATCH_REVISION $KVORUM_WATCH_COUNT"; cat; }} >> {log}'
    with watching(
        f"127.0.0.1:{kvorum_server.port}", key, f"--rev={txn.revision}", "--batch", "--exec", command
    ):
        wait_until(lambda: len(lines(log)) == 5)
    first, a, b, second, c = lines(log)
    assert [first, second] == [f"{txn.revision} 2", f"{txn.revision + 1} 1"]
    keys = [base64.b64decode(json.loads(line)["kv"]["key"]).decode() for line in (a, b, c)]
    assert keys == [f"{key}a", f"{key}b", f"{key}c"]


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [(["{0}a"], ["a", "ab", "a"]), (["{0}a", "--exact"], ["a", "a"]), (["{0}ab", "{0}c"], ["ab", "b"])],
)
def test_what_is_named_is_a_prefix(
    arguments: list[str], seen: list[str], store: Client, kvorum_server: Server, key: str, tmp_path: Path
) -> None:
    """Unless it is said to be one key, or has an end."""
    start = store.put(f"{key}a", "").revision
    for name in ("ab", "b", "a", "c"):
        store.put(key + name, "")
    log = tmp_path / "log"
    words = [word.format(key) for word in arguments]
    command = f"echo ${{KVORUM_WATCH_KEY#{key}}} >> {log}"
    with watching(f"127.0.0.1:{kvorum_server.port}", *words, f"--rev={start}", f"--exec={command}"):
        wait_until(lambda: lines(log)[-1:] == seen[-1:] and len(lines(log)) >= len(seen))
    assert lines(log) == seen


def test_none_is_left_out_and_never_are_there_two(tmp_path: Path, key: str) -> None:
    """Leaders are killed, and commands take longer than changes: each is run, in order, alone."""
    log, alone = tmp_path / "log", tmp_path / "alone"
    with start_kvorum_cluster(
        tmp_path / "c", 3, "--election-timeout=500", "--heartbeat-interval=50"
    ) as cluster:
        endpoints = [f"127.0.0.1:{member.port}" for member in cluster.members]
        command = (
            f"mkdir {alone} || echo two >> {log}; cat >> {log}; echo >> {log}; sleep 0.01; rmdir {alone}"
        )
        with Client(endpoints, timeout=20) as client:
            start = client.put(f"{key}0", "0").revision
            with watching(",".join(endpoints), key, f"--rev={start}", "--exec", command) as process:
                for number in range(1, 61):
                    if number % 20 == 10:
                        killed = cluster.leader()
                        cluster.kill(killed)
                    client.put(f"{key}{number}", str(number), idempotent=True)
                    if number % 20 == 19:
                        cluster.restart(killed)
                        cluster.wait_until_healthy()
                wait_until(lambda: lines(log)[-1:] == ["60"])
                assert process.poll() is None
    assert "two" not in lines(log)
    # A put that was sent twice was carried out twice; each of these is a change too.
    assert list(dict.fromkeys(lines(log))) == [str(number) for number in range(61)]


def test_a_command_that_fails_is_told_and_the_next_is_run(
    store: Client, kvorum_server: Server, key: str, tmp_path: Path
) -> None:
    """Or the watch ends, and says where it would go on."""
    start = store.put(f"{key}a", "1").revision
    store.put(f"{key}a", "2")
    log = tmp_path / "log"
    command = f"cat >> {log}; exit 3"
    with watching(f"127.0.0.1:{kvorum_server.port}", key, f"--rev={start}", "--exec", command) as process:
        wait_until(lambda: lines(log) == ["12"])
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    assert error.decode().startswith(f"Error: revision {start}: the command ended with exit code 3: cat >> ")
    arguments = [key, f"--rev={start}", "--exec=exit 3", "--stop-on-failure"]
    with watching(f"127.0.0.1:{kvorum_server.port}", *arguments) as process:
        _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert error.decode().rstrip().endswith(f"go on with --rev={start}")


def test_a_command_ends_with_its_watch(
    store: Client, kvorum_server: Server, key: str, tmp_path: Path
) -> None:
    """With all that it has started: it is asked to, and gets its time for it."""
    start = store.put(f"{key}a", "1").revision
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    command = f"trap 'touch {ended}; exit' TERM; touch {begun}; sleep 600 & wait"
    with watching(f"127.0.0.1:{kvorum_server.port}", key, f"--rev={start}", "--exec", command) as process:
        wait_until(begun.exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)
    assert ended.exists()


def test_what_a_command_starts_when_it_ends_is_not_left_behind(
    store: Client, kvorum_server: Server, key: str, tmp_path: Path
) -> None:
    """It has not heard the signal. That nobody is left shows at standard error, which all of them hold."""
    start = store.put(f"{key}a", "1").revision
    begun = tmp_path / "begun"
    command = f"trap 'sleep 600 & exit' TERM; touch {begun}; while :; do sleep 0.02; done"
    with watching(f"127.0.0.1:{kvorum_server.port}", key, f"--rev={start}", "--exec", command) as process:
        wait_until(begun.exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)


def test_a_signal_while_the_command_starts_ends_it_too(
    store: Client, kvorum_server: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when there is a process, and nobody has heard of it yet."""
    started: list[subprocess.Popen[bytes]] = []

    class SignalledPopen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            signal.raise_signal(signal.SIGTERM)

    start = store.put(f"{key}a", "1").revision
    monkeypatch.setattr("kvorum.cli.watch_exec.subprocess.Popen", SignalledPopen)
    words = [f"--endpoints=127.0.0.1:{kvorum_server.port}", "watch", key, f"--rev={start}"]
    with handlers_restored(), pytest.raises(SystemExit) as caught:
        kvorum.cli.main.run([*words, "--exec", "sleep 600"])
    assert caught.value.code == 128 + signal.SIGTERM
    [process] = started
    assert process.returncode == -signal.SIGTERM
    assert process.stdin is not None
    assert process.stdin.closed


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_past_that_is_gone_is_an_error(store: Client, kvorum_server: Server, key: str) -> None:
    """With etcdctl's exit code."""
    start = store.put(f"{key}a", "1").revision
    store.compact(store.put(f"{key}a", "2").revision)
    with watching(f"127.0.0.1:{kvorum_server.port}", key, f"--rev={start}", "--exec=true") as process:
        _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 5
    assert "required revision has been compacted" in error.decode()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a", "--batch"], "--batch, --exact and --stop-on-failure are for --exec"),
        (["a", "--exec=true", "--", "true"], "--exec and a command behind -- exclude one another"),
        (["--exec=true"], "bad number of arguments"),
    ],
)
def test_bad_arguments(arguments: list[str], complaint: str) -> None:
    """Are named before anything is asked of a server."""
    ran = subprocess.run(
        [*KVORUM, "watch", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (ran.returncode, ran.stderr) == (128, f"Error: {complaint}\n")
