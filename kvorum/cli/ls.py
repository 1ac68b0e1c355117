"""ls: the keys under a prefix, one level at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kvorum.cli import completing
from kvorum.cli.data import listing, reading, records, terminal
from kvorum.cli.data.keys import directory, shown
from kvorum.cli.data.listing import Entry
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import Failure, current

if TYPE_CHECKING:
    from kvorum.client import Client

_COLUMNS = ("name", "key", "directory")
_LONG = ("revision", "version", "keys", "size", "lease")
_WIDTHS = (10, 8, 8, 10)


@click.command(
    epilog=examples(
        "kvorum ls /",
        "kvorum ls -l /app",
        "kvorum ls -R /app -o json",
    )
)
@click.argument("prefix", default="", shell_complete=completing.keys())
@click.option("-l", "--long", is_flag=True, help="With revision, version, number of keys and bytes.")
@click.option("-R", "--recursive", is_flag=True, help="All keys under the prefix, not one level.")
@click.option("--rev", default=0, help="As of this revision.")
def ls(prefix: str, long: bool, recursive: bool, rev: int) -> None:
    """List the keys under PREFIX like the files in a directory.

    What has keys below it ends in a slash. With -l, the line of a directory tells the latest revision, the
    number of keys and the bytes of all values below it.
    """
    settings = current()
    under = directory(prefix)
    with settings.client() as client:
        found = _entries(client, under, long, recursive, rev)
        if not found and prefix and (kv := client.get(to_bytes(prefix), revision=rev)):
            found, under = [Entry(kv.key, False, (kv,))], b""
    if not found and prefix:
        raise Failure(f"there is no key {shown(to_bytes(prefix))}, and none under {shown(under)}")
    rows = [_row(entry, under, long) for entry in found]
    columns = (*_COLUMNS, *_LONG) if long else _COLUMNS
    records.show(settings, rows, columns, lambda: _simple(rows, long))


def _entries(client: Client, under: bytes, long: bool, recursive: bool, rev: int) -> list[Entry]:
    if not long and not recursive:
        return listing.level(client, under, rev)
    with terminal.progress("reading") as report:
        kvs = reading.under(client, under, revision=rev, keys_only=not long, report=report).kvs.values()
    if recursive:
        return [Entry(kv.key, False, (kv,)) for kv in kvs]
    return list(listing.entries(kvs, under))


def _row(entry: Entry, under: bytes, long: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.path.removeprefix(under),
        "key": entry.path,
        "directory": entry.is_directory,
    }
    if long:
        row |= {
            "revision": max(kv.mod_revision for kv in entry.kvs),
            "version": None if entry.is_directory else entry.kvs[0].version,
            "keys": len(entry.kvs),
            "size": sum(len(kv.value) for kv in entry.kvs),
            "lease": None if entry.is_directory else entry.kvs[0].lease,
        }
    return row


def _simple(rows: list[dict[str, Any]], long: bool) -> str:
    lines = [_columns("REVISION", "VERSION", "KEYS", "BYTES") + "NAME\n"] if long and rows else []
    for row in rows:
        name = shown(row["name"]) or '""'
        name = terminal.styled(name, fg="blue", bold=True) if row["directory"] else name
        details = ""
        if long:
            version = "-" if row["directory"] else row["version"]
            details = _columns(row["revision"], version, row["keys"], row["size"])
        lines.append(f"{details}{name}\n")
    return "".join(lines)


def _columns(*cells: Any) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)) + "  "
