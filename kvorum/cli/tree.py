"""tree: what is under a prefix, drawn as a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from kvorum.cli import completing
from kvorum.cli.data import reading, records, terminal
from kvorum.cli.data.keys import counted, directory, names, shown
from kvorum.cli.data.unified import entry
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_bytes, to_text
from kvorum.cli.settings import Failure, Settings, current
from kvorum.types import KeyValue

_COLUMNS = ("key", "revision", "version")


class Branch:
    """A name, the key that ends in it, if there is one, and what is below."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kv: KeyValue | None = None
        self.below: dict[str, Branch] = {}


@click.command(
    epilog=examples(
        "kvorum tree /app",
        "kvorum tree / -L 2",
        "kvorum tree /app --values",
    )
)
@click.argument("prefix", default="", shell_complete=completing.keys())
@click.option("-L", "--level", "depth", default=0, help="Go only so many levels deep.")
@click.option("-v", "--values", is_flag=True, help="Show the values.")
@click.option("--rev", default=0, help="As of this revision.")
def tree(prefix: str, depth: int, values: bool, rev: int) -> None:
    """Draw the keys under PREFIX as a tree."""
    settings = current()
    under = directory(prefix)
    with settings.client() as client, terminal.progress("reading") as report:
        found = reading.under(client, under, revision=rev, keys_only=not values, report=report)
    try:
        _show(settings, found.kvs, under, depth or None, values)
    except RecursionError:
        raise Failure("some keys lie too deep to be drawn: give a --level") from None


def _show(
    settings: Settings, kvs: Mapping[bytes, KeyValue], under: bytes, depth: int | None, values: bool
) -> None:
    root, directories = grown(kvs, under)

    def simple() -> str:
        top = terminal.styled(shown(under) or ".", fg="blue", bold=True)
        summary = f"{counted(directories, 'directory', 'directories')}, {counted(len(kvs))}"
        lines = [top, *_drawn(root, "", depth, values), "", summary]
        return "".join(line + "\n" for line in lines)

    if settings.write_out == "json":
        records.write_document(_document(root, depth, values))
        return
    rows = [_row(kv, values) for kv in kvs.values()]
    records.show(settings, rows, (*_COLUMNS, "value") if values else _COLUMNS, simple)


def grown(kvs: Mapping[bytes, KeyValue], under: bytes) -> tuple[Branch, int]:
    """The root, and how many names have something below them."""
    root, directories = Branch(""), set()
    for key, kv in kvs.items():
        branch = root
        for name in names(to_text(key.removeprefix(under))):
            if branch is not root:
                directories.add(id(branch))
            branch = branch.below.setdefault(name, Branch(name))
        branch.kv = kv
    return root, len(directories)


def _row(kv: KeyValue, values: bool) -> dict[str, Any]:
    row = {"key": kv.key, "revision": kv.mod_revision, "version": kv.version}
    return row | {"value": kv.value} if values else row


def _document(branch: Branch, depth: int | None, values: bool) -> list[dict[str, Any]]:
    found = []
    for child in branch.below.values():
        node: dict[str, Any] = {"name": to_bytes(child.name)}
        if child.kv:
            node |= _row(child.kv, values)
        if child.below and depth != 1:
            node["below"] = _document(child, depth and depth - 1, values)
        found.append(node)
    return found


def _drawn(branch: Branch, indent: str, depth: int | None, values: bool) -> Iterator[str]:
    for at, child in enumerate(branch.below.values(), 1):
        is_last = at == len(branch.below)
        corner, below = ("└── ", "    ") if is_last else ("├── ", "│   ")
        head, *more = _label(child, values)
        yield f"{indent}{corner}{head}"
        edge = indent + below
        yield from (
            f"{edge}{'│' if child.below and depth != 1 else ' '}   {line.removeprefix('  ')}" for line in more
        )
        if depth != 1:
            yield from _drawn(child, edge, depth and depth - 1, values)


def _label(branch: Branch, values: bool) -> list[str]:
    name = shown(to_bytes(branch.name))
    if branch.below:
        name = terminal.styled(f"{name}/", fg="blue", bold=True)
    if not values or branch.kv is None:
        return [name]
    first, *more = entry(b"", branch.kv.value)
    return [name + terminal.styled(first, dim=True), *more]
