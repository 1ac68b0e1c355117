"""Clients that are closed with the servers they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvorum import Client


class Clients:
    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = endpoints
        self._made: list[Client] = []

    def make(self, **options: Any) -> Client:
        """A client of these endpoints, with ``kvorum.Client``'s options."""
        from kvorum import Client  # whoever brings a client of their own need not load ours

        client = Client(self._endpoints, **options)
        self._made.append(client)
        return client

    def close(self) -> None:
        for client in self._made:
            client.close()
