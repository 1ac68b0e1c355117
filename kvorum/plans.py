"""Plans: what a client does, as generators without I/O; and the plan of one call.

A plan yields an effect, and is sent what came of it, or has its error thrown in:

    Exchange     one request, one answer      → Reply          raises ConnectionFailed
    OpenStream   one request, many answers    → the shell's stream
    ReadFrame    the next line of a stream    → bytes; None when nothing came in time
    CloseStream                               → None
    Sleep        seconds                      → None

What is asked again is said in DESIGN.md. Time is a clock that is handed in: seconds that only grow.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kvorum.clock import seconds
from kvorum.endpoints import Endpoints
from kvorum.errors import (
    ConnectionFailed,
    InvalidToken,
    KvorumError,
    ServerError,
    Unavailable,
    is_unknown_path,
)
from kvorum.messages import Message, decode, encode

AUTHENTICATE = "/v3/auth/authenticate"
SHORTEST_TRY_SECONDS = 0.5
LEAST_SECONDS = 0.05
"""With less than that left nothing is tried again: it would hardly be answered, and of a write that is known
not to be done nobody would know any more."""
_AUTH_NOT_ENABLED = "authentication is not enabled"


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    endpoint: str
    path: str
    body: bytes
    token: str = field(repr=False)  # who reads a traceback need not have it
    timeout: float
    dial_timeout: float = math.inf
    """The time of it that connecting may take."""


@dataclass(frozen=True, slots=True)
class OpenStream:
    endpoint: str
    path: str
    body: bytes
    token: str = field(repr=False)
    timeout: float


@dataclass(frozen=True, slots=True)
class ReadFrame:
    stream: Any
    timeout: float


@dataclass(frozen=True, slots=True)
class CloseStream:
    stream: Any


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


Effect = Exchange | OpenStream | ReadFrame | CloseStream | Sleep
T = TypeVar("T")
Plan = Generator[Effect, Any, T]


class Core:
    """What all plans of a client share: its endpoints, its token, its clock. ``timeout``: seconds that a call
    may take, all tries together."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        timeout: float,
        user: str = "",
        password: str = "",
    ) -> None:
        self.endpoints = endpoints
        self.clock = clock
        self.rng = rng
        self.timeout = seconds("timeout", timeout)
        self._user, self._password = user, password
        self._token = ""

    def deadline(self, timeout: float | None) -> float:
        """By the clock, so many seconds from now; None is for ever."""
        return math.inf if timeout is None else self.clock() + timeout

    def call(
        self, path: str, message: Message, *, safe: bool = False, timeout: float | None = None
    ) -> Plan[Message]:
        """One call. ``safe``: to be carried out twice does no harm. Raises ServerError, or what the last try
        met; ``maybe_done`` of it tells of all tries."""
        timeout = self.timeout if timeout is None else timeout
        return self._call(path, encode(message), safe, timeout, self.clock() + timeout)

    def call_at(self, endpoint: str, path: str, message: Message) -> Plan[Message]:
        """One try, at this endpoint; two where the token has run out."""
        where, body, is_renewed = self.endpoints.parsed(endpoint), encode(message), False
        while True:
            token = yield from self.token(self.clock() + self.timeout)
            reply = yield Exchange(where, path, body, token, self.timeout)
            try:
                return decode(reply.status, reply.body)
            except InvalidToken:
                if not token or is_renewed:
                    raise
                self.forget_token(token)
                is_renewed = True

    def _call(self, path: str, body: bytes, safe: bool, timeout: float, deadline: float) -> Plan[Message]:
        failures, maybe_done, token_renewed = 0, False, False
        while True:
            token = "" if path == AUTHENTICATE else (yield from self._token_for_call(deadline, maybe_done))
            endpoint = self.endpoints.current
            left = max(deadline - self.clock(), 0.001)
            share = left
            if len(self.endpoints) > 1:
                # One that hangs, or is not even there, must leave time for the others.
                share = min(left, max(timeout / len(self.endpoints), SHORTEST_TRY_SECONDS))
            try:
                reply = yield Exchange(endpoint, path, body, token, share if safe else left, share)
                return decode(reply.status, reply.body)
            except KvorumError as error:
                maybe_done = error.maybe_done = error.maybe_done or maybe_done
                if isinstance(error, InvalidToken) and self._user and not token_renewed:
                    self.forget_token(token)
                    token_renewed = True
                    continue
                if not is_passing(error) or (error.maybe_done and not safe):
                    raise
                failures += 1
                self.endpoints.failed(endpoint)
                pause = self.endpoints.pause(failures)
                if self.clock() + pause + LEAST_SECONDS >= deadline:
                    raise
            if pause:
                yield Sleep(pause)

    def _token_for_call(self, deadline: float, maybe_done: bool) -> Plan[str]:
        try:
            return (yield from self.token(deadline))
        except KvorumError as error:
            error.maybe_done = maybe_done  # of the call, which was not sent this time
            raise

    def token(self, deadline: float) -> Plan[str]:
        """The user's token; "" without a user, or where the store has none."""
        if not self._user or self._token:
            return self._token
        body = encode({"name": self._user, "password": self._password})
        try:
            answer = yield from self._call(AUTHENTICATE, body, True, self.timeout, deadline)
        except ServerError as error:
            if _AUTH_NOT_ENABLED in error.message:
                return ""
            if is_unknown_path(error):
                raise ServerError(
                    "this server has no users: leave user and password out", error.code
                ) from None
            raise
        self._token = answer["token"]
        return self._token

    def forget_token(self, token: str) -> None:
        """It was refused. One that somebody else has fetched meanwhile stays."""
        if token == self._token:
            self._token = ""


def is_passing(error: KvorumError) -> bool:
    """Whether it may go better another time, or elsewhere."""
    return isinstance(error, (ConnectionFailed, Unavailable))
