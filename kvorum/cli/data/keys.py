"""A prefix as a directory, and a key as a path of names.

A prefix is taken as a directory: ``/app`` and ``/app/`` are the keys that begin with ``/app/``, and
neither ``/apple`` nor ``/app`` itself. The empty prefix is the whole store.

A key's path is what stands between its slashes. No name is empty, so that every key can stand in a file:
slashes at the beginning belong to the name behind them, and those at the end to the name before them.

    /app/db/host → "/app", "db", "host"        a//b → "a", "/b"        a/b/ → "a", "b/"
"""

from __future__ import annotations

import re

from kvorum.cli.raw_text import to_bytes, to_text

_FIRST_NAME = re.compile(r"/*[^/]+(/+$)?")


def directory(prefix: str) -> bytes:
    """The bytes that all keys under ``prefix`` begin with."""
    data = to_bytes(prefix)
    return data if not data or data.endswith(b"/") else data + b"/"


def names(key: str) -> tuple[str, ...]:
    """The path of a key; joined with slashes it is the key again."""
    found = []
    while match := _FIRST_NAME.match(key):
        found.append(match[0])
        if match.end() == len(key):
            return tuple(found)
        key = key[match.end() + 1 :]
    return (*found, key)  # nothing at all, or slashes only


def shown(key: bytes) -> str:
    """A key or value for people: as it is, or quoted where a terminal might take it for something else."""
    text = to_text(key)
    return text if text.isprintable() else quoted(key)


def counted(count: int, one: str = "key", many: str = "keys") -> str:
    return f"{count} {one if count == 1 else many}"


def quoted(data: bytes) -> str:
    """In double quotes, with escapes for all that cannot be printed."""
    from kvorum.cli.output import go_quoted

    return go_quoted(data)
