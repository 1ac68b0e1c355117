"""What a server can be told, by flag or environment, checked before anything is touched.

Flags have etcd's names; ``--data-dir`` can also be given as ``KVORUM_DATA_DIR``, and so
on for each. A flag wins over the environment.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_CLIENT_URL = "http://127.0.0.1:2379"
DEFAULT_PEER_URL = "http://localhost:2380"


class ConfigError(Exception):
    """A setting is wrong; the message names it and says what was expected."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server's settings. Times are in milliseconds, as in etcd's flags."""

    name: str = "default"
    data_dir: Path = field(default_factory=lambda: Path("default.kvorum"))
    listen_client_urls: tuple[str, ...] = (DEFAULT_CLIENT_URL,)
    advertise_client_urls: tuple[str, ...] = (DEFAULT_CLIENT_URL,)
    initial_advertise_peer_urls: tuple[str, ...] = (DEFAULT_PEER_URL,)
    initial_cluster_token: str = "etcd-cluster"
    heartbeat_interval: int = 100
    election_timeout: int = 1000
    snapshot_count: int = 10_000
    max_txn_ops: int = 128
    max_request_bytes: int = 1_572_864
    watch_progress_notify_interval: int = 600_000
    # How long a client may take over a request: idle or in the middle of its head, and in its body.
    http_idle_timeout: int = 75_000
    http_body_timeout: int = 10_000
    log_level: str = "info"

    def __post_init__(self) -> None:
        for urls, flag in (
            (self.listen_client_urls, "--listen-client-urls"),
            (self.advertise_client_urls, "--advertise-client-urls"),
            (self.initial_advertise_peer_urls, "--initial-advertise-peer-urls"),
        ):
            if not urls:
                raise ConfigError(f"{flag} is empty: give at least one URL such as {DEFAULT_CLIENT_URL}.")
            for url in urls:
                listen_address(url, flag)
        for value, flag, least in (
            (self.heartbeat_interval, "--heartbeat-interval", 1),
            (self.snapshot_count, "--snapshot-count", 1),
            (self.max_txn_ops, "--max-txn-ops", 1),
            (self.max_request_bytes, "--max-request-bytes", 1),
            (self.watch_progress_notify_interval, "--watch-progress-notify-interval", 100),
            (self.http_idle_timeout, "--http-idle-timeout", 1),
            (self.http_body_timeout, "--http-body-timeout", 1),
        ):
            if value < least:
                raise ConfigError(f"{flag} is {value}: expected {least} or more.")
        if not 5 * self.heartbeat_interval <= self.election_timeout <= 50_000:
            raise ConfigError(
                f"--election-timeout is {self.election_timeout} ms: expected between 5 times"
                f" --heartbeat-interval ({5 * self.heartbeat_interval} ms) and 50000 ms."
            )

    @property
    def election_ticks(self) -> int:
        return self.election_timeout // self.heartbeat_interval


def listen_address(url: str, flag: str) -> tuple[str, int]:
    """The host and port of a URL given for ``flag``; ConfigError where it is none."""
    problem = f"{flag} has {url!r}: expected http://HOST:PORT."
    parts = urlsplit(url)
    if parts.scheme == "https":
        raise ConfigError(f"{flag} has {url!r}: TLS is not there yet, only http:// works.")
    try:
        port = parts.port
    except ValueError:
        raise ConfigError(problem) from None
    if parts.scheme != "http" or not parts.hostname or port is None or parts.path not in ("", "/"):
        raise ConfigError(problem)
    return parts.hostname, port


def urls_from(value: str) -> tuple[str, ...]:
    """A comma-separated list, as etcd's flags take it."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def is_loopback(hosts: Sequence[str]) -> bool:
    """Whether all these hosts are reachable from this machine only."""
    return all(_host_is_loopback(host) for host in hosts)


def _host_is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
