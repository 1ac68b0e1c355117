"""Answers as rows, in the format that ``-o`` asks for: json, yaml, table, fields; simple is each command's.

Bytes are text where they are UTF-8, and otherwise ``{"$base64": …}`` as in exported files (in a table and in
fields: quoted).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvorum.cli import output
from kvorum.cli.data.formats import without_bytes
from kvorum.cli.data.keys import shown
from kvorum.cli.data.nesting import leaf
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import Settings

Record = Mapping[str, Any]


def show(
    settings: Settings, rows: Sequence[Record], columns: Sequence[str], simple: Callable[[], str]
) -> None:
    """Rows of these columns. ``simple`` is asked for its text only when that is wanted."""
    match settings.write_out:
        case "json":
            write_document([dict(row) for row in rows])
        case "table":
            cells = [[_cell(row.get(column)) for column in columns] for row in rows]
            output.write(output.table([column.upper().replace("_", " ") for column in columns], cells))
        case "fields":
            output.write_lines([line for row in rows for line in _fields(row)])
        case _:
            output.write(simple())


def show_one(settings: Settings, row: Record, columns: Sequence[str], simple: Callable[[], str]) -> None:
    """One row: in JSON and YAML not in a list."""
    if settings.write_out == "json":
        write_document(dict(row))
    else:
        show(settings, [row], columns, simple)


def write_document(document: Any) -> None:
    """As JSON, or as the YAML that was asked for in its place."""
    output.write_json(_plain(document))


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return without_bytes(leaf(value))
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


def _cell(value: Any) -> str:
    match value:
        case bytes():
            return shown(value)
        case None:
            return ""
        case bool():
            return output.go_bool(value)
        case list() | tuple():
            return ", ".join(map(_cell, value))
    return str(value)


def _fields(row: Record) -> list[str]:
    """As etcdctl's: names of Go's fields, strings quoted."""
    lines = []
    for name, value in row.items():
        match value:
            case bytes() | str():
                text = output.go_quoted(value if isinstance(value, bytes) else to_bytes(value))
            case _:
                text = _cell(value)
        lines.append(f'"{"".join(part.capitalize() for part in name.split("_"))}" : {text}')
    return lines
