"""``kvorum cluster``: a whole cluster on this machine, for development, in one terminal.

Each member is a process of its own, ``kvorum serve`` with the flags a real one would have. This one
starts them, passes on what they log, each line behind its member's name, and stops them all when
it is stopped itself (Ctrl-C, SIGTERM, SIGHUP) or when one of them ends by itself. On Linux they end
even when this process is killed.

One thread per member copies its log and then waits for its end; one asks for their health. All
that happens comes to the main thread through one queue, and only the main thread decides.

For one machine and one person: no TLS, only 127.0.0.1, and no member is ever started again.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TextIO

import click

from kvorum.cli.examples import examples
from kvorum.cli.settings import EXIT_ERROR, Failure

SERVE = [sys.executable, "-m", "kvorum", "serve"]
"""What starts a member; tests put another program here."""
SIZE_MAX = 7
PORTS_APART = 10
"""From one member's client port to the next one's; its peer port is one above its client port."""
STOP_SECONDS = 10.0
HEALTH_SECONDS = 0.1
OURSELVES = "cluster"
_COLOURS = (36, 33, 35, 32, 34, 91, 96)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Member:
    name: str
    client_port: int
    data_dir: Path

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer_port(self) -> int:
        return self.client_port + 1

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"


@click.command(
    epilog=examples("kvorum cluster", "kvorum cluster --size=5 --data-dir=/tmp/five --base-port=12379")
)
@click.option(
    "--size", type=click.IntRange(1, SIZE_MAX), default=3, show_default=True, help="How many members."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("kvorum-cluster"),
    show_default=True,
    help="Where they keep their data: n1, n2, … below it.",
)
@click.option(
    "--base-port",
    type=click.IntRange(1, 65_535),
    default=2379,
    show_default=True,
    help="Client port of n1. n2 has the one 10 above, and so on; each member's peer port is one above"
    " its client port.",
)
@click.option("--keep-going", is_flag=True, help="Do not stop the others when a member ends by itself.")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAGS FOR EVERY SERVER]")
def cluster(size: int, data_dir: Path, base_port: int, keep_going: bool, flags: tuple[str, ...]) -> None:
    """Run a whole cluster on this machine, for development.

    Ctrl-C stops it; started again with the same data directory, it goes on where it was.
    """
    members = plan(size, data_dir, base_port)
    _check_ports(members)
    _remember(data_dir, f"--size={size} --base-port={base_port}")
    supervisor = Supervisor(members, Log(sys.stderr, [one.name for one in members]), keep_going=keep_going)
    click.get_current_context().exit(supervisor.run(SERVE, flags))


def plan(size: int, data_dir: Path, base_port: int) -> list[Member]:
    last_port = base_port + PORTS_APART * (size - 1) + 1
    if last_port > 65_535:
        raise Failure(f"--base-port {base_port} is too high: {size} members would need port {last_port}")
    return [
        Member(f"n{number + 1}", base_port + PORTS_APART * number, data_dir / f"n{number + 1}")
        for number in range(size)
    ]


def command_of(
    member: Member, members: Sequence[Member], program: Sequence[str], flags: Sequence[str]
) -> list[str]:
    url = f"http://{member.endpoint}"
    everybody = ",".join(f"{one.name}={one.peer_url}" for one in members)
    return [
        *program,
        f"--name={member.name}",
        f"--data-dir={member.data_dir}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={member.peer_url}",
        f"--initial-advertise-peer-urls={member.peer_url}",
        f"--initial-cluster={everybody}",
        "--initial-cluster-state=new",
        "--initial-cluster-token=kvorum-cluster",
        *flags,
    ]


def _check_ports(members: Sequence[Member]) -> None:
    """Said here, it is one line; said by the members, it is one of many."""
    for member in members:
        for port in (member.client_port, member.peer_port):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    problem = f"port {port}, which {member.name} needs, cannot be had ({error.strerror})"
                    raise Failure(f"{problem}: stop who listens there, or give another --base-port") from None


def _remember(data_dir: Path, flags: str) -> None:
    """A cluster's members know each other by their ports: it comes back as it was, or not at all."""
    file = data_dir / "flags"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(flags + "\n")
        was = file.read_text().strip()
    except (OSError, ValueError) as error:
        raise Failure(f"the data directory {data_dir} cannot be used: {error}") from None
    if was != flags:
        raise Failure(f"{data_dir} holds a cluster with {was}: give the same, or another --data-dir")


