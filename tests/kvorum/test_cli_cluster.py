"""kvorum cluster: with a program that only looks like a member, what it starts and how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kvorum.cli.cluster import PORTS_APART, Member, command_of, plan
from kvorum.cli.settings import Failure
from tests.common.servers import ROOT

FAKE = ROOT / "tests" / "kvorum" / "fake_member.py"
# The command line as it is, but for what it starts as members.
PROGRAM = (
    "import sys; from kvorum.cli import cluster, main;"
    f"cluster.SERVE[:] = [sys.executable, {str(FAKE)!r}];"
    "cluster.STOP_SECONDS = float(sys.argv.pop(1)); main.main()"
)
READY = "The cluster is ready: "

PORTS = range(15_000, 32_000)
"""Linux gives outgoing connections others: nobody happens to have one."""


def free_base(size: int) -> int:
    """A port from which on a cluster of that size finds those it needs."""
    for base in range(PORTS.start + os.getpid() % 10_000, PORTS.stop, 100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(2 * size):
                probe = stack.enter_context(socket.socket())
                probe.bind(("127.0.0.1", base + PORTS_APART * (number // 2) + number % 2))
            return base
    raise AssertionError("no free ports")


class Run:
    """A running ``kvorum cluster``; ``log`` is what has come on stderr so far."""

    def __init__(self, arguments: Sequence[str], stop_seconds: float, environment: dict[str, str]) -> None:
        self.log = ""
        self._came = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(stop_seconds), "cluster", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._came:
                self.log += line
                self._came.notify_all()

    def wait_for(self, text: str) -> None:
        with self._came:
            assert self._came.wait_for(lambda: text in self.log, timeout=15), self.log

    def ready(self) -> str:
        return self.process.stdout.readline()

    def pids(self) -> list[int]:
        """Those of the members, once all have said them."""
        found = [int(pid) for pid in re.findall(r"pid (\d+)", self.log)]
        assert found
        return found

    def end(self) -> int:
        code = self.process.wait(timeout=15)
        self._reader.join()
        return code


@contextlib.contextmanager
def running(
    tmp_path: Path, size: int, *more: str, stop_seconds: float = 10.0, **environment: str
) -> Iterator[Run]:
    where = [f"--data-dir={tmp_path / 'data'}", f"--base-port={free_base(size)}", f"--size={size}"]
    run = Run([*where, *more], stop_seconds, environment)
    try:
        yield run
    finally:
        run.process.kill()
        run.end()
        run.process.stdout.close()
        run.process.stderr.close()


def is_gone(pid: int) -> bool:
    """Whether it has ended; as a zombie it waits only for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def all_gone(pids: Sequence[int]) -> bool:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if all(is_gone(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_members(number: signal.Signals, tmp_path: Path) -> None:
    """Each is told to stop, and says its last words; the exit code is 0."""
    with running(tmp_path, 3) as run:
        assert re.fullmatch(rf"{READY}kvorum --endpoints=127.0.0.1:\d+(,127.0.0.1:\d+){{2}}\n", run.ready())
        run.process.send_signal(number)
        assert run.end() == 0
        assert all_gone(run.pids())
        assert sorted(re.findall("(.*) [|] stops", run.log)) == ["n1     ", "n2     ", "n3     "]
        assert "\033" not in run.log


def test_a_member_that_ends_by_itself_ends_all(tmp_path: Path) -> None:
    """It is said which and how, the others are stopped, and the exit code is 1."""
    with running(tmp_path, 3, FAKE_ENDS="n2:7") as run:
        assert run.end() == 1
        assert "n2      | has had enough\n" in run.log
        assert "cluster | n2 ended by itself, with exit code 7\n" in run.log
        assert all_gone(run.pids())


def test_keep_going(tmp_path: Path) -> None:
    """With --keep-going the others live on, until the last ends or we are stopped."""
    with running(tmp_path, 3, "--keep-going") as run:
        run.ready()
        first, second, third = sorted(run.pids())
        os.kill(first, signal.SIGKILL)
        run.wait_for("ended by itself, killed by SIGKILL")
        os.kill(second, signal.SIGKILL)
        os.kill(third, signal.SIGTERM)
        assert run.end() == 1
        assert "ended by itself, with exit code 0" in run.log


def test_no_member_outlives_us(tmp_path: Path) -> None:
    """Not even when nothing is left to stop them: the kernel does."""
    with running(tmp_path, 2, FAKE_STUBBORN="n1") as run:
        run.ready()
        pids = run.pids()
        run.process.kill()
        assert all_gone(pids)


def test_who_does_not_stop_is_killed(tmp_path: Path) -> None:
    """After a while, and that is said. We were asked to stop, so it is still 0."""
    with running(tmp_path, 2, stop_seconds=0.3, FAKE_STUBBORN="n2") as run:
        run.ready()
        run.process.terminate()
        assert run.end() == 0
        assert "cluster | n2 does not stop: it is killed\n" in run.log
        assert all_gone(run.pids())


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """Who presses Ctrl-C again means it."""
    with running(tmp_path, 2, stop_seconds=1000, FAKE_STUBBORN="n2") as run:
        run.ready()
        run.process.send_signal(signal.SIGINT)
        run.wait_for("n2      | does not listen")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0
        assert all_gone(run.pids())


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    """Nothing is started, and nothing written."""
    base = free_base(3)
    with socket.socket() as other:
        other.bind(("127.0.0.1", base + PORTS_APART + 1))
        other.listen()
        run = Run([f"--data-dir={tmp_path / 'data'}", f"--base-port={base}"], 10, {})
        assert run.process.stdout.read() == ""
        assert run.end() == 1
    assert run.log == (
        f"Error: port {base + PORTS_APART + 1}, which n2 needs, cannot be had (Address already in use):"
        " stop who listens there, or give another --base-port\n"
    )
    assert not (tmp_path / "data").exists()
    run.process.stdout.close()
    run.process.stderr.close()


def test_it_comes_back_as_it_was_or_not_at_all(tmp_path: Path) -> None:
    """Members know each other by their ports: with others, the same data would be of no use."""
    base = free_base(3)
    for size, code in ((2, 0), (2, 0), (3, 1)):
        with running(tmp_path, 3, f"--size={size}", f"--base-port={base}") as run:
            if code == 0:
                run.ready()
                run.process.terminate()
            assert run.end() == code
    assert re.fullmatch(
        rf"Error: .*/data holds a cluster with --size=2 --base-port={base}: give the same, or another"
        r" --data-dir\n",
        run.log,
    )


def test_colours_are_for_terminals(tmp_path: Path) -> None:
    """Each member has its own; NO_COLOR keeps them out."""
    for variables, coloured in (({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)):
        ours, theirs = os.openpty()
        where = [f"--data-dir={tmp_path / str(coloured)}", f"--base-port={free_base(2)}", "--size=2"]
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "10", "cluster", *where],
            stdout=subprocess.PIPE,
            stderr=theirs,
            cwd=ROOT,
            env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **variables},
        ) as process:
            os.close(theirs)
            assert process.stdout.readline().startswith(READY.encode())
            process.terminate()
            assert process.wait(timeout=15) == 0
            log = b""
            with contextlib.suppress(OSError):  # how a terminal says that nobody writes any more
                while piece := os.read(ours, 65536):
                    log += piece
            os.close(ours)
        starts = {line.split(b"pid")[0] for line in log.splitlines() if b"pid" in line}
        if coloured:
            assert starts == {b"\033[36mn1      | \033[0m", b"\033[33mn2      | \033[0m"}
        else:
            assert starts == {b"n1      | ", b"n2      | "}


