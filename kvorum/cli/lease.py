"""lease grant, revoke, timetolive, list, keep-alive."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import click

from kvorum.cli import output
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.kv import Arguments, go_integer
from kvorum.cli.settings import (
    EXIT_BAD_ARGUMENTS,
    EXIT_BAD_CONNECTION,
    Failure,
    Settings,
    current,
)
from kvorum.clock import now
from kvorum.errors import AuthenticationFailed, KvorumError, ServerError
from kvorum.leases import GRANT, KEEPALIVE, RENEWALS_PER_TTL, REVOKE

NOT_FOUND = "etcdserver: requested lease not found"
_arguments = click.argument("arguments", nargs=-1, metavar="ID")


@click.group(
    cls=GoGroup, epilog=examples("kvorum lease grant 60", "kvorum lease keep-alive 32695410dcc0ca06")
)
def lease() -> None:
    """Grant leases, keep them alive, end them."""


@lease.command(epilog=examples("kvorum lease grant 60"))
@click.argument("arguments", nargs=-1, metavar="TTL")
def grant(arguments: Arguments) -> None:
    """Make a lease that ends in TTL seconds, and with it all keys attached to it."""
    if len(arguments) != 1:
        raise Failure("lease grant command needs TTL argument", EXIT_BAD_ARGUMENTS)
    try:
        ttl = go_integer(arguments[0], 10)
    except ValueError as problem:
        raise Failure(f"bad TTL ({problem})", EXIT_BAD_ARGUMENTS) from None
    settings, answer = _ask(GRANT, {"TTL": str(ttl)}, failure="failed to grant lease")
    lease_id, granted = int(answer["ID"]), int(answer["TTL"])
    _show(
        settings,
        answer,
        simple=[f"lease {lease_id:016x} granted with TTL({granted}s)"],
        json={"ID": lease_id, "TTL": granted, "Error": ""},
        fields=[("ID", lease_id), ("TTL", granted)],
    )


@lease.command(epilog=examples("kvorum lease revoke 32695410dcc0ca06"))
@_arguments
def revoke(arguments: Arguments) -> None:
    """End a lease now, and delete all keys attached to it."""
    if len(arguments) != 1:
        raise Failure("lease revoke command needs 1 argument", EXIT_BAD_ARGUMENTS)
    lease_id = _lease_id(arguments[0])
    settings, answer = _ask(REVOKE, {"ID": str(lease_id)}, failure="failed to revoke lease")
    if settings.write_out == "json":
        output.write_json({"header": output.as_go(answer["header"])})
    else:
        _show(settings, answer, simple=[f"lease {lease_id:016x} revoked"])


@lease.command(epilog=examples("kvorum lease timetolive 32695410dcc0ca06 --keys"))
@_arguments
@click.option("--keys", is_flag=True, help="Also tell which keys are attached to it.")
def timetolive(arguments: Arguments, keys: bool) -> None:
    """What is left of a lease."""
    if len(arguments) != 1:
        raise Failure("lease timetolive command needs lease ID as argument", EXIT_BAD_ARGUMENTS)
    lease_id = _lease_id(arguments[0])
    settings, answer = _ask("/v3/lease/timetolive", {"ID": str(lease_id), "keys": keys})
    ttl, granted = int(answer.get("TTL", 0)), int(answer.get("grantedTTL", 0))
    attached = [output.raw({"key": key}, "key") for key in answer.get("keys", [])]
    _show(
        settings,
        answer,
        simple=[_time_to_live(lease_id, ttl, granted, attached if keys else None)],
        json={"id": lease_id, "ttl": ttl, "granted-ttl": granted, "keys": answer.get("keys")},
        fields=[
            *(("ID", lease_id), ("TTL", ttl), ("GrantedTTL", granted)),
            *(("Key", output.go_quoted(key)) for key in attached),
        ],
    )


def _time_to_live(lease_id: int, ttl: int, granted: int, keys: list[bytes] | None) -> bytes:
    if ttl == -1 and not granted:
        return b"lease %016x already expired" % lease_id
    told = b"lease %016x granted with TTL(%ds), remaining(%ds)" % (lease_id, granted, ttl)
    return told if keys is None else told + b", attached keys([%b])" % b" ".join(keys)


@lease.command(name="list", epilog=examples("kvorum lease list"))
@click.argument("arguments", nargs=-1, metavar="")
def list_(arguments: Arguments) -> None:
    """All leases."""
    settings, answer = _ask("/v3/lease/leases", {})
    ids = [int(one["ID"]) for one in answer.get("leases", [])]
    _show(
        settings,
        answer,
        simple=[f"found {len(ids)} leases", *(f"{one:016x}" for one in ids)],
        json={"leases": [{"id": one} for one in ids]},
        fields=[("ID", one) for one in ids],
    )


@lease.command(
    name="keep-alive",
    epilog=examples(
        "kvorum lease keep-alive 32695410dcc0ca06", "kvorum lease keep-alive --once 32695410dcc0ca06"
    ),
)
@_arguments
@click.option("--once", is_flag=True, help="Renew it one time, and end.")
def keep_alive(arguments: Arguments, once: bool) -> None:
    """Renew a lease again and again, until it ends or this is interrupted."""
    if len(arguments) != 1:
        raise Failure("lease keep-alive command needs lease ID as argument", EXIT_BAD_ARGUMENTS)
    lease_id = _lease_id(arguments[0])
    settings = current()
    with settings.client() as client:
        renew, begun = partial(client.call, KEEPALIVE, {"ID": str(lease_id)}, safe=True), now()
        answer = renew()["result"]
        if once and "TTL" not in answer:
            raise Failure(NOT_FOUND, EXIT_BAD_CONNECTION)
        with suppress(KvorumError):  # who is not reached as long as it is certain to live knows no more of it
            while "TTL" in answer:
                _show_alive(settings, answer)
                if once:
                    return
                ttl = int(answer["TTL"])
                time.sleep(ttl / RENEWALS_PER_TTL)
                sure_until, begun = begun + ttl, now()
                answer = renew(timeout=sure_until - begun)["result"]
    output.write(f"lease {lease_id:016x} expired or revoked.\n")


def _ask(path: str, message: dict[str, Any], failure: str = "") -> tuple[Settings, dict[str, Any]]:
    """The answer, and how it is to be shown. Raises Failure where there is no such way, and KvorumError; what
    the server says behind ``failure``, where there is one."""
    settings = current()
    output.refuse_table(settings)
    with settings.client() as client:
        try:
            return settings, client.call(path, message)
        except ServerError as error:
            if not failure or isinstance(error, AuthenticationFailed):
                raise
            raise Failure(f"{failure} ({error})") from None


def _show_alive(settings: Settings, answer: dict[str, Any]) -> None:
    output.refuse_table(settings)
    lease_id, ttl = int(answer["ID"]), int(answer["TTL"])
    _show(
        settings,
        answer,
        simple=[f"lease {lease_id:016x} keepalived with TTL({ttl})"],
        json={"ID": lease_id, "TTL": ttl},
        fields=[("ID", lease_id), ("TTL", ttl)],
    )


def _show(
    settings: Settings,
    answer: dict[str, Any],
    *,
    simple: Sequence[str | bytes],
    json: dict[str, Any] | None = None,
    fields: Sequence[tuple[str, object]] = (),
) -> None:
    """In JSON, the header's fields stand beside the others: so Go shows an embedded one."""
    if settings.write_out == "json":
        output.write_json({**output.as_go(answer["header"]), **(json or {})})
    elif settings.write_out == "fields":
        shown = [f'"{name}" : {value}' for name, value in fields]
        output.write_lines([*output.header_fields(answer["header"]), *shown])
    else:
        output.write(
            b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in simple)
        )


def _lease_id(text: str) -> int:
    try:
        return go_integer(text, 16)
    except ValueError as problem:
        raise Failure(f"bad lease ID arg ({problem}), expecting ID in Hex", EXIT_BAD_ARGUMENTS) from None
