"""check perf: etcdctl's test of a cluster, with its words: so many writes a second for a minute."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass

import click

from kvorum.cli import loading, output, signals
from kvorum.cli.datascale import datascale
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.kv import to_bytes
from kvorum.cli.progress import bar
from kvorum.cli.settings import EXIT_ERROR, Settings, current
from kvorum.client import Client
from kvorum.load.measuring import Figures, Measured, figures
from kvorum.load.requests import Request, put
from kvorum.load.running import Extent, Load

KEY_BYTES, VALUE_BYTES = 256, 1024
SECONDS = 60
LEAST_PART = 0.9
SLOWEST_SECONDS, STDDEV_SECONDS = 0.5, 0.1


@dataclass(frozen=True)
class Model:
    per_second: int
    clients: int


MODELS = {"s": Model(150, 50), "m": Model(1000, 200), "l": Model(8000, 500), "xl": Model(15_000, 1000)}


@click.group(cls=GoGroup, epilog=examples("kvorum check perf --load=m", "kvorum check datascale"))
def check() -> None:
    """Check that a cluster bears what it has to."""


check.add_command(datascale)


@check.command(
    epilog=examples(
        "kvorum check perf",
        "kvorum check perf --load=m --auto-compact",
        "kvorum check perf --load=l --duration=10",
    )
)
@click.option(
    "--load",
    default="s",
    show_default=True,
    help="s(mall), m(edium), l(arge) or xl(arge): 150, 1000, 8000 or 15000 writes a second.",
)
@click.option(
    "--prefix",
    default="/etcdctl-check-perf/",
    show_default=True,
    help="Where the keys are written; they are deleted afterwards.",
)
@click.option("--auto-compact", is_flag=True, help="Forget the history up to the end of the test.")
@click.option("--auto-defrag", is_flag=True, help="Defragment the endpoints after the test.")
@click.option("--duration", default=SECONDS, show_default=True, help="Seconds; etcdctl's is always 60.")
def perf(load: str, prefix: str, auto_compact: bool, auto_defrag: bool, duration: int) -> None:
    """Write at a fixed rate for a minute, and say whether that was borne.

    PASS is printed, and the exit code is 0, if nine tenths of the writes were answered in time, none took
    longer than half a second, and they took about equally long (a standard deviation of 100 ms at most).
    """
    model = MODELS[loading.size_named(load)]
    settings = current()
    with signals.as_exceptions(), settings.client() as client:
        loading.refuse_used(client, to_bytes(prefix))
        try:
            measured = _write(settings, client, model, to_bytes(prefix), duration)
        finally:
            revision = loading.clean_up(client, to_bytes(prefix))
        if auto_compact and revision:
            loading.compact(client, revision)
        if auto_defrag:
            loading.defragment(client, settings)
    if not judge(measured, model):
        click.get_current_context().exit(EXIT_ERROR)


def _write(settings: Settings, client: Client, model: Model, prefix: bytes, seconds: int) -> Measured:
    extent = Extent(seconds=seconds, rate=model.per_second, from_due=False)
    run = Load(loading.targets(settings, client), model.clients, _puts(prefix), extent, settings.dial_timeout)
    with bar("check perf") as progress:
        return asyncio.run(run.run(progress))


def _puts(prefix: bytes) -> Iterator[Request]:
    """Ten random bytes and zeros, as etcdctl's keys are, and values of zeros."""
    rest, value = bytes(KEY_BYTES - 10), bytes(VALUE_BYTES)
    while True:
        yield put(prefix + os.urandom(10) + rest, value)


def judge(measured: Measured, model: Model) -> bool:
    """Print the verdict in etcdctl's words; whether it is PASS."""
    found = figures(measured)
    lines, is_good = _verdict(measured, found, model)
    output.write_lines([*lines, "PASS" if is_good else "FAIL"])
    return is_good


def _verdict(measured: Measured, found: Figures, model: Model) -> tuple[list[str], bool]:
    lines = []
    if measured.errors:
        lines.append("FAIL: too many errors")
        lines += [f"FAIL: ERROR({reason}) -> {count}" for reason, count in measured.errors.items()]
    shown = int(found.per_second) + 1
    is_fast = found.per_second / model.per_second > LEAST_PART
    lines.append(
        f"PASS: Throughput is {shown} writes/s" if is_fast else f"FAIL: Throughput too low: {shown} writes/s"
    )
    is_prompt = found.slowest <= SLOWEST_SECONDS
    slowest = "PASS: Slowest request took" if is_prompt else "Slowest request took too long:"
    lines.append(f"{slowest} {found.slowest:f}s")
    is_even = found.stddev <= STDDEV_SECONDS
    stddev = "PASS: Stddev is" if is_even else "Stddev too high:"
    lines.append(f"{stddev} {found.stddev:f}s")
    return lines, not measured.errors and is_fast and is_prompt and is_even
