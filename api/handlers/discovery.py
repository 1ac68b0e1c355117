"""Registered services for Prometheus: what ``http_sd_configs`` asks for.

The read is linearizable: from a member that is cut off, or behind, Prometheus would take targets that are
gone and miss new ones, while at an error it keeps the targets that it has. So where there is no quorum, an
error is the better answer. It asks once a minute, so the price does not matter.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from api.discovery import PREFIX, target_groups
from api.errors import BadRequest
from api.http import JSON, Context
from kvstate.commands import Range, RangeResponse

RECORDS_PER_TURN = 200
"""More records than this are not read in one go: it would take a millisecond or more."""
_PARAMETERS = ("name", "tag")


async def prometheus(context: Context, request: web.BaseRequest) -> web.StreamResponse:
    """All instances, or those of one of the services ``?name=``, with each of the tags ``?tag=``."""
    query = request.query
    for parameter in query:
        if parameter not in _PARAMETERS:
            raise BadRequest(f"unknown parameter {parameter!r}: expected {' or '.join(_PARAMETERS)}")
    names, tags = query.getall("name", []), query.getall("tag", [])
    end = PREFIX[:-1] + bytes([PREFIX[-1] + 1])
    reply = await context.service.range(Range(PREFIX, end))
    assert isinstance(reply.response, RangeResponse)
    kvs = reply.response.kvs
    groups: list[dict[str, Any]] = []
    for begin in range(0, len(kvs), RECORDS_PER_TURN):
        if begin:
            await context.service.turns.next()
        groups += target_groups(kvs[begin : begin + RECORDS_PER_TURN], names, tags)
    return web.Response(body=orjson.dumps(groups), headers=JSON)


PAGES = {"/v1/services/prometheus": prometheus}