def test_members_are_started_as_etcds_would_be() -> None:
    """With etcd's flags; what stands behind -- comes last, so that it wins."""
    members = plan(2, Path("d"), 2379)
    assert members == [Member("n1", 2379, Path("d/n1")), Member("n2", 2389, Path("d/n2"))]
    assert command_of(members[1], members, ["serve"], ["--log-level=debug"]) == [
        "serve",
        "--name=n2",
        "--data-dir=d/n2",
        "--listen-client-urls=http://127.0.0.1:2389",
        "--advertise-client-urls=http://127.0.0.1:2389",
        "--listen-peer-urls=http://127.0.0.1:2390",
        "--initial-advertise-peer-urls=http://127.0.0.1:2390",
        "--initial-cluster=n1=http://127.0.0.1:2380,n2=http://127.0.0.1:2390",
        "--initial-cluster-state=new",
        "--initial-cluster-token=kvorum-cluster",
        "--log-level=debug",
    ]


def test_flags_behind_two_dashes_go_to_every_server(tmp_path: Path) -> None:
    """Also those that kvorum itself would understand."""
    with running(tmp_path, 2, "--", "--log-level=debug", "--hex") as run:
        run.ready()
        run.process.terminate()
        run.end()
        for name in ("n1", "n2"):
            assert re.search(
                rf"{name}      [|] started with --name={name} .* --log-level=debug --hex\n", run.log
            )


def test_three_real_servers(tmp_path: Path) -> None:
    """What is written to one is read from another, also after all have been stopped and started."""
    base = free_base(3)
    command = [sys.executable, "-m", "kvorum", "cluster"]
    kvorum = [sys.executable, "-m", "kvorum"]
    for arguments in (["put", "greeting", "hello"], ["put", "greeting", "again"]):
        with subprocess.Popen(
            [*command, f"--data-dir={tmp_path / 'data'}", f"--base-port={base}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        ) as process:
            endpoints = process.stdout.readline().strip().rpartition(" ")[2].partition("=")[2].split(",")
            assert len(endpoints) == 3
            try:
                subprocess.run([*kvorum, "--endpoints", endpoints[0], *arguments], check=True, cwd=ROOT)
                got = subprocess.run(
                    [*kvorum, "--endpoints", endpoints[2], "get", "greeting"],
                    check=True,
                    capture_output=True,
                    text=True,
                    cwd=ROOT,
                )
                assert got.stdout == f"greeting\n{arguments[-1]}\n"
            finally:
                process.terminate()
                assert process.wait(timeout=15) == 0


def test_ports_that_do_not_exist_are_refused() -> None:
    """Seven members need 62 ports."""
    with pytest.raises(Failure, match="7 members would need port 65561"):
        plan(7, Path("d"), 65_500)
    assert plan(7, Path("d"), 65_474)[-1].peer_port == 65_535
