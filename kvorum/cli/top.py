"""top: how the members of a cluster are, and how fast they go; refreshed until it is stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kvorum.cli import output, samples
from kvorum.cli.endpoint import human_bytes
from kvorum.cli.examples import examples
from kvorum.cli.samples import Sample
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, EXIT_ERROR, Failure, Settings, current, seconds

ANSWER_SECONDS = 2.0
SHORTEST_SECONDS = 0.1
PRINTED_COLUMNS = 160
_SLOW_SECONDS = 0.1
_COLUMNS = (
    *("NAME", "ENDPOINT", "ROLE", "HEALTH", "LATENCY", "TERM"),
    *("RAFT INDEX", "PER SECOND", "BEHIND", "DB SIZE", "IN USE"),
)
_TO_THE_LEFT = ("NAME", "ENDPOINT", "ROLE", "HEALTH")
_LEAST_WANTED = ("IN USE", "TERM", "BEHIND", "RAFT INDEX", "ENDPOINT", "DB SIZE", "LATENCY")
"""What is left out first where there is not enough room."""
Frame = list[tuple[Sample, float | None]]
"""Every member, with the entries a second that it appends."""


@click.command(
    epilog=examples(
        "kvorum top", "kvorum top --interval=5s", "kvorum top --once", "kvorum top --once -o json"
    )
)
@click.option("--interval", default="1s", show_default=True, help="Time between two looks.")
@click.option("--once", is_flag=True, help="Look twice, print one frame, and end.")
def top(interval: str, once: bool) -> None:
    """Show how all members are: leader, raft index and its rate, sizes, health and latency.

    Health and latency are those of a linearizable read. Ctrl-C ends it. With --once the exit code is 1 if a
    member does not answer.
    """
    settings = current()
    pause = max(seconds("--interval", interval), SHORTEST_SECONDS)
    if not once and not sys.stdout.isatty():
        raise Failure("top needs a terminal: with --once it prints one frame", EXIT_BAD_ARGUMENTS)
    frames = _frames(settings, pause)
    if once:
        next(frames)
        _print(next(frames), settings)
        return
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for frame in frames:
            live.update(table(frame, console.width), refresh=True)


def _frames(settings: Settings, pause: float) -> Iterator[Frame]:
    hasty = replace(settings, command_timeout=min(settings.command_timeout, ANSWER_SECONDS))
    with hasty.client() as client:
        before: dict[str, Sample] = {}
        while True:
            begun = time.monotonic()
            found = samples.take(client, samples.places(client, settings.endpoints))
            yield [(one, samples.rate(before.get(one.endpoint), one)) for one in found]
            before = {one.endpoint: one for one in found}
            time.sleep(max(begun + pause - time.monotonic(), 0))


def _print(frame: Frame, settings: Settings) -> None:
    if settings.write_out == "json":
        output.write_json([_as_json(one, rate) for one, rate in frame])
    else:
        # To a file or a pipe, all that there is, whatever a terminal would have room for.
        console = Console(width=None if sys.stdout.isatty() else PRINTED_COLUMNS)
        console.print(table(frame, console.width))
    if any(one.error for one, _ in frame):
        click.get_current_context().exit(EXIT_ERROR)


def table(frame: Frame, width: int) -> Table:
    """As many columns as ``width`` characters have room for."""
    alive = [one for one, _ in frame if not one.error]
    newest = max((one.index for one in alive), default=0)
    ordered = sorted(frame, key=lambda pair: (pair[0].name, pair[0].endpoint))
    rows = [dict(zip(_COLUMNS, _row(one, rate, newest), strict=True)) for one, rate in ordered]
    shown = Table(title=_title(alive, len(frame)), title_justify="left", box=None, pad_edge=False)
    columns = _fitting(rows, width)
    for name in columns:
        shown.add_column(name, justify="left" if name in _TO_THE_LEFT else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*(row[name] for name in columns))
    return shown


def _fitting(rows: Sequence[dict[str, Text]], width: int) -> list[str]:
    columns = list(_COLUMNS)
    for name in _LEAST_WANTED:
        widths = [max(len(column), *(row[column].cell_len for row in rows)) for column in columns]
        if sum(widths) + 2 * len(columns) <= width:
            break
        columns.remove(name)
    return columns


def _title(alive: Sequence[Sample], count: int) -> str:
    leaders = sorted({one.name or one.endpoint for one in alive if one.role == "leader"})
    revision = max((one.revision for one in alive), default=0)
    leader = ", ".join(leaders) or "none"
    return f"{len(alive)} of {count} members answer · leader {leader} · revision {revision:,}"


def _row(one: Sample, rate: float | None, newest: int) -> list[Text]:
    if one.error:
        cells: list[tuple[str, str]] = [(one.name, ""), (one.endpoint, ""), ("?", ""), ("no answer", "red")]
        return [Text(*cell) for cell in cells] + [Text("-")] * (len(_COLUMNS) - len(cells))
    cells = [
        (one.name, ""),
        (one.endpoint, ""),
        (one.role, "bold" if one.role == "leader" else ""),
        ("healthy", "green"),
        (f"{one.latency * 1000:.1f} ms", "yellow" if one.latency > _SLOW_SECONDS else "green"),
        (str(one.term), ""),
        (f"{one.index:,}", ""),
        ("-" if rate is None else f"{rate:,.1f}", ""),
        (f"{newest - one.applied:,}", ""),
        (human_bytes(one.db_bytes), ""),
        (human_bytes(one.db_used_bytes), ""),
    ]
    return [Text(*cell) for cell in cells]


def _as_json(one: Sample, rate: float | None) -> dict[str, Any]:
    return {
        "name": one.name,
        "endpoint": one.endpoint,
        "health": not one.error,
        "error": one.error,
        "role": one.role,
        "memberID": one.member_id,
        "version": one.version,
        "raftTerm": one.term,
        "raftIndex": one.index,
        "raftAppliedIndex": one.applied,
        "raftIndexPerSecond": None if rate is None else round(rate, 1),
        "revision": one.revision,
        "dbSize": one.db_bytes,
        "dbSizeInUse": one.db_used_bytes,
        "latencyMilliseconds": round(one.latency * 1000, 3),
    }
