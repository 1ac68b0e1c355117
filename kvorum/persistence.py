"""Asking whichever member answers, again and again: for requests that may be carried out twice.

A member that is stopped, cut off or without a leader costs one try of some seconds, then the next endpoint is
asked. What a server refuses for a reason of the request's own is raised at once.

    ask = Persistence(endpoints, open_gateway)
    ask.call("/v3/lease/keepalive", {"ID": "77"}, until=now() + 5)

Not for several threads at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kvorum.clock import now
from kvorum.errors import KvorumError
from kvorum.gateway import Gateway
from kvorum.plans import is_passing

ROUND_SECONDS = 0.1
"""Between two tries of all endpoints."""


class Persistence:
    """``open_gateway`` makes the client of one endpoint; its timeouts are those of one try."""

    def __init__(self, endpoints: Sequence[str], open_gateway: Callable[[str], Gateway]) -> None:
        self._gateways = [open_gateway(endpoint) for endpoint in endpoints]
        self._at = 0  # who answered last

    def close(self) -> None:
        for gateway in self._gateways:
            gateway.close()

    def call(self, path: str, message: dict[str, Any], *, until: float) -> dict[str, Any]:
        """Raises ServerError, or when ``until`` has passed, what the last try met."""
        failures = 0
        while True:
            try:
                return self._gateways[self._at].call(path, message)
            except KvorumError as error:
                if not is_passing(error) or now() >= until:
                    raise
            failures += 1
            self._go_on()
            if failures % len(self._gateways) == 0:
                time.sleep(min(ROUND_SECONDS, max(0.0, until - now())))

    def stream(self, path: str, message: dict[str, Any], *, idle: float) -> Iterator[dict[str, Any]]:
        """The results of one streaming call, by one member. Raises ConnectionFailed when nothing came for
        ``idle`` seconds, or it was lost; the next call asks another member."""
        gateway = self._gateways[self._at]
        try:
            yield from gateway.stream(path, message, idle=idle)
        except KvorumError:
            self._go_on()
            raise
        finally:
            gateway.close()  # what else comes is nobody's

    def _go_on(self) -> None:
        self._gateways[self._at].close()
        self._at = (self._at + 1) % len(self._gateways)
