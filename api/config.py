"""What a server can be told, checked before anything is touched.

Settings have the names of etcd's flags, and `api.flags` says where they come from: the command
line, the environment, a file. Here is what must be true of them together. Every ConfigError is
one sentence that begins with the flag at fault and says what was expected:

    --name is 'n4', but --initial-cluster has only n1, n2 and n3: expected one of those.

What this does not do: ask the network. Whether a host name means anything, or a port is free, is
seen when it is used.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_CLIENT_URL = "http://127.0.0.1:2379"
DEFAULT_PEER_URL = "http://localhost:2380"
VOTERS_MAX = 7


class ConfigError(Exception):
    """A setting is wrong; the message names it and says what was expected."""


@dataclass(frozen=True, slots=True)
class InitialMember:
    """A member as --initial-cluster names it."""

    name: str
    peer_urls: tuple[str, ...]


REQUEST_BYTES_MAX = 32 << 20
"""Well below what a link between members takes as one message (``raft.link.QUEUE_BYTES_MAX``)."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server's settings. Times are in milliseconds, as in etcd's flags."""

    name: str = "default"
    data_dir: Path = field(default_factory=lambda: Path("default.kvorum"))
    listen_client_urls: tuple[str, ...] = (DEFAULT_CLIENT_URL,)
    advertise_client_urls: tuple[str, ...] = (DEFAULT_CLIENT_URL,)
    # Empty for a node that is alone and listens for no peers.
    listen_peer_urls: tuple[str, ...] = ()
    initial_advertise_peer_urls: tuple[str, ...] = (DEFAULT_PEER_URL,)
    # As given; `founders` is what to start with.
    initial_cluster: tuple[InitialMember, ...] = ()
    initial_cluster_state: str = "new"
    initial_cluster_token: str = "etcd-cluster"
    heartbeat_interval: int = 100
    election_timeout: int = 1000
    initial_election_tick_advance: bool = True
    pre_vote: bool = True
    snapshot_count: int = 10_000
    # Entries before a snapshot that stay in the log, for followers that are a little behind.
    snapshot_catchup_entries: int = 5000
    strict_reconfig_check: bool = True
    max_learners: int = 1
    max_txn_ops: int = 128
    max_request_bytes: int = 1_572_864
    watch_progress_notify_interval: int = 600_000
    # How long a client may take over a request: idle or in the middle of its head, and in its body.
    http_idle_timeout: int = 75_000
    http_body_timeout: int = 10_000
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set(",="):
            raise ConfigError(f"--name is {self.name!r}: expected a name without commas and equals signs.")
        self._check_urls()
        self._check_numbers()
        self._check_cluster()

    @property
    def election_ticks(self) -> int:
        return self.election_timeout // self.heartbeat_interval

    @property
    def founders(self) -> tuple[InitialMember, ...]:
        """The members to start with: --initial-cluster, or where it is not given this one alone."""
        return self.initial_cluster or (InitialMember(self.name, self.initial_advertise_peer_urls),)

    def _check_urls(self) -> None:
        for urls, flag, address_of in (
            (self.listen_client_urls, "--listen-client-urls", listen_address),
            (self.advertise_client_urls, "--advertise-client-urls", listen_address),
            (self.listen_peer_urls, "--listen-peer-urls", peer_address),
            (self.initial_advertise_peer_urls, "--initial-advertise-peer-urls", peer_address),
        ):
            if not urls and flag != "--listen-peer-urls":
                raise ConfigError(f"{flag} is empty: give at least one URL such as {DEFAULT_CLIENT_URL}.")
            for url in urls:
                address_of(url, flag)
            if (twice := _first_repeated(urls)) is not None:
                raise ConfigError(f"{flag} has {twice!r} twice: expected each URL once.")
        for urls, flag, listened, who in (
            (self.advertise_client_urls, "--advertise-client-urls", "--listen-client-urls", "clients"),
            (
                self.initial_advertise_peer_urls,
                "--initial-advertise-peer-urls",
                "--listen-peer-urls",
                "the other members",
            ),
        ):
            for url in filter(_is_wildcard, urls):
                raise ConfigError(
                    f"{flag} has {url!r}, which nobody can connect to: expected the URLs at which {who}"
                    f" reach this member (where it is not given, it is what {listened} says)."
                )

    def _check_numbers(self) -> None:
        for value, flag, least in (
            (self.heartbeat_interval, "--heartbeat-interval", 1),
            (self.snapshot_count, "--snapshot-count", 1),
            (self.snapshot_catchup_entries, "--snapshot-catchup-entries", 1),
            (self.max_learners, "--max-learners", 0),
            (self.max_txn_ops, "--max-txn-ops", 1),
            (self.max_request_bytes, "--max-request-bytes", 1),
            (self.watch_progress_notify_interval, "--watch-progress-notify-interval", 100),
            (self.http_idle_timeout, "--http-idle-timeout", 1),
            (self.http_body_timeout, "--http-body-timeout", 1),
        ):
            if value < least:
                raise ConfigError(f"{flag} is {value}: expected {least} or more.")
        if self.max_request_bytes > REQUEST_BYTES_MAX:
            raise ConfigError(
                f"--max-request-bytes is {self.max_request_bytes}: expected at most {REQUEST_BYTES_MAX},"
                " or the members could not send each other what was written."
            )
        if not 5 * self.heartbeat_interval <= self.election_timeout <= 50_000:
            raise ConfigError(
                f"--election-timeout is {self.election_timeout} ms: expected between 5 times"
                f" --heartbeat-interval ({5 * self.heartbeat_interval} ms) and 50000 ms."
            )

    def _check_cluster(self) -> None:
        if self.initial_cluster_state not in ("new", "existing"):
            raise ConfigError(
                f"--initial-cluster-state is {self.initial_cluster_state!r}: expected new or existing."
            )
        if not self.initial_cluster:
            if self.initial_cluster_state == "existing":
                raise ConfigError(
                    "--initial-cluster-state is existing, but --initial-cluster is not given: expected"
                    " the members of the cluster that this one joins."
                )
            return
        if not self.listen_peer_urls:
            raise ConfigError(
                f"--listen-peer-urls is empty: give at least one URL such as {DEFAULT_PEER_URL}."
            )
        self._check_initial_members()
        self._check_own_urls()

    def _check_initial_members(self) -> None:
        owners: dict[tuple[str, int], str] = {}
        for member in self.initial_cluster:
            for url in member.peer_urls:
                address = peer_address(url, "--initial-cluster")
                if _is_wildcard(url):
                    raise ConfigError(
                        f"--initial-cluster has {url!r}, which nobody can connect to: expected the URL at"
                        f" which the other members reach {member.name}."
                    )
                other = owners.setdefault(address, member.name)
                if other != member.name:
                    raise ConfigError(
                        f"--initial-cluster has {url!r} for {other} and for {member.name}: expected another"
                        " URL for each member."
                    )
            if (twice := _first_repeated(member.peer_urls)) is not None:
                raise ConfigError(
                    f"--initial-cluster has {member.name}={twice} twice: expected each URL once."
                )
        # A cluster that is joined may have learners, and --initial-cluster does not tell them apart.
        joins = self.initial_cluster_state == "existing"
        if len(self.initial_cluster) > VOTERS_MAX + (self.max_learners if joins else 0):
            learners = f" and --max-learners ({self.max_learners}) learners" if joins else ""
            raise ConfigError(
                f"--initial-cluster has {len(self.initial_cluster)} members: expected at most"
                f" {VOTERS_MAX} voters{learners}."
            )

    def _check_own_urls(self) -> None:
        """Refuse where --initial-cluster knows this member by other URLs than it has itself."""
        by_name = {member.name: member.peer_urls for member in self.initial_cluster}
        if self.name not in by_name:
            raise ConfigError(
                f"--name is {self.name!r}, but --initial-cluster has only {_listing(by_name)}: expected one"
                " of those."
            )
        said, own = by_name[self.name], self.initial_advertise_peer_urls
        missing = [url for url in said if url not in own]
        extra = [url for url in own if url not in said]
        if missing and len(said) > 1 and not extra:
            raise ConfigError(
                f"--initial-cluster has {self.name} for {len(said)} URLs, {_listing(said)}, of which"
                f" --initial-advertise-peer-urls has not {_listing(missing)}: expected two names for two"
                " members, or all the URLs of one member in both."
            )
        if missing or extra:
            differences = [f"{_listing(extra)} only in --initial-advertise-peer-urls"] if extra else []
            differences += [f"{_listing(missing)} only in --initial-cluster"] if missing else []
            raise ConfigError(
                "--initial-advertise-peer-urls and --initial-cluster differ about"
                f" {self.name}, with {' and '.join(differences)}: expected the same URLs in both, letter"
                " for letter."
            )


