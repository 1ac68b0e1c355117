"""Reading JSON as Go's encoding/json does, for everything the fast path does not understand.

Go takes some things that other parsers refuse (bytes that are not UTF-8, anything behind the
first value) and has its own words for what it refuses. Clients show and match those words, so
they are reproduced here. This runs only when something is wrong or unusual.
"""

from __future__ import annotations

import json
from typing import Any

from api.errors import BadRequest

MAX_DEPTH = 10_000
_SPACE = b" \t\r\n"
_DIGITS = b"0123456789"
_HEX = b"0123456789abcdefABCDEF"
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_UNESCAPED_QUOTE = {"'": "\\'", '"': '"'}


class GoNumber(str):
    """A number as it was written."""


def parse(data: bytes) -> Any:
    """The first JSON value in ``data``; {} if there is none. Numbers come as GoNumber.

    Raises BadRequest with Go's text.
    """
    start = _skip_space(data, 0)
    if start == len(data):
        return {}
    end = scan(data, start)
    try:
        return json.loads(
            data[start:end].decode("utf-8", "replace"), parse_float=GoNumber, parse_int=GoNumber
        )
    except RecursionError:
        # Go goes down to 10,000; no request of etcd's nests anywhere near as deep as this.
        raise BadRequest("the JSON value is nested too deeply") from None


def parse_scalar(text: str) -> Any:
    """A value inside a string, as in "12" for an integer. Raises BadRequest."""
    data = text.encode("utf-8", "surrogatepass")
    start = _skip_space(data, 0)
    if start == len(data):
        raise BadRequest("unexpected end of JSON input")
    # Unlike a stream's, this value's end is known: Go puts a space behind it, and reads on.
    end = scan(data + b" ", start)
    rest = _skip_space(data, end)
    if rest < len(data):
        raise BadRequest(f"invalid character {quote(data[rest])} after top-level value")
    return json.loads(data[start:end].decode("utf-8", "replace"), parse_float=GoNumber, parse_int=GoNumber)


def quote(byte: int) -> str:
    """A byte as Go quotes it in these messages."""
    character = chr(byte)
    if character in _UNESCAPED_QUOTE:
        return f"'{_UNESCAPED_QUOTE[character]}'"
    return f"'{go_quote(character)[1:-1]}'"


def go_quote(text: str) -> str:
    """A string as Go's %q shows it."""
    named = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    pieces = []
    for character in text:
        code = ord(character)
        if character in '"\\':
            pieces.append("\\" + character)
        elif character in named:
            pieces.append(named[character])
        elif character.isprintable():
            pieces.append(character)
        elif code < 0x20 or code == 0x7F:
            pieces.append(f"\\x{code:02x}")
        elif code < 0x10000:
            pieces.append(f"\\u{code:04x}")
        else:
            pieces.append(f"\\U{code:08x}")
    return '"' + "".join(pieces) + '"'


def scan(data: bytes, start: int) -> int:
    """Where the JSON value that begins at ``start`` ends. Raises BadRequest with Go's text."""
    open_brackets: list[int] = []
    position = start
    context = "looking for beginning of value"
    while True:
        position = _begin_value(data, position, open_brackets, context)
        context = "looking for beginning of value"
        # A value is complete, or a bracket was opened and closed at once: what follows?
        while open_brackets:
            position = _skip_space(data, position)
            in_object = open_brackets[-1] == ord("{")
            byte = _byte(data, position)
            if byte == (ord("}") if in_object else ord("]")):
                open_brackets.pop()
                position += 1
                continue
            if byte != ord(","):
                where = "object key:value pair" if in_object else "array element"
                raise _invalid(byte, f"after {where}")
            position = _skip_space(data, position + 1)
            if in_object:
                position = _object_key(data, position)
            break
        else:
            return position


def _begin_value(data: bytes, position: int, open_brackets: list[int], context: str) -> int:
    """Scan one value, opening brackets as far as they go, until a value is complete."""
    while True:
        position = _skip_space(data, position)
        byte = _byte(data, position)
        if byte in b"{[":
            open_brackets.append(byte)
            if len(open_brackets) > MAX_DEPTH:
                raise BadRequest(f"invalid character {quote(byte)} exceeded max depth")
            position = _skip_space(data, position + 1)
            following = _byte(data, position)
            if following == (ord("}") if byte == ord("{") else ord("]")):
                open_brackets.pop()
                return position + 1
            if byte == ord("{"):
                position = _object_key(data, position)
            continue
        if byte == ord('"'):
            return _string(data, position + 1)
        if byte in b"-0123456789":
            return _number(data, position)
        if byte in _LITERALS:
            return _literal(data, position, _LITERALS[byte])
        raise _invalid(byte, context)


def _object_key(data: bytes, position: int) -> int:
    byte = _byte(data, position)
    if byte != ord('"'):
        raise _invalid(byte, "looking for beginning of object key string")
    position = _skip_space(data, _string(data, position + 1))
    byte = _byte(data, position)
    if byte != ord(":"):
        raise _invalid(byte, "after object key")
    return position + 1


def _string(data: bytes, position: int) -> int:
    while True:
        byte = _byte(data, position)
        position += 1
        if byte == ord('"'):
            return position
        if byte < 0x20:
            raise _invalid(byte, "in string literal")
        if byte != ord("\\"):
            continue
        escaped = _byte(data, position)
        position += 1
        if escaped == ord("u"):
            for _ in range(4):
                digit = _byte(data, position)
                if digit not in _HEX:
                    raise _invalid(digit, "in \\u hexadecimal character escape")
                position += 1
        elif escaped not in b'bfnrt\\/"':
            raise _invalid(escaped, "in string escape code")


def _number(data: bytes, position: int) -> int:
    if data[position] == ord("-"):
        position += 1
        if _byte(data, position) not in _DIGITS:
            raise _invalid(data[position], "in numeric literal")
    position = position + 1 if data[position] == ord("0") else _digits(data, position)
    if data[position : position + 1] == b".":
        position += 1
        if _byte(data, position) not in _DIGITS:
            raise _invalid(data[position], "after decimal point in numeric literal")
        position = _digits(data, position)
    if data[position : position + 1] in (b"e", b"E"):
        position += 1
        if _byte(data, position) in b"+-":
            position += 1
        if _byte(data, position) not in _DIGITS:
            raise _invalid(data[position], "in exponent of numeric literal")
        position = _digits(data, position)
    return position


def _digits(data: bytes, position: int) -> int:
    while position < len(data) and data[position] in _DIGITS:
        position += 1
    return position


def _literal(data: bytes, position: int, literal: bytes) -> int:
    for expected in literal[1:]:
        position += 1
        byte = _byte(data, position)
        if byte != expected:
            raise _invalid(byte, f"in literal {literal.decode()} (expecting {quote(expected)})")
    return position + 1


def _skip_space(data: bytes, position: int) -> int:
    while position < len(data) and data[position] in _SPACE:
        position += 1
    return position


def _byte(data: bytes, position: int) -> int:
    if position >= len(data):
        raise BadRequest("unexpected EOF")
    return data[position]


def _invalid(byte: int, context: str) -> BadRequest:
    return BadRequest(f"invalid character {quote(byte)} {context}")
