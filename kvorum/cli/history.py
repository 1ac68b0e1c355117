"""history: each revision of a key that the store still knows.

They come from a watch that begins where the store's memory does. How it is known that it has told all: where
the key exists, its mod_revision is that of the last event; where it does not, the whole store is watched
until the revision at which that was seen, since every revision changed something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kvorum.cli import completing
from kvorum.cli.data import records, terminal
from kvorum.cli.data.keys import shown
from kvorum.cli.data.unified import compared, entry
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import Failure, current
from kvorum.errors import Compacted
from kvorum.types import Event, KeyValue

if TYPE_CHECKING:
    from kvorum.client import Client

_COLUMNS = ("revision", "version", "change", "value")
_STYLES = {"created": "green", "changed": "yellow", "deleted": "red"}


@dataclass(frozen=True)
class Step:
    """One revision of the key; ``kv`` is None where it was deleted, ``before`` where it was not there, or
    what it was is forgotten."""

    revision: int
    kv: KeyValue | None
    before: KeyValue | None

    @property
    def change(self) -> str:
        if self.kv is None:
            return "deleted"
        if self.kv.version == 1:
            return "created"
        if self.before is None or self.kv.value != self.before.value:
            return "changed"
        return "lease" if self.kv.lease != self.before.lease else "same"


@click.command(
    epilog=examples(
        "kvorum history /app/db/host",
        "kvorum history /app/nginx.conf -p -n 3",
        "kvorum history /app/db/host -o json",
    )
)
@click.argument("key", shell_complete=completing.keys())
@click.option("-n", "--last", type=click.IntRange(min=1), help="Only so many, the latest.")
@click.option("-p", "--patch", is_flag=True, help="Show each change as a diff of lines.")
def history(key: str, last: int | None, patch: bool) -> None:
    """Show every revision of a key, oldest first, as far back as the store remembers.

    A change is "created", "changed", "deleted", "lease" (only that changed) or "same" (put again as it was).
    What was before the last compaction is forgotten, but for the state it left. For a key that does not exist
    now, all changes of the store are looked through.
    """
    settings = current()
    name = to_bytes(key)
    with settings.client() as client, terminal.progress("looking through revisions") as report:
        compacted, steps = known_steps(client, name, report)
    if not steps:
        raise Failure(f"the store remembers no key {shown(name)}")
    if compacted and (first := steps[0].kv) and first.version > 1:
        click.echo(f"(what was before revision {compacted} is compacted)", err=True)
    steps = steps[-last:] if last else steps
    records.show(settings, [_row(step) for step in steps], _COLUMNS, lambda: _simple(steps, patch))


def known_steps(client: Client, key: bytes, report: Callable[[int, int], None]) -> tuple[int, list[Step]]:
    """Since which revision the store remembers (0: always), and the steps of the key since, oldest first."""
    compacted = 0
    while True:
        now = client.range(key)
        before = client.get(key, revision=compacted) if compacted else None
        steps = [Step(before.mod_revision, before, None)] if before else []
        try:
            for event in _events(
                client, key, compacted + 1, now.kvs[0] if now.kvs else None, now.revision, report
            ):
                kv = event.kv if event.is_put else None
                steps.append(Step(event.revision, kv, before))
                before = kv
        except Compacted as gone:
            if gone.compact_revision <= compacted:
                raise
            compacted = gone.compact_revision
            continue
        return compacted, steps


def _events(
    client: Client, key: bytes, start: int, kv: KeyValue | None, now: int, report: Callable[[int, int], None]
) -> Iterator[Event]:
    """Those of the key from ``start`` until ``now``."""
    until = kv.mod_revision if kv else now
    if until < start:
        return
    watched, end = (key, None) if kv else (b"\0", b"\0")
    with client.watch(watched, end, start_revision=start) as watch:
        for revision, events in watch.batches():
            report(revision - start + 1, until - start + 1)
            yield from (event for event in events if event.key == key)
            if revision >= until:
                return


def _row(step: Step) -> dict[str, Any]:
    kv = step.kv
    return {
        "revision": step.revision,
        "change": step.change,
        "version": kv.version if kv else 0,
        "create_revision": kv.create_revision if kv else 0,
        "lease": kv.lease if kv else 0,
        "value": kv.value if kv else None,
    }


def _simple(steps: list[Step], patch: bool) -> str:
    lines = [f"{'REVISION':>10}{'VERSION':>9}  {'CHANGE':8}" + ("" if patch else " VALUE")]
    for step in steps:
        change = step.change
        painted = terminal.styled(f"{change:8}", fg=_STYLES.get(change))
        head = f"{step.revision:>10}{step.kv.version if step.kv else '-':>9}  {painted}"
        lines.append(head if patch else f"{head} {_one_line(step.kv)}".rstrip())
        lines += _patch(step) if patch else []
    return "".join(line + "\n" for line in lines)


def _one_line(kv: KeyValue | None) -> str:
    if kv is None:
        return ""
    first, *more = entry(b"", kv.value)
    if not more:
        return first.removeprefix(": ")
    return f"{more[0].strip()} … ({len(more)} lines)"


def _patch(step: Step) -> Iterator[str]:
    was = _lines(step.before)
    colours = {"-": "red", "+": "green"}
    for sign, line in compared(was, _lines(step.kv)):
        yield terminal.styled(f"    {sign}{line}", fg=colours.get(sign))


def _lines(kv: KeyValue | None) -> list[str]:
    if kv is None:
        return []
    first, *more = entry(b"", kv.value)
    return [line[2:] for line in more] or [first.removeprefix(": ")]
