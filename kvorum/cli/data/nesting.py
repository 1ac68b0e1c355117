"""Keys and values ⇄ nested mappings.

From a file, paths are joined with slashes, whatever the names in them: ``{"db": {"host": "a"}}`` and
``{"db/host": "a"}`` both are the key ``db/host``, and both in one file are refused. Into a file, keys are
nested at their slashes, but for keys below one that has a value itself: these stand beside it.

    db = x, db/host = y   ⇄   {"db": "x", "db/host": "y"}

A value in the store is bytes. What is not text in a file becomes text:

    true, false            "true", "false"
    a number               as it is written (TOML's integers: in decimal)
    null                   the empty value
    a date or time         ISO 8601
    a list                 one value: its JSON, without spaces
    {"$base64": "AP8="}    the bytes (also YAML's !!binary)
    an empty mapping       nothing

and bytes that are no UTF-8 come out as ``$base64``. Text comes out as text: a value ``8080`` as the string
"8080", or with ``typed`` as the number it looks like.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvorum.cli.data.keys import names, shown
from kvorum.cli.raw_text import is_text

BINARY = "$base64"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(e[+-]?[0-9]+)?")


class BadContent(ValueError):
    """What a file says cannot be kept, or keys cannot stand in a file; the text is one sentence."""


class Written(str):
    """A number as it is written in a file, beside what it is."""

    __slots__ = ("value",)
    value: Any

    @classmethod
    def of(cls, text: str, value: Any) -> Written:
        written = cls(text)
        written.value = value
        return written


def flatten(content: Any) -> dict[str, bytes]:
    """Keys and values of what a file says. Raises BadContent."""
    if not isinstance(content, Mapping):
        raise BadContent(f"expected a mapping of names to values at the top, found {_kind(content)}")
    found: dict[str, bytes] = {}
    for key, value in _leaves("", content):
        if key in found:
            raise BadContent(f"the key {shown(key.encode())} is given twice")
        found[key] = value
    return found


def _leaves(path: str, content: Mapping[Any, Any]) -> Iterator[tuple[str, bytes]]:
    for name, value in content.items():
        if not isinstance(name, str):
            raise BadContent(f"a name below {path or 'the top'!r} is {_kind(name)}: expected text")
        key = path + name
        if not is_text(name):
            raise BadContent(f"the name {name!r} is no Unicode text: half of a surrogate pair")
        if isinstance(value, Mapping) and not _is_binary(value):
            yield from _leaves(key + "/", value)
        else:
            yield key, _encoded(key, value)


def _is_binary(value: Mapping[Any, Any]) -> bool:
    return len(value) == 1 and isinstance(value.get(BINARY), str)


def _encoded(key: str, value: Any) -> bytes:
    match value:
        case bytes():
            return value
        case {"$base64": str(text)}:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                raise BadContent(f"the value of {key} is no base64, as {BINARY} says it is") from None
        case list():
            text = _json(key, value)
        case bool():
            text = "true" if value else "false"
        case None:
            text = ""
        case datetime.date() | datetime.time():  # a datetime is a date
            text = value.isoformat()
        case str() | int() | float():
            text = str(value)
        case _:
            raise BadContent(f"the value of {key} is {_kind(value)}, which no value can be")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadContent(f"the value of {key} is no Unicode text: half of a surrogate pair") from None


def _json(key: str, value: list[Any]) -> str:
    try:
        return json.dumps(_plain(key, value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise BadContent(f"the list of {key} has a number in it that JSON does not know") from None


def _plain(key: str, value: Any) -> Any:
    """What stands in a list, as JSON knows it."""
    match value:
        case Written():
            return value.value
        case list():
            return [_plain(key, item) for item in value]
        case Mapping():
            return {str(name): _plain(key, item) for name, item in value.items()}
        case bytes():
            return {BINARY: base64.b64encode(value).decode()}
        case datetime.date() | datetime.time():
            return value.isoformat()
    return value


def _kind(value: Any) -> str:
    kinds = {Written: "a number", str: "text", list: "a list", bool: "a boolean", int: "a number"}
    return "nothing" if value is None else kinds.get(type(value), f"a {type(value).__name__}")


@dataclass
class _Node:
    value: bytes | None = None
    children: dict[str, _Node] = field(default_factory=dict)


def nest(values: Mapping[str, bytes], *, typed: bool = False) -> dict[str, Any]:
    """Nested mappings in the order of ``values``; bytes that are no UTF-8 stay bytes."""
    root = _Node()
    for key, value in values.items():
        node = root
        for name in names(key):
            node = node.children.setdefault(name, _Node())
        node.value = value
    return _mapping(root, typed=typed)


def _mapping(node: _Node, *, typed: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, child in node.children.items():
        below = _mapping(child, typed=typed)
        if child.value is not None:
            found[name] = leaf(child.value, typed=typed)
        if not below:
            continue
        # A mapping of only $base64 would be read as bytes.
        if child.value is not None or list(below) == [BINARY]:
            found.update({f"{name}/{key}": value for key, value in below.items()})
        else:
            found[name] = below
    return found


def leaf(value: bytes, *, typed: bool = False) -> Any:
    """A value as it stands in a file."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    return _looks_like(text) if typed else text


def _looks_like(text: str) -> Any:
    """The boolean, number or list that is written exactly so, or the text."""
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    if text.startswith("[") and text.endswith("]"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if json.dumps(found, separators=(",", ":"), ensure_ascii=False) == text and _no_nulls(found):
            return found
    return text


def _no_nulls(value: Any) -> bool:
    """TOML has no null."""
    match value:
        case list():
            return all(map(_no_nulls, value))
        case dict():
            return all(map(_no_nulls, value.values()))
    return value is not None
