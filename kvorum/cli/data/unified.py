"""The difference between two states of a prefix, for people: a unified diff over ``key: value`` lines.

A value of several lines stands in lines of its own below its key, so that the difference shows which of them
changed; what cannot be printed is quoted, and bytes that are no text are told by length and SHA-256 when they
are many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

from kvorum.cli.data.keys import quoted, shown

_CONTEXT = 3
_BYTES_SHOWN = 64
Line = tuple[str, str]  # " ", "-" or "+", and the text


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that is not the same in both; None where there is none."""

    key: bytes
    old: bytes | None
    new: bytes | None

    @property
    def kind(self) -> str:
        return "added" if self.old is None else "removed" if self.new is None else "changed"


def differences(old: Mapping[bytes, bytes], new: Mapping[bytes, bytes]) -> list[Difference]:
    """In the order of keys."""
    return [
        Difference(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def unified(
    old: Mapping[bytes, bytes], new: Mapping[bytes, bytes], old_name: str, new_name: str
) -> list[str]:
    """The lines of the diff; none where nothing differs."""
    lines = [line for key in sorted(old.keys() | new.keys()) for line in _of_key(key, old, new)]
    hunks = list(_hunks(lines))
    return [f"--- {old_name}", f"+++ {new_name}", *(text for hunk in hunks for text in hunk)] if hunks else []


def _of_key(key: bytes, old: Mapping[bytes, bytes], new: Mapping[bytes, bytes]) -> Iterator[Line]:
    was = entry(key, old[key]) if key in old else []
    becomes = entry(key, new[key]) if key in new else []
    if old.get(key) == new.get(key):
        yield from ((" ", line) for line in was)
        return
    yield from compared(was, becomes)


def compared(was: list[str], becomes: list[str]) -> Iterator[Line]:
    for tag, i, j, k, m in SequenceMatcher(None, was, becomes, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from ((" ", line) for line in was[i:j])
        else:
            yield from (("-", line) for line in was[i:j])
            yield from (("+", line) for line in becomes[k:m])


def entry(key: bytes, value: bytes) -> list[str]:
    """One key and its value in lines."""
    name = shown(key)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return [f"{name}: {_bytes(value)}"]
    if not text.replace("\n", "").isprintable():
        return [f"{name}: {quoted(value)}"]
    if "\n" not in text:
        plain = text == text.strip() and text and text[0] not in '"|'
        return [f"{name}: {text if plain else quoted(value)}"]
    *lines, last = text.split("\n")
    # As in YAML: |- where the last line does not end.
    mark, lines = ("|-", [*lines, last]) if last else ("|", lines)
    return [f"{name}: {mark}", *(f"  {line}" for line in lines)]


def _bytes(value: bytes) -> str:
    if len(value) <= _BYTES_SHOWN:
        return quoted(value)
    return f"({len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()[:16]}…)"


def _hunks(lines: list[Line]) -> Iterator[list[str]]:
    """Changed lines with those around them, as diff -u numbers them."""
    near: set[int] = set()
    for at, (sign, _) in enumerate(lines):
        if sign != " ":
            near.update(range(at - _CONTEXT, at + _CONTEXT + 1))
    old_at = new_at = 1
    for is_near, group in groupby(enumerate(lines), lambda item: item[0] in near):
        hunk = [line for _, line in group]
        old_size = sum(sign != "+" for sign, _ in hunk)
        new_size = sum(sign != "-" for sign, _ in hunk)
        if is_near:
            yield [
                f"@@ -{_range(old_at, old_size)} +{_range(new_at, new_size)} @@",
                *(sign + text for sign, text in hunk),
            ]
        old_at += old_size
        new_at += new_size


def _range(start: int, size: int) -> str:
    return f"{start if size else start - 1},{size}"
