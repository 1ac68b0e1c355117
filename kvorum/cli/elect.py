"""elect: stand in an election and lead until a signal comes; or see who leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import click

from kvorum.background import finish
from kvorum.cli import kv, output
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.holding import Holding, Interrupted
from kvorum.cli.lock import hold
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, Settings, current
from kvorum.errors import KvorumError
from kvorum.messages import Message, b64, decode_frame, encode, key_range, range_request
from kvorum.operations import RANGE
from kvorum.plans import CloseStream, Core, OpenStream, Plan, ReadFrame, Sleep, is_passing

TTL_SECONDS = 60
IDLE_SECONDS = 20.0
"""A stream that says nothing for so long is asked for anew, at another member."""


@click.command(cls=GoCommand, epilog=examples("kvorum elect leader node-1", "kvorum elect leader --listen"))
@click.argument("arguments", nargs=-1, metavar="NAME [VALUE]")
@click.option("-l", "--listen", is_flag=True, help="Show who leads, now and later.")
@click.option(
    "--ttl",
    default=TTL_SECONDS,
    show_default=True,
    help="Seconds after which another leads if this is no more.",
)
def elect(arguments: kv.Arguments, listen: bool, ttl: int) -> None:
    """Stand in the election NAME with VALUE, and lead until a signal comes; or see who leads."""
    settings = current()
    if not 1 <= len(arguments) <= 2:
        raise Failure(
            "elect takes one election name argument and an optional proposal argument", EXIT_BAD_ARGUMENTS
        )
    if len(arguments) == 1:
        if not listen:
            raise Failure("no proposal argument but -l not set", EXIT_BAD_ARGUMENTS)
        output.refuse_table(settings)
        _listen(settings, to_bytes(arguments[0]))
        return
    if listen:
        raise Failure("proposal given but -l is set", EXIT_BAD_ARGUMENTS)
    name, value = map(to_bytes, arguments)
    try:
        with Holding(settings, name, value, ttl) as holding:
            code = hold(settings, holding, holding.acquire())
    except Interrupted as interrupted:
        code = 128 + interrupted.number
    click.get_current_context().exit(code)


def _listen(settings: Settings, name: bytes) -> None:
    """Every leader and each of its values, whatever member tells it. Ends when no member can be reached."""
    with settings.client() as client:
        finish(client, _observed(client.core, name, lambda result: _show(result, settings)))


def _observed(core: Core, name: bytes, show: Callable[[Message], None]) -> Plan[NoReturn]:
    body, shown, unreachable, ended = encode({"name": b64(name)}), None, 0, 0
    while True:
        endpoint, stream, has_ended = core.endpoints.current, None, True
        try:
            token = yield from core.token(core.deadline(core.timeout))
            stream = yield OpenStream(endpoint, "/v3/election/observe", body, token, IDLE_SECONDS)
            while line := (yield ReadFrame(stream, IDLE_SECONDS)):
                unreachable, has_ended, result = 0, False, decode_frame(line)
                if result["kv"] != shown:
                    shown = result["kv"]
                    show(result)
            has_ended = False  # it is only silent
        except KvorumError as error:
            unreachable = 0 if error.maybe_done else unreachable + 1
            if not is_passing(error) or unreachable == len(core.endpoints):
                raise
        if stream is not None:
            yield CloseStream(stream)
        core.endpoints.failed(endpoint)
        ended = ended + 1 if has_ended else 0  # streams in a row, before they told anything
        if ended:
            yield from _make_sure_that_it_may_be_read(core, name)
            yield Sleep(core.endpoints.pause(ended))


def _make_sure_that_it_may_be_read(core: Core, name: bytes) -> Plan[None]:
    """etcd ends the stream of somebody who may not read it, and says nothing. Raises ServerError."""
    places = key_range(name + b"/", prefix=True)
    try:
        yield from core.call(RANGE, range_request(places, limit=1, keys_only=True), safe=True)
    except KvorumError as error:
        if not is_passing(error):
            raise  # else the next stream tells how things are


def _show(result: dict[str, Any], settings: Settings) -> None:
    kv.show_get({"header": result["header"], "kvs": [result["kv"]]}, settings)
