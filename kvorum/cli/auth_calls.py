"""What ``auth``, ``user`` and ``role`` have in common: how the server is asked, and most answers shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kvorum.cli import output
from kvorum.cli.absent import named_where_absent
from kvorum.cli.kv import Arguments
from kvorum.cli.raw_text import is_text
from kvorum.cli.settings import (
    EXIT_BAD_ARGUMENTS,
    EXIT_BAD_FEATURE,
    Failure,
    Settings,
    current,
)
from kvorum.gateway import Gateway

Answer = dict[str, Any]


@contextmanager
def asking(settings: Settings) -> Iterator[Gateway]:
    """A gateway whose server is expected to have users and roles. Raises Absent where it has none."""
    with named_where_absent("users and roles"), settings.gateway() as gateway:
        yield gateway


def ask(operation: str, **message: object) -> Answer:
    """A single call."""
    with asking(current()) as gateway:
        return call(gateway, operation, **message)


def call(gateway: Gateway, operation: str, **message: object) -> Answer:
    """Raises Failure for what JSON cannot say, without saying it; the server's refusals go through."""
    for field, value in message.items():
        if isinstance(value, str) and not is_text(value):
            raise Failure(f"the {field} is not UTF-8: expected text", EXIT_BAD_ARGUMENTS)
    return gateway.call(f"/v3/auth/{operation}", message)


def change(operation: str, done: bytes | str, **message: object) -> None:
    """Have something changed, and say ``done``. A format that cannot be had is refused before, unlike
    etcdctl's, which says so when all is done."""
    settings = current()
    output.refuse_table(settings)
    answer = ask(operation, **message)
    if settings.write_out == "json":
        output.write_json(output.as_go(answer))
    elif settings.write_out == "fields":
        output.write_lines(output.header_fields(answer["header"]))
    else:
        output.write((done if isinstance(done, bytes) else done.encode()) + b"\n")


def tell(operation: str, lines: Callable[[Answer], list[str]], **message: object) -> None:
    """Ask something, and show the answer as JSON or in these lines: etcdctl knows no other form of it."""
    settings = current()
    output.refuse_table(settings)
    if settings.write_out == "fields":
        raise Failure("fields not supported as output format", EXIT_BAD_FEATURE)
    answer = ask(operation, **message)
    if settings.write_out == "json":
        output.write_json(output.as_go(answer))
    else:
        output.write_lines(lines(answer))


def exactly(count: int, arguments: Arguments, problem: str) -> None:
    if len(arguments) != count:
        raise Failure(problem, EXIT_BAD_ARGUMENTS)
