"""check perf: etcdctl's test of a cluster, with its words: so many writes a second for a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from kvorum.cli import checking, output
from kvorum.cli.datascale import datascale
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.settings import EXIT_ERROR, current
from kvorum.load.measuring import Figures, Measured, figures
from kvorum.load.running import Extent

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
@checking.flags("perf", "150, 1000, 8000 or 15000 writes a second")
@click.option("--duration", default=SECONDS, show_default=True, help="Seconds; etcdctl's is always 60.")
def perf(load: str, duration: int, **flags: Any) -> None:
    """Write at a fixed rate for a minute, and say whether that was borne.

    PASS is printed, and the exit code is 0, if nine tenths of the writes were answered in time, none took
    longer than half a second, and they took about equally long (a standard deviation of 100 ms at most).
    """
    model, settings = MODELS[checking.size_named(load)], current()
    extent = Extent(seconds=duration, rate=model.per_second, from_due=False)
    with checking.client_of(settings, **flags) as client:
        requests = checking.puts(flags["prefix"], KEY_BYTES, VALUE_BYTES)
        measured = checking.write(settings, client, model.clients, requests, extent, "check perf")
    if not judge(measured, model):
        click.get_current_context().exit(EXIT_ERROR)


def judge(measured: Measured, model: Model) -> bool:
    """Print the verdict in etcdctl's words; whether it is PASS."""
    found = figures(measured)
    lines, is_good = _verdict(measured, found, model)
    output.write_lines([*lines, "PASS" if is_good else "FAIL"])
    return is_good


def _verdict(measured: Measured, found: Figures, model: Model) -> tuple[list[str], bool]:
    lines = checking.errors_told(measured)
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
