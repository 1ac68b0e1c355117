"""etcdctl's output formats: simple, json, fields and table.

Responses come as the gateway's JSON, where 64-bit integers are strings. etcdctl's JSON is that of
Go's structs: integers are numbers, enums too.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from kvorum.cli.raw_text import to_bytes, to_text
from kvorum.cli.settings import EXIT_BAD_FEATURE, Failure, Settings, current

_INTEGERS = frozenset({
    "cluster_id", "member_id", "revision", "raft_term",
    "create_revision", "mod_revision", "version", "lease", "count", "deleted",
    "dbSize", "dbSizeInUse", "leader", "raftIndex", "raftTerm", "raftAppliedIndex",
    "compact_revision", "watch_id", "ID", "authRevision",
})  # fmt: skip
# The gateway leaves out what is zero.
_ENUMS = {("type", "DELETE"): 1, ("permType", "WRITE"): 1, ("permType", "READWRITE"): 2}
_RESPONSES = ("response_range", "response_put", "response_delete_range", "response_txn")


def write(data: bytes | str) -> None:
    """What was no text in an argument goes out as the bytes it was. Raises Failure where it cannot, and
    BrokenPipeError where nobody wants it any more."""
    if sys.stdout is None:
        raise Failure("there is no standard output to write to")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(to_bytes(data) if isinstance(data, str) else data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _forget_output()
        raise Failure(f"standard output cannot be written: {error.strerror}") from None


def _forget_output() -> None:
    """What is still in the buffer would be written once more at the end, with a complaint of Python's."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse_table(settings: Settings) -> None:
    if settings.write_out == "table":
        raise Failure("table not supported as output format", EXIT_BAD_FEATURE)


# JSON.


def as_go(value: Any, name: str = "") -> Any:
    """A gateway message as Go's encoding/json writes the same struct."""
    if isinstance(value, dict):
        for key in _RESPONSES:
            if key in value:
                return {"Response": {key: as_go(value[key])}}
        return {key: as_go(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [as_go(item) for item in value]
    if name in _INTEGERS and isinstance(value, str) and value.lstrip("-").isdigit():
        return int(value)
    return _ENUMS.get((name, value), value) if isinstance(value, str) else value


def write_json(value: Any) -> None:
    """A document on a line of its own; or where YAML is asked for, the same in that notation."""
    if current().yaml:
        write_yaml(value)
        return
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(character, escape)
    write(text + "\n")


def write_yaml(value: Any) -> None:
    """One document. The line before it lets several follow each other, as those of a watch do."""
    from kvorum.cli.data import yaml_format

    write("---\n" + yaml_format.write(value))


# Pieces.


def raw(kv: dict[str, Any], name: str) -> bytes:
    return base64.b64decode(kv.get(name, ""))


def shown(data: bytes, *, as_hex: bool) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in data) if as_hex else data


def go_quoted(data: bytes) -> str:
    """Bytes as Go's %q shows them as a string."""
    named = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 34: '\\"', 92: "\\\\"}
    pieces = []
    for character in to_text(data):
        code = ord(character)
        if code in named:
            pieces.append(named[code])
        elif 0xDC80 <= code <= 0xDCFF:
            pieces.append(f"\\x{code - 0xDC00:02x}")
        elif character.isprintable():
            pieces.append(character)
        elif code < 0x80:
            pieces.append(f"\\x{code:02x}")
        else:
            pieces.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(pieces) + '"'


def harmless(text: str) -> str:
    """The same without what a terminal could take for commands. Lines stay lines."""

    def shown(character: str) -> str:
        data = to_bytes(character)
        return character if character.isprintable() else go_quoted(data)[1:-1]

    return "\n".join("".join(map(shown, line)) for line in text.split("\n"))


def complain(problem: str) -> None:
    """As an error, on stderr. What others have written, in keys or in files, may stand in it."""
    click.echo(f"Error: {harmless(problem)}", err=True)


def tell(text: str) -> None:
    """What goes on, on stderr. That nobody reads it any more ends nothing."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def simple_kvs(kvs: Sequence[dict[str, Any]], settings: Settings, *, value_only: bool = False) -> bytes:
    lines = []
    for kv in kvs:
        if not value_only:
            lines.append(shown(raw(kv, "key"), as_hex=settings.hex))
        lines.append(shown(raw(kv, "value"), as_hex=settings.hex))
    return b"".join(line + b"\n" for line in lines)


def header_fields(header: dict[str, Any]) -> list[str]:
    names = {
        "cluster_id": "ClusterID",
        "member_id": "MemberID",
        "revision": "Revision",
        "raft_term": "RaftTerm",
    }
    return [f'"{shown_name}" : {header.get(name, 0)}' for name, shown_name in names.items()]


def kv_fields(kv: dict[str, Any], prefix: str = "") -> list[str]:
    return [
        f'"{prefix}Key" : {go_quoted(raw(kv, "key"))}',
        f'"{prefix}CreateRevision" : {kv.get("create_revision", 0)}',
        f'"{prefix}ModRevision" : {kv.get("mod_revision", 0)}',
        f'"{prefix}Version" : {kv.get("version", 0)}',
        f'"{prefix}Value" : {go_quoted(raw(kv, "value"))}',
        f'"{prefix}Lease" : {kv.get("lease", 0)}',
    ]


def go_bool(value: Any) -> str:
    return "true" if value else "false"


def range_fields(response: dict[str, Any]) -> list[str]:
    lines = header_fields(response["header"])
    for kv in response.get("kvs", []):
        lines += kv_fields(kv)
    return [*lines, f'"More" : {go_bool(response.get("more"))}', f'"Count" : {response.get("count", 0)}']


def put_fields(response: dict[str, Any]) -> list[str]:
    lines = header_fields(response["header"])
    if "prev_kv" in response:
        lines += kv_fields(response["prev_kv"], "Prev")
    return lines


def delete_fields(response: dict[str, Any]) -> list[str]:
    lines = [*header_fields(response["header"]), f'"Deleted" : {response.get("deleted", 0)}']
    for kv in response.get("prev_kvs", []):
        lines += kv_fields(kv, "Prev")
    return lines


def write_lines(lines: Sequence[str]) -> None:
    write("".join(line + "\n" for line in lines))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An ASCII table as etcdctl draws it: headers centred, cells to the right."""
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [rule, "|" + "|".join(_centred(h, w) for h, w in zip(headers, widths, strict=True)) + "|", rule]
    for row in rows:
        cells = "|".join(f" {cell.rjust(width)} " for cell, width in zip(row, widths, strict=True))
        lines.append(f"|{cells}|")
    return "\n".join([*lines, rule]) + "\n"


def _centred(text: str, width: int) -> str:
    left = (width - len(text)) // 2
    return " " + " " * left + text + " " * (width - len(text) - left) + " "
