"""A small blocking client of the JSON gateway: one connection, several endpoints.

Endpoints are tried in turn until one accepts a connection. A request that was sent and not
answered is not sent again: a write may have been carried out.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from kvorum.errors import ConnectionFailed, KvorumError, ServerError
from kvorum.messages import decode, refusal
from kvorum.tls import Tls

_AUTHENTICATE = "/v3/auth/authenticate"
_NO_AUTHENTICATION = "etcdserver: authentication is not enabled"


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
    ) -> None:
        if not endpoints:
            raise KvorumError("no endpoint is given: expected at least one HOST:PORT")
        self._endpoints = list(endpoints)
        self._dial_timeout = dial_timeout
        self._command_timeout = command_timeout
        self._tls = tls or Tls()
        self._credentials = credentials
        self._token = ""
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self, path: str, message: dict[str, Any]) -> dict[str, Any]:
        """Raises ServerError with the server's own words, or ConnectionFailed."""
        response = self._send(path, message)
        try:
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unanswered(path, error) from error
        return decode(response.status, body)

    def stream(
        self, path: str, message: dict[str, Any], *, idle: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """The results of a streaming call as they come; ends when the server hangs up. With ``idle``, raises
        ConnectionFailed when nothing came for so many seconds, be it the first answer."""
        response = self._send(path, message, idle)
        if response.status != 200:
            decode(response.status, response.read())
        assert self._connection is not None
        if self._connection.sock is not None:
            self._connection.sock.settimeout(idle)
        try:
            while line := response.readline():
                frame = json.loads(line)
                if "error" in frame:
                    raise refusal(frame)
                yield frame["result"]
        except (OSError, http.client.HTTPException, ValueError) as error:  # also a frame cut off
            raise self._unanswered(path, error) from error

    def _send(
        self, path: str, message: dict[str, Any], timeout: float | None = None
    ) -> http.client.HTTPResponse:
        if self._credentials and not self._token and path != _AUTHENTICATE:
            self._token = self._new_token(*self._credentials)
        connection = self._connection or self._connect()
        if timeout is not None:
            connection.sock.settimeout(timeout)
        body = json.dumps(message).encode()
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = self._token
        try:
            connection.request("POST", path, body, headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._unanswered(path, error) from error

    def _new_token(self, name: str, password: str) -> str:
        try:
            return str(self.call(_AUTHENTICATE, {"name": name, "password": password})["token"])
        except ServerError as error:
            if error.message != _NO_AUTHENTICATION:
                raise
            self._credentials = None  # as Go's client does: such a server asks nobody
            return ""

    def _connect(self) -> http.client.HTTPConnection:
        failures = []
        for endpoint in self._endpoints:
            try:
                connection = self._open(endpoint)
                connection.connect()
            except (OSError, ValueError) as error:
                failures.append(f"{endpoint}: {error}")
                continue
            connection.sock.settimeout(self._command_timeout)
            self._connection = connection
            return connection
        raise ConnectionFailed(f"cannot connect to {'; '.join(failures)}", maybe_done=False)

    def _open(self, endpoint: str) -> http.client.HTTPConnection:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if not parts.hostname or parts.scheme not in ("http", "https"):
            raise ValueError("expected HOST:PORT or http(s)://HOST:PORT")
        port = parts.port or 2379
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                parts.hostname, port, timeout=self._dial_timeout, context=self._tls.context()
            )
        return http.client.HTTPConnection(parts.hostname, port, timeout=self._dial_timeout)

    def _unanswered(self, path: str, error: Exception) -> ConnectionFailed:
        self.close()
        reason = "no answer within the command timeout" if isinstance(error, TimeoutError) else str(error)
        reason = reason or "the server hung up"
        return ConnectionFailed(f"{path}: {reason}; it is unknown whether it was done", maybe_done=True)
