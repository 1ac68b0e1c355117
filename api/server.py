"""``kvorum serve``: flags, the listening sockets, signals, and what is printed.

Exit codes: 0 after a signal, 1 when the node cannot start or fails while it runs, 2 for flags
that are wrong.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop
from aiohttp import web

from api.config import ConfigError, ServerConfig, is_loopback, listen_address, urls_from
from api.fast_lane import FastLane
from api.handlers import ROUTES
from api.http import Context, Dispatcher
from api.node import Node, StartRefused
from api.schema.responses import Encoder
from kvstate.errors import StateFault
from raft.core.errors import InvariantViolated
from raft.wal.wal import WalCorrupt, WalFailed, WrongIdentity

log = logging.getLogger("kvorum")
F = TypeVar("F", bound=Callable[..., Any])

HEAD_LINE_BYTES_MAX = 8190
SHUTDOWN_SECONDS = 3.0
_REFUSALS = (StartRefused, StateFault, WalCorrupt, WalFailed, WrongIdentity, InvariantViolated, OSError)


def _option(flag: str, default: Any, help_text: str, **kwargs: Any) -> Callable[[F], F]:
    return click.option(flag, default=default, show_default=True, show_envvar=True, help=help_text, **kwargs)


_D = ServerConfig()


@click.command(context_settings={"auto_envvar_prefix": "KVORUM", "help_option_names": ["-h", "--help"]})
@_option("--name", _D.name, "Human-readable name of this member.")
@_option("--data-dir", None, "Where this member keeps its data.  [default: NAME.kvorum]")
@_option("--listen-client-urls", ",".join(_D.listen_client_urls), "URLs to serve clients on.")
@_option(
    "--advertise-client-urls", None, "URLs that clients are told to use.  [default: --listen-client-urls]"
)
@_option(
    "--initial-advertise-peer-urls",
    ",".join(_D.initial_advertise_peer_urls),
    "This member's peer URLs; with the token they make its id.",
)
@_option("--initial-cluster-token", _D.initial_cluster_token, "Token that makes the cluster's ids unique.")
@_option("--heartbeat-interval", _D.heartbeat_interval, "Milliseconds between heartbeats.")
@_option("--election-timeout", _D.election_timeout, "Milliseconds without a leader before an election.")
@_option("--snapshot-count", _D.snapshot_count, "Entries applied before older ones are dropped from the log.")
@_option("--max-txn-ops", _D.max_txn_ops, "Operations allowed in one transaction.")
@_option("--max-request-bytes", _D.max_request_bytes, "Size of the largest request accepted.")
@_option(
    "--watch-progress-notify-interval",
    _D.watch_progress_notify_interval,
    "Milliseconds between progress notifications of idle watches.",
)
@_option(
    "--http-idle-timeout",
    _D.http_idle_timeout,
    "Milliseconds until a client without a request is hung up on.",
)
@_option(
    "--http-body-timeout",
    _D.http_body_timeout,
    "Milliseconds a request's body may stop coming in the middle.",
)
@_option(
    "--log-level", _D.log_level, "How much to log.", type=click.Choice(["debug", "info", "warning", "error"])
)
def serve(**flags: Any) -> None:
    """Run a Kvorum server.

    Without flags it is a working single node on 127.0.0.1:2379 that keeps its data in
    ./default.kvorum. Every flag can also be given as an environment variable.
    """
    try:
        config = _config_from(flags)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if not __debug__:
        raise click.ClickException("Python's -O takes the invariants out of this program: run it without.")
    _set_up_logging(config.log_level)
    sys.exit(uvloop.run(_run(config)))


def main(argv: list[str]) -> int:
    """Run ``kvorum serve`` with these arguments; returns the exit code."""
    try:
        serve.main(argv, prog_name="kvorum serve", standalone_mode=True)
    except SystemExit as finished:
        return int(finished.code or 0)
    return 0


def _config_from(flags: dict[str, Any]) -> ServerConfig:
    listen = urls_from(flags["listen_client_urls"])
    advertise = flags["advertise_client_urls"]
    return dataclasses.replace(
        ServerConfig(),
        **{
            **flags,
            "data_dir": Path(flags["data_dir"] or f"{flags['name']}.kvorum"),
            "listen_client_urls": listen,
            "advertise_client_urls": listen if advertise is None else urls_from(advertise),
            "initial_advertise_peer_urls": urls_from(flags["initial_advertise_peer_urls"]),
        },
    )


def _set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    if level != "debug":
        # It reports every malformed request with a traceback: anyone could fill the disk with those.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


async def _run(config: ServerConfig) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        node = await Node.open(config)
    except _REFUSALS as error:
        print(f"kvorum: {error}", file=sys.stderr)
        return 1
    listener = Listener(node)
    try:
        await listener.open()
    except OSError as error:
        print(f"kvorum: cannot listen for clients: {error}", file=sys.stderr)
        await node.stop()
        return 1
    _greet(config)
    failed = await _until_stopped(node, stop)
    if failed is not None:
        print(f"kvorum: this node has failed and stops: {failed}", file=sys.stderr)
    await listener.close()
    try:
        await node.stop()
    except _REFUSALS as error:
        failed = failed or error
        print(f"kvorum: stopping: {error}", file=sys.stderr)
    return 0 if failed is None else 1


class Listener:
    """The sockets that clients connect to: the fast lane, and aiohttp behind it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        config = node.config
        idle_seconds = config.http_idle_timeout / 1000
        encoder = Encoder(node.cluster_id, node.member_id)
        context = Context(node.service, encoder, config.max_request_bytes, config.http_body_timeout / 1000)
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
        self._lane = FastLane(context, ROUTES, self._http, idle_seconds)
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
        self._http.pre_shutdown()
        await self._lane.close(SHUTDOWN_SECONDS)
        await self._http.shutdown(SHUTDOWN_SECONDS)


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
