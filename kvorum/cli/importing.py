"""import: the keys and values of a file, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kvorum.cli import completing
from kvorum.cli.data import files, formats, reading, records, terminal
from kvorum.cli.data.changes import Changes, after, towards
from kvorum.cli.data.committing import commit
from kvorum.cli.data.keys import directory, shown
from kvorum.cli.data.nesting import BadContent
from kvorum.cli.data.unified import differences, unified
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_bytes, to_text
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, EXIT_INVALID_INPUT, Failure, Settings, current

if TYPE_CHECKING:
    from kvorum.client import Client

_SIGNS = {"added": "+", "changed": "~", "removed": "-"}
_STYLES = {"added": "green", "changed": "yellow", "removed": "red"}


@click.command(
    name="import",
    epilog=examples(
        "kvorum import config.yaml --prefix /app",
        "kvorum import config.yaml --prefix /app --prune --diff",
        "kvorum import - --format yaml --prefix /app < backup",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="FILE...", shell_complete=completing.files)
@click.option(
    "--prefix", default="", help="Put the keys under this prefix.", shell_complete=completing.keys()
)
@click.option("--format", "format_", type=click.Choice(formats.FORMATS), help="Not by the file's suffix.")
@click.option("--dry-run", is_flag=True, help="Write nothing; list the keys that would change.")
@click.option("--diff", is_flag=True, help="Write nothing; show what would change as a unified diff.")
@click.option("--prune", is_flag=True, help="Delete the keys under the prefix that the file lacks.")
def import_(
    names: Sequence[str], prefix: str, format_: str | None, dry_run: bool, diff: bool, prune: bool
) -> None:
    """Put the keys and values of files: YAML, JSON, TOML, .env or .properties.

    Nested mappings become keys: {"db": {"host": "a"}} is the key db/host. Each file is one transaction: all
    of it is written or, where somebody changed one of its keys meanwhile, or it is larger than the server
    takes (--max-txn-ops), nothing. "-" is standard input.
    """
    settings = current()
    if prune and (not prefix or len(names) > 1):
        raise Failure(
            "--prune needs a --prefix, and exactly one FILE: it deletes what that lacks", EXIT_BAD_ARGUMENTS
        )
    sources = [(name, files.format_of(name, format_), files.read(name)) for name in names]
    under = directory(prefix)
    with settings.client() as client:
        # All files are read before the first is written.
        wanted = [(name, _content(client, name, kind, data, under)) for name, kind, data in sources]
        for name, content in wanted:
            changes = _changes(client, content, under, prune)
            if dry_run or diff:
                _preview(settings, name, changes, diff)
            else:
                revision = _committed(client, name, changes)
                _report(settings, name, changes, revision)


def _committed(client: Client, name: str, changes: Changes) -> int | None:
    try:
        return commit(client, changes) if changes else None
    except Failure as failure:
        raise Failure(f"{name}: {failure.message}", failure.exit_code) from None


def _content(client: Client, name: str, format_: str, data: bytes, under: bytes) -> dict[bytes, bytes]:
    existing: list[str] = []
    if format_ == "env":
        keys = reading.under(client, under, keys_only=True).kvs
        existing = [to_text(key.removeprefix(under)) for key in keys]
    try:
        content = {
            under + to_bytes(key): value for key, value in formats.read(data, format_, existing).items()
        }
    except BadContent as problem:
        raise Failure(f"{name}: {problem}", EXIT_INVALID_INPUT) from None
    if b"" in content:
        raise Failure(f"{name}: a key is empty, which no key can be", EXIT_INVALID_INPUT)
    return content


def _changes(client: Client, content: Mapping[bytes, bytes], under: bytes, prune: bool) -> Changes:
    with terminal.progress("reading") as report:
        if prune:
            return towards(reading.under(client, under, report=report), content, prune=under)
        return towards(reading.of(client, content, report=report), content)


def _preview(settings: Settings, name: str, changes: Changes, as_diff: bool) -> None:
    old, new = changes.before.values(), after(changes)
    found = differences(old, new)

    def simple() -> str:
        if as_diff:
            revision = f"revision {changes.before.revision}"
            return terminal.painted_diff(unified(old, new, f"the store at {revision}", name))
        lines = [
            terminal.styled(f"{_SIGNS[one.kind]} {shown(one.key)}", fg=_STYLES[one.kind]) + "\n"
            for one in found
        ]
        return "".join(lines) + f"{name}: {_summary(changes)}; nothing is written, this is a dry run\n"

    rows = [{"key": one.key, "change": one.kind, "old": one.old, "new": one.new} for one in found]
    records.show(settings, rows, ("key", "change", "old", "new"), simple)


def _report(settings: Settings, name: str, changes: Changes, revision: int | None) -> None:
    row: dict[str, Any] = {"file": name, **_counts(changes), "revision": revision}

    def simple() -> str:
        return f"{name}: {_summary(changes)}{f' (revision {revision})' if revision else ''}\n"

    records.show_one(settings, row, tuple(row), simple)


def _counts(changes: Changes) -> dict[str, int]:
    added = sum(key not in changes.before.kvs for key in changes.put)
    return {
        "added": added,
        "changed": len(changes.put) - added,
        "removed": len(changes.remove),
        "unchanged": len(changes.kept),
    }


def _summary(changes: Changes) -> str:
    return ", ".join(f"{count} {what}" for what, count in _counts(changes).items())
