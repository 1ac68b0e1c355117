"""Which endpoint is asked next, and how long to wait before: pure.

An endpoint is asked until it fails; then the next one is. Only when all of them have failed is there a pause,
longer from round to round, and at random, so that a thousand clients of a cluster that comes back do not ask
at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from kvorum.errors import KvorumError

DEFAULT_PORT = 2379
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


def parsed(endpoint: str, scheme: str = "http") -> str:
    """As scheme://host:port; with ``scheme`` where it has none. Raises KvorumError with what was expected."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"{scheme}://{endpoint}")
        host, port = parts.hostname or "", DEFAULT_PORT if parts.port is None else parts.port
        if not host.isascii():
            host = host.encode("idna").decode()  # as it stands in headers and certificates
    except ValueError:
        raise _no_endpoint(endpoint) from None
    if parts.username is not None:
        raise KvorumError(f"the endpoint of {host!r} has a user in it: give user= and password= instead")
    has_more = parts.path.strip("/") or parts.query or parts.fragment
    is_name = host.isprintable() and " " not in host
    if not host or not is_name or not port or has_more or parts.scheme not in ("http", "https"):
        raise _no_endpoint(endpoint)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _no_endpoint(given: str) -> KvorumError:
    return KvorumError(f"{given!r} is no endpoint: expected HOST:PORT or http(s)://HOST:PORT")


class Endpoints:
    """In the given order, from a random one on. ``scheme`` is that of those that are given without."""

    def __init__(self, endpoints: str | Iterable[str], rng: random.Random, scheme: str = "http") -> None:
        given = endpoints.split(",") if isinstance(endpoints, str) else endpoints
        self._scheme = scheme
        self._all = [self.parsed(one.strip()) for one in given if one.strip()]
        if not self._all:
            raise KvorumError("no endpoint is given: expected at least one HOST:PORT")
        self._rng = rng
        self._at = rng.randrange(len(self._all))

    def parsed(self, endpoint: str) -> str:
        """It need not be one of these. Raises KvorumError."""
        return parsed(endpoint, self._scheme)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    @property
    def current(self) -> str:
        return self._all[self._at]

    def failed(self, endpoint: str) -> None:
        """The next one is asked from now on, unless that is so already."""
        if endpoint == self.current:
            self._at = (self._at + 1) % len(self._all)

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        rounds, in_round = divmod(failures, len(self._all))
        if not failures or in_round:
            return 0.0
        longest: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(rounds - 1, 16))
        return longest * self._rng.uniform(0.5, 1.0)
