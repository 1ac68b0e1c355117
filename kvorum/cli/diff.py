"""diff: two prefixes, a prefix and a file, or one prefix at two revisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvorum.cli import completing
from kvorum.cli.data import files, formats, reading, records, terminal
from kvorum.cli.data.keys import directory, shown
from kvorum.cli.data.nesting import BadContent
from kvorum.cli.data.unified import differences, unified
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_bytes, to_text
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, EXIT_ERROR, EXIT_INVALID_INPUT, Failure, current

if TYPE_CHECKING:
    from kvorum.client import Client

Side = tuple[str, dict[bytes, bytes]]  # what to call it, and keys (without the prefix) with values


@click.command(
    epilog=examples(
        "kvorum diff /app /staging",
        "kvorum diff /app config.yaml",
        "kvorum diff /app --rev 100",
        "kvorum diff /app --rev 100 --to-rev 120",
    )
)
@click.argument("prefix", shell_complete=completing.keys())
@click.argument("other", default=None, required=False, metavar="[OTHER_PREFIX | FILE]")
@click.option("--rev", default=0, help="The first side as of this revision.")
@click.option("--to-rev", default=0, help="The second side as of this revision.")
@click.option("--format", "format_", type=click.Choice(formats.FORMATS), help="Of a FILE; not by its suffix.")
@click.option("--exit-code", is_flag=True, help="End with 1 if there are differences.")
def diff(prefix: str, other: str | None, rev: int, to_rev: int, format_: str | None, exit_code: bool) -> None:
    """Show how what is under PREFIX differs from another prefix, a file, or itself at another revision.

    The second argument is a file if there is a file of that name (or if it is "-"), otherwise a prefix.
    Without --rev both sides are read at one revision.
    """
    settings = current()
    if other is None and not rev:
        raise Failure("give what to compare with: another prefix, a FILE, or --rev", EXIT_BAD_ARGUMENTS)
    with settings.client() as client:
        revision, old = _stored(client, prefix, rev)
        if other is not None and (other == files.STANDARD or Path(other).is_file()):
            if to_rev:
                raise Failure("a file has no revisions: --to-rev is for a prefix", EXIT_BAD_ARGUMENTS)
            new = _of_file(other, format_, [to_text(key) for key in old[1]])
        else:
            # Both as of one moment, unless one is asked for as of another.
            second = to_rev or (0 if rev else revision)
            _, new = _stored(client, prefix if other is None else other, second)
    found = differences(old[1], new[1])
    rows = [{"key": one.key, "change": one.kind, "old": one.old, "new": one.new} for one in found]
    records.show(
        settings,
        rows,
        ("key", "change", "old", "new"),
        lambda: terminal.painted_diff(unified(old[1], new[1], old[0], new[0])),
    )
    if exit_code and found:
        click.get_current_context().exit(EXIT_ERROR)


def _stored(client: Client, prefix: str, revision: int) -> tuple[int, Side]:
    under = directory(prefix)
    with terminal.progress("reading") as report:
        found = reading.under(client, under, revision=revision, report=report)
    values = {key.removeprefix(under): value for key, value in found.values().items()}
    return found.revision, (f"{shown(under) or 'the store'} at revision {found.revision}", values)


def _of_file(name: str, format_: str | None, existing: list[str]) -> Side:
    kind = files.format_of(name, format_)
    try:
        content = formats.read(files.read(name), kind, existing)
    except BadContent as problem:
        raise Failure(f"{name}: {problem}", EXIT_INVALID_INPUT) from None
    return name, {to_bytes(key): value for key, value in content.items()}
