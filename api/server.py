"""Running a node: the listening sockets, signals, and what is printed.

Exit codes: 0 after a signal, 1 when the node cannot start or fails while it runs.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from api.concurrency import Concurrency
from api.config import ServerConfig, is_loopback, listen_address, peer_address
from api.fast_lane import FastLane
from api.handlers import ROUTES
from api.http import Context, Dispatcher
from api.node import Node, Removed, StartRefused
from api.schema.responses import Encoder
from api.watch_lane import WatchLane
from kvstate.errors import StateFault
from raft.core.errors import InvariantViolated
from raft.wal.wal import WalCorrupt, WalFailed, WrongIdentity

log = logging.getLogger("kvorum")

HEAD_LINE_BYTES_MAX = 8190
SHUTDOWN_SECONDS = 3.0
"""How long requests under way may take when the node stops, and those who do not read their answers."""
REMOVAL_SECONDS = 1.0
"""And then, how long the keys of those who have waited for locks may take to be removed."""
_REFUSALS = (StartRefused, StateFault, WalCorrupt, WalFailed, WrongIdentity, InvariantViolated, OSError)


def run_server(config: ServerConfig) -> int:
    """Run a node until a signal or a fault ends it; returns the exit code."""
    return uvloop.run(_run(config))


async def _run(config: ServerConfig) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        _check_ports(config)
        node = await _open_unless_stopped(config, stop)
        if node is None:
            return 0
        listener = Listener(node)
        try:
            await listener.open()
        except OSError:
            await node.stop()
            raise
    except _REFUSALS as error:
        print(f"kvorum: {error}", file=sys.stderr)
        return 1
    _greet(config)
    _tune_garbage_collection()
    failed = await _until_stopped(node, stop)
    if isinstance(failed, Removed):
        print(f"kvorum: {failed}, and stops", file=sys.stderr)
    elif failed is not None:
        print(f"kvorum: this node has failed and stops: {failed}", file=sys.stderr)
    try:
        await node.hand_over()
        await listener.close()
        await node.stop()
    except _REFUSALS as error:
        failed = failed or error
        print(f"kvorum: stopping: {error}", file=sys.stderr)
    return 0 if failed is None or isinstance(failed, Removed) else 1


def _tune_garbage_collection() -> None:
    """What is there now stays; requests make little that refers to itself. Collected less often, a put at
    64 connections has a p99 of 13–18 ms instead of 18–59 ms (three nodes on two busy cores)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _check_ports(config: ServerConfig) -> None:
    """See that all ports can be had before anything is touched. Raises StartRefused."""
    places = [("--listen-client-urls", url, listen_address) for url in config.listen_client_urls]
    places += [("--listen-peer-urls", url, peer_address) for url in config.listen_peer_urls]
    for flag, url, address_of in places:
        host, port = address_of(url, flag)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in found:
                _check_port(family, kind, protocol, address)
        except OSError as error:
            raise StartRefused(f"cannot listen on {url} ({flag}): {error.strerror}") from error


def _check_port(family: int, kind: int, protocol: int, address: Any) -> None:
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        # One of several addresses of a name, such as ::1, may not exist here: whoever listens decides.
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise


async def _open_unless_stopped(config: ServerConfig, stop: asyncio.Event) -> Node | None:
    """The node, when it is ready; None if a signal came first."""
    opening = asyncio.ensure_future(Node.open(config))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if opening.done():
        return opening.result()
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await (await opening).stop()  # it may have become ready at the same moment
    return None


class Listener:
    """The sockets that clients connect to: the fast lane, the watches' lane behind it, and then aiohttp."""

    def __init__(self, node: Node) -> None:
        self._node = node
        config = node.config
        idle_seconds = config.http_idle_timeout / 1000
        encoder = Encoder(node.cluster_id, node.member_id)
        self._concurrency = Concurrency(node.service)
        context = Context(
            node.service,
            self._concurrency,
            encoder,
            config.max_request_bytes,
            config.http_body_timeout / 1000,
        )
        self._http = web.Server(
            Dispatcher(context, ROUTES).handle,
            handler_cancellation=True,
            access_log=None,
            # aiohttp counts this from the connection's start too: a head that never ends is cut off.
            keepalive_timeout=idle_seconds,
            # How long the rest of a refused body is read, so that its sender gets to the answer.
            lingering_time=config.http_body_timeout / 1000,
            max_line_size=HEAD_LINE_BYTES_MAX,
            max_field_size=HEAD_LINE_BYTES_MAX,
            # A body is taken as it comes; what says to be compressed is not JSON.
            auto_decompress=False,
        )
        watches = WatchLane(context, ROUTES, self._http)
        self._lane = FastLane(context, ROUTES, watches, idle_seconds)
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Serve clients on the configured URLs. Raises OSError."""
        loop = asyncio.get_running_loop()
        try:
            for url in self._node.config.listen_client_urls:
                host, port = listen_address(url, "--listen-client-urls")
                self._servers.append(await loop.create_server(self._lane, host, port, backlog=1024))
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        """Take no more requests, let those under way finish, hang up on everybody."""
        for server in self._servers:
            server.close()
        self._node.service.end_watches()
        self._http.pre_shutdown()
        begun = asyncio.get_running_loop().time()
        await self._lane.close(SHUTDOWN_SECONDS)
        rest = max(0.1, SHUTDOWN_SECONDS - (asyncio.get_running_loop().time() - begun))
        await self._http.shutdown(rest / 2)  # which aiohttp waits twice
        await self._concurrency.removals(REMOVAL_SECONDS)


async def _until_stopped(node: Node, stop: asyncio.Event) -> BaseException | None:
    """Wait for a signal (None) or for the node to fail (why)."""
    stopped = asyncio.ensure_future(stop.wait())
    waiting: set[asyncio.Future[Any]] = {stopped, node.failed}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    return node.failed.result() if node.failed.done() else None


def _greet(config: ServerConfig) -> None:
    url = config.listen_client_urls[0]
    print(f"Kvorum serves {', '.join(config.listen_client_urls)}; its data is in {config.data_dir}.")
    print("Try, in another terminal:")
    # Whoever came by scripts/run has the command in an environment that is not on the path.
    program = "kvorum" if shutil.which("kvorum") else str(Path(sys.executable).with_name("kvorum"))
    endpoint = "" if url == ServerConfig().listen_client_urls[0] else f" --endpoints {url}"
    for command in ("put greeting hello", "get greeting", "watch --prefix ''"):
        print(f"  {program}{endpoint} {command}")
    sys.stdout.flush()
    hosts = [listen_address(one, "--listen-client-urls")[0] for one in config.listen_client_urls]
    if not is_loopback(hosts):
        log.warning(
            "anyone who reaches %s can read and write everything: there are no users or TLS yet",
            ", ".join(config.listen_client_urls),
        )
