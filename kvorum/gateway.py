"""Single requests for the command line: said as they are, answered or refused at once.

Endpoints are tried in turn until one accepts a connection; where none does, that is told without waiting
for one. A request that was sent and not answered is not sent again: a write may have been carried out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kvorum.client import Client
from kvorum.errors import ConnectionFailed
from kvorum.http_sync import SyncStream
from kvorum.keepalive import USUAL, Keepalive
from kvorum.messages import Message, decode_frame, encode
from kvorum.plans import OpenStream, Plan
from kvorum.tls import Tls

T = TypeVar("T")


class Gateway:
    """Times in seconds; ``credentials`` are a user's name and password. A context manager."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        dial_timeout: float = 2.0,
        command_timeout: float = 5.0,
        tls: Tls | None = None,
        credentials: tuple[str, str] | None = None,
        keepalive: Keepalive = USUAL,
    ) -> None:
        user, password = credentials or ("", "")
        self._client = Client(
            endpoints,
            timeout=command_timeout,
            dial_timeout=dial_timeout,
            tls=tls,
            user=user,
            password=password,
            keepalive=keepalive,
        )
        self._core = self._client.core

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def call(self, path: str, message: Message) -> Message:
        """Raises ServerError with the server's own words, or ConnectionFailed."""
        return self._client.run(self._somewhere(lambda at: self._core.call_at(at, path, message)))

    def stream(self, path: str, message: Message, *, idle: float | None = None) -> Iterator[Message]:
        """The results of a streaming call as they come. With ``idle``, raises ConnectionFailed when nothing
        came for so many seconds, be it the first answer. Raises it also when the server hangs up."""
        patience = self._core.timeout if idle is None else idle
        stream = self._client.run(self._somewhere(lambda at: self._open(at, path, message, patience)))
        try:
            while True:
                line = stream.read(threading.TIMEOUT_MAX if idle is None else idle)
                if line is None:
                    raise ConnectionFailed(f"{path}: nothing came within {idle:g} s", maybe_done=True)
                yield decode_frame(line)
        finally:
            stream.close()

    def _open(self, endpoint: str, path: str, message: Message, patience: float) -> Plan[SyncStream]:
        token = yield from self._core.token(self._core.clock() + patience)
        stream: SyncStream = yield OpenStream(endpoint, path, encode(message), token, patience)
        return stream

    def _somewhere(self, ask: Callable[[str], Plan[T]]) -> Plan[T]:
        """At the first endpoint that accepts a connection."""
        endpoints, failures = self._core.endpoints, []
        for _ in range(len(endpoints)):
            endpoint = endpoints.current
            try:
                return (yield from ask(endpoint))
            except ConnectionFailed as error:
                if error.maybe_done:
                    raise
                failures.append(str(error))
                endpoints.failed(endpoint)
        raise ConnectionFailed("; ".join(failures), maybe_done=False)