def listen_address(url: str, flag: str) -> tuple[str, int]:
    """The host and port of a URL given for ``flag``; ConfigError where it is none."""
    problem = f"{flag} has {url!r}: expected http://HOST:PORT."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(problem) from None
    if parts.scheme == "https":
        raise ConfigError(f"{flag} has {url!r}: TLS is not there yet, only http:// works.")
    if parts.scheme != "http" or not host or port is None or parts.path not in ("", "/"):
        raise ConfigError(problem)
    if "@" in parts.netloc or "?" in url or "#" in url or any(c.isspace() for c in url):
        raise ConfigError(problem)
    return host, port


def peer_address(url: str, flag: str) -> tuple[str, int]:
    """As `listen_address`, for a URL that members are known by: without even a slash behind the
    port, as in etcd, since a member's id is made of these letters."""
    host, port = listen_address(url, flag)
    if url.endswith("/") or port == 0:
        raise ConfigError(f"{flag} has {url!r}: expected http://HOST:PORT, without a path.")
    return host, port


def urls_from(value: str) -> tuple[str, ...]:
    """A comma-separated list, as etcd's flags take it."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def initial_cluster_from(value: str) -> tuple[InitialMember, ...]:
    """The members in ``n1=http://a:1,n2=http://b:1``; a name that comes several times is one
    member with several URLs."""
    example = f"expected NAME=URL for each member, with commas, such as n1={DEFAULT_PEER_URL}"
    members: dict[str, list[str]] = {}
    for piece in urls_from(value):
        name, _, url = (part.strip() for part in piece.partition("="))
        if not name or not url:
            raise ConfigError(f"--initial-cluster has {piece!r}: {example}.")
        members.setdefault(name, []).append(url)
    if not members:
        raise ConfigError(f"--initial-cluster is empty: {example}.")
    return tuple(InitialMember(name, tuple(urls)) for name, urls in members.items())


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


def _is_wildcard(url: str) -> bool:
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_unspecified
    except ValueError:
        return False


def _first_repeated(urls: Iterable[str]) -> str | None:
    seen: set[tuple[str | None, int | None]] = set()
    for url in urls:
        parts = urlsplit(url)
        if (parts.hostname, parts.port) in seen:
            return url
        seen.add((parts.hostname, parts.port))
    return None


def _listing(words: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