class Log:
    """Lines of several writers, each behind its writer's name, in its colour on a terminal."""

    def __init__(self, stream: TextIO, names: Sequence[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        width = max(len(name) for name in (*names, OURSELVES))
        coloured = wants_colour(stream, os.environ)
        self._prefixes = {OURSELVES: f"{OURSELVES:{width}} | "}
        for number, name in enumerate(names):
            prefix = f"{name:{width}} | "
            colour = _COLOURS[number % len(_COLOURS)]
            self._prefixes[name] = f"\033[{colour}m{prefix}\033[0m" if coloured else prefix

    def write(self, name: str, line: str) -> None:
        # Who reads this may have gone (a closed terminal): then nobody is there to tell.
        with self._lock, contextlib.suppress(OSError):
            self._stream.write(f"{self._prefixes[name]}{line}\n")
            self._stream.flush()


def wants_colour(stream: IO[Any], environment: Mapping[str, str]) -> bool:
    """Only on a terminal that has colours, and not where NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


# What happens.


@dataclass(frozen=True)
class _Interrupted:
    """We are asked to stop."""


@dataclass(frozen=True)
class _AllHealthy:
    pass


@dataclass(frozen=True)
class _Ended:
    name: str
    code: int


class Supervisor:
    """Runs the members of one cluster until something ends it."""

    def __init__(self, members: Sequence[Member], log: Log, *, keep_going: bool) -> None:
        self._members = members
        self._log = log
        self._keep_going = keep_going
        # Its put may be called by a signal's handler, whatever that interrupts.
        self._events: queue.SimpleQueue[_Interrupted | _AllHealthy | _Ended] = queue.SimpleQueue()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()

    def run(self, program: Sequence[str], flags: Sequence[str]) -> int:
        """The exit code: 0 if we were asked to stop, 1 if a member ended by itself."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._events.put(_Interrupted()))
        try:
            self._start(program, flags)
            code = self._until_the_end()
            self._stop()
        finally:
            self._stopping.set()
            for process in self._running.values():
                process.kill()
        return code

    def _start(self, program: Sequence[str], flags: Sequence[str]) -> None:
        # From the main thread and before there are others: a child is bound to the life of the
        # thread that starts it, and what runs between fork and exec must not need a lock of another.
        bind = _binder()
        for member in self._members:
            try:
                self._running[member.name] = subprocess.Popen(
                    command_of(member, self._members, program, flags),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C is for us; they are stopped by us.
                    process_group=0,
                    preexec_fn=bind,
                )
            except OSError as error:
                raise Failure(f"{member.name} cannot be started: {error}") from None
        for name, process in self._running.items():
            threading.Thread(target=self._follow, args=(name, process), daemon=True).start()
        threading.Thread(target=self._ask_for_health, daemon=True).start()

    def _follow(self, name: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._log.write(name, line.decode("utf-8", "replace").rstrip("\r\n"))
        self._events.put(_Ended(name, process.wait()))

    def _ask_for_health(self) -> None:
        waiting = list(self._members)
        while waiting and not self._stopping.is_set():
            waiting = [member for member in waiting if not _is_healthy(member)]
            if not waiting:
                self._events.put(_AllHealthy())
            self._stopping.wait(HEALTH_SECONDS)

    def _until_the_end(self) -> int:
        while True:
            match self._events.get():
                case _Interrupted():
                    return 0
                case _AllHealthy():
                    endpoints = ",".join(member.endpoint for member in self._members)
                    click.echo(f"The cluster is ready: kvorum --endpoints={endpoints}")
                case _Ended(name, code):
                    del self._running[name]
                    self._log.write(OURSELVES, f"{name} ended by itself, {_in_words(code)}")
                    if not self._running or not self._keep_going:
                        return EXIT_ERROR

    def _stop(self) -> None:
        """All at once; who needs longer than STOP_SECONDS, or than a second Ctrl-C, is killed."""
        self._stopping.set()
        for process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while self._running:
            try:
                event = self._events.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                event = _Interrupted()
            match event:
                case _Ended(name, _):
                    del self._running[name]
                case _Interrupted():
                    for name, process in self._running.items():
                        self._log.write(OURSELVES, f"{name} does not stop: it is killed")
                        process.kill()
                    deadline = time.monotonic() + STOP_SECONDS
                case _AllHealthy():
                    pass


def _binder() -> Callable[[], None] | None:
    """What a child does before it becomes a member: it asks to be killed when we die."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # we died before it could ask
            os._exit(EXIT_ERROR)

    return bind


def _is_healthy(member: Member) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", member.client_port, timeout=2)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False


def _in_words(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
