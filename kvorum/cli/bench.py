"""bench: load of one kind, and how the store bears it."""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import replace
from typing import Any

import click

from kvorum.cli import loading, output, signals
from kvorum.cli.examples import examples
from kvorum.cli.progress import bar
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, EXIT_ERROR, Failure, Settings, current, seconds
from kvorum.client import Client
from kvorum.load import requests
from kvorum.load.connection import Target
from kvorum.load.measuring import Measured, figures
from kvorum.load.running import Extent, Load
from kvorum.load.watchers import Watchers, timed

BUSY = 0.9
"""Of a core: from here on it may be us who are slow, and not the store."""
LAST_EVENTS_SECONDS = 10.0
_POSITIVE = click.IntRange(1)


@click.command(
    epilog=examples(
        "kvorum bench put",
        "kvorum bench get --clients=64 --seconds=30s --serializable",
        "kvorum bench range --per-range=1000 --keys=100000",
        "kvorum bench txn --total=5000 --per-txn=20 -o json",
        "kvorum bench watch --clients=500 --rate=100",
    )
)
@click.argument("kind", type=click.Choice(requests.KINDS))
@click.option("--clients", type=_POSITIVE, default=16, show_default=True, help="Connections; or watchers.")
@click.option("--total", type=_POSITIVE, help="How many requests.")
@click.option("--seconds", "duration", help="For how long; 10s if there is no --total.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests a second; else all it bears.")
@click.option("--keys", type=_POSITIVE, default=10_000, show_default=True, help="How many different ones.")
@click.option("--value-size", type=click.IntRange(0), default=100, show_default=True, help="Bytes.")
@click.option("--per-range", type=_POSITIVE, default=100, show_default=True, help="Keys that a range reads.")
@click.option("--per-txn", type=_POSITIVE, default=10, show_default=True, help="Puts of a transaction.")
@click.option("--serializable", is_flag=True, help="Reads as far as the member that is asked knows.")
@click.option("--prefix", default="/kvorum-bench/", show_default=True, help="Where the keys are.")
@click.option("--keep", is_flag=True, help="Do not delete the keys afterwards.")
def bench(
    kind: str, duration: str | None, total: int | None, rate: float | None, keep: bool, **shape: Any
) -> None:
    """Put load on a store: put, get, range, txn or watch.

    Latencies are from when a request was due, with --rate; from when it was sent, without. What watch tells
    is how long after a put was sent a watcher knows of it, with one client that puts.
    """
    extent = Extent(total=total, seconds=_lasting(duration, total), rate=rate)
    prefix = to_bytes(shape["prefix"])
    wanted = requests.Shape(
        *(prefix, shape["keys"], shape["value_size"], shape["per_range"], shape["per_txn"]),
        serializable=shape["serializable"],
    )
    settings = current()
    with (
        signals.as_exceptions(),
        settings.client() as client,
        loading.own_prefix(client, prefix, is_kept=keep),
    ):
        targets = loading.targets(settings, client)
        if kind in ("get", "range"):
            _fill(client, wanted)
        with bar(f"bench {kind}") as progress:
            if kind == "watch":
                running = _watch(targets, shape["clients"], wanted, extent, settings.dial_timeout, progress)
            else:
                source = requests.requests(kind, wanted, random.Random())
                load = Load(targets, shape["clients"], source, extent, settings.dial_timeout)
                running = load.run(progress)
            measured = asyncio.run(running)
    _show(kind, shape["clients"], measured, settings)
    if measured.errors:
        click.get_current_context().exit(EXIT_ERROR)


def _lasting(duration: str | None, total: int | None) -> float | None:
    if duration is None:
        return None if total else 10.0
    found = seconds("--seconds", duration)
    if not found:
        raise Failure("--seconds is 0: expected a time such as 10s", EXIT_BAD_ARGUMENTS)
    return found


def _fill(client: Client, shape: requests.Shape) -> None:
    with bar("filling") as progress:
        for number, puts in enumerate(requests.filling(shape, random.Random())):
            client.transact([], puts, idempotent=True)
            progress(number * len(puts) / shape.keys)


async def _watch(
    targets: list[Target], count: int, shape: requests.Shape, extent: Extent, dial: float, progress: Any
) -> Measured:
    """The latencies of events instead of those of the puts that they are of."""
    watchers = Watchers(targets, count, shape.prefix, dial)
    try:
        await watchers.open(LAST_EVENTS_SECONDS)
        puts = await Load(targets, 1, timed(shape, random.Random()), extent, dial).run(progress)
        if not await watchers.until_told(len(puts.took), LAST_EVENTS_SECONDS):
            missing = len(puts.took) * count - len(watchers.took)
            puts.errors[f"events that did not come within {LAST_EVENTS_SECONDS:g} s"] += missing
    finally:
        watchers.close()
    return replace(puts, took=watchers.took)


def _show(kind: str, clients: int, measured: Measured, settings: Settings) -> None:
    found = figures(measured)
    used = measured.client_cpu / measured.seconds if measured.seconds else 0.0
    if settings.write_out == "json":
        output.write_json(
            {
                "kind": kind,
                "clients": clients,
                "seconds": round(measured.seconds, 3),
                "count": found.count,
                "errors": dict(measured.errors),
                "perSecond": round(found.per_second, 1),
                "milliseconds": {
                    "mean": _milliseconds(found.mean),
                    "stddev": _milliseconds(found.stddev),
                    "fastest": _milliseconds(found.fastest),
                    "slowest": _milliseconds(found.slowest),
                    **{f"p{percent:g}": _milliseconds(took) for percent, took in found.percentiles.items()},
                },
                "clientCores": round(used, 2),
            }
        )
    else:
        noun = "events" if kind == "watch" else "requests"
        percentiles = [(f"p{percent:g}", took) for percent, took in found.percentiles.items()]
        spread = [("fastest", found.fastest), ("mean", found.mean), ("stddev", found.stddev)]
        lines = [
            f"{kind}, {clients} client{'s' if clients > 1 else ''}, {measured.seconds:.1f} s",
            f"  {noun:10} {found.count:>12,}",
            f"  {'per second':10} {found.per_second:>12,.1f}",
            *(f"  {name:10} {took * 1000:>12,.3f} ms" for name, took in spread),
            *(f"  {name:10} {took * 1000:>12,.3f} ms" for name, took in percentiles),
            f"  {'slowest':10} {found.slowest * 1000:>12,.3f} ms",
            *(f"  {count:,} errors: {reason}" for reason, count in measured.errors.items()),
        ]
        output.write_lines(lines)
    if used > BUSY:
        print(f"This client used {used:.0%} of a core: the store may bear more.", file=sys.stderr)


def _milliseconds(took: float) -> float:
    return round(took * 1000, 3)
