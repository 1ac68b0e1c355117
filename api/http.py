"""HTTP in and out: one table of paths, one place where errors become answers.

The dispatch is a dictionary look-up rather than aiohttp's router: every path here is
fixed, etcd's answers for unknown paths and wrong methods must be met to the byte, and a
put passes through here ten thousand times a second.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from aiohttp import web
from multidict import CIMultiDict

from api.body import read_body
from api.concurrency import Concurrency
from api.errors import BodyStalled, MessageTooLarge, is_expected, kind_of
from api.schema.responses import Encoder, unary_error
from api.service import GRPC_OVERHEAD_BYTES, Service

log = logging.getLogger(__name__)
T = TypeVar("T")

CORS: Final = {
    "Access-Control-Allow-Headers": "accept, content-type, authorization",
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS, PUT, DELETE",
    "Access-Control-Allow-Origin": "*",
}
JSON: Final = CIMultiDict({**CORS, "Content-Type": "application/json"})
GRPC_JSON: Final = CIMultiDict(
    {**CORS, "Content-Type": "application/json", "Grpc-Metadata-Content-Type": "application/grpc"}
)

Answer = bytes | list[bytes]
"""A body, or the pieces of one that is too large to be copied for nothing."""
Unary = Callable[[Service, Encoder, bytes], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler works with."""

    service: Service
    concurrency: Concurrency
    encoder: Encoder
    max_request_bytes: int
    body_stall_seconds: float


Patient = Callable[[Context, bytes], Awaitable[bytes]]
"""A unary call that takes as long as its client waits: when that hangs up, it is cancelled."""
Handler = Callable[[Context, web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Routes:
    """What answers which path: calls and streams are POST, pages GET. Of the unary calls those in
    ``taskless`` await nothing but futures of the loop: no timeouts, locks or sleeps. Of the streams
    ``watches`` are such as a watch lane answers, and those in ``single`` have another way for a body that is
    one flat JSON object, and the whole answer to it."""

    unary: Mapping[str, Unary]
    patient: Mapping[str, Patient]
    streams: Mapping[str, Handler]
    pages: Mapping[str, Handler]
    taskless: frozenset[str]
    watches: frozenset[str] = frozenset()
    single: Mapping[str, Unary] = field(default_factory=dict)


def with_old_paths(routes: Routes) -> Routes:
    """etcd 3.5 still answers the ``/v3beta`` paths of its youth."""

    def both(calls: Mapping[str, T]) -> dict[str, T]:
        return {**calls, **{_old(path): call for path, call in calls.items()}}

    return Routes(
        both(routes.unary),
        both(routes.patient),
        both(routes.streams),
        routes.pages,
        taskless=routes.taskless | set(map(_old, routes.taskless)),
        watches=routes.watches | set(map(_old, routes.watches)),
        single=both(routes.single),
    )


def _old(path: str) -> str:
    return path.replace("/v3/", "/v3beta/", 1)


class Dispatcher:
    """Answers every request of a server; its ``handle`` is what ``aiohttp.web.Server`` calls."""

    def __init__(self, context: Context, routes: Routes) -> None:
        self._context = context
        self._routes = routes
        self._grpc_limit = context.max_request_bytes + GRPC_OVERHEAD_BYTES
        # Base64 makes four bytes of three, and some clients are far over the limit: up to here a
        # body is read to its end, so that its sender gets an answer rather than a reset.
        self._max_body = 4 * self._grpc_limit

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        call = self._routes.unary.get(path)
        try:
            if call is not None and request.method == "POST":
                return await self._call(call, request)
            return await self._handle_other(request, path.partition("?")[0])
        except Exception as error:
            return error_response(error)

    async def _call(self, call: Unary, request: web.BaseRequest) -> web.Response:
        context = self._context
        answer = await call(context.service, context.encoder, await self._body(request))
        body = b"".join(answer) if isinstance(answer, list) else answer
        return web.Response(body=body, headers=GRPC_JSON)

    async def _body(self, request: web.BaseRequest) -> bytes:
        return await read_body(
            request,
            max_bytes=self._max_body,
            stall_seconds=self._context.body_stall_seconds,
            named_limit=self._grpc_limit,
        )

    async def _handle_other(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        routes = self._routes
        if request.method == "OPTIONS":
            return web.Response(headers=CORS)
        if path in routes.pages:
            if request.method not in ("GET", "HEAD"):
                return plain(405, "Method Not Allowed\n", Allow="GET")
            return await routes.pages[path](self._context, request)
        if path in routes.unary or path in routes.patient or path in routes.streams:
            if request.method != "POST":
                return plain(405, "Method Not Allowed\n")
            if path in routes.patient:
                answer = await routes.patient[path](self._context, await self._body(request))
                return web.Response(body=answer, headers=GRPC_JSON)
            if path in routes.streams:
                return await routes.streams[path](self._context, request)
            return await self._call(routes.unary[path], request)
        if path.startswith(("/v3/", "/v3beta/")):
            return plain(404, "Not Found\n")
        return plain(404, "404 page not found\n")


def plain(status: int, text: str, **headers: str) -> web.Response:
    """A short text, as Go's HTTP library sends its errors."""
    all_headers = {
        **CORS,
        "Content-Type": "text/plain; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        **headers,
    }
    return web.Response(status=status, body=text.encode(), headers=all_headers)


def log_unforeseen(error: Exception) -> None:
    """Whoever maintains this hears of a defect; who only made a mistake hears of it himself."""
    if not is_expected(error):
        log.error("a request failed in an unforeseen way", exc_info=error)


def error_response(error: Exception) -> web.Response:
    """What the client gets to hear of an error."""
    log_unforeseen(error)
    response = web.Response(status=kind_of(error).status, body=unary_error(error), headers=JSON)
    if isinstance(error, BodyStalled | MessageTooLarge):
        # The rest of the body is not waited for.
        response.force_close()
    return response
