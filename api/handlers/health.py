"""Plain pages for machines that ask whether, and what, this is."""

from __future__ import annotations

from aiohttp import web

from api.errors import message_of
from api.http import CORS, JSON, Context
from api.schema.responses import VERSION_BODY, health_body


async def version(context: Context, request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=VERSION_BODY, headers=JSON)


async def health(context: Context, request: web.BaseRequest) -> web.StreamResponse:
    """Healthy is who can serve a linearizable read, or with ?serializable=true any read at all."""
    reason = ""
    if request.query.get("serializable") != "true":
        try:
            await context.service.check_health()
        except Exception as error:
            reason = f"QGET ERROR:{message_of(error)}"
    return web.Response(
        status=503 if reason else 200,
        body=health_body(reason),
        headers={**CORS, "Content-Type": "text/plain; charset=utf-8"},
    )


PAGES = {"/version": version, "/health": health}
