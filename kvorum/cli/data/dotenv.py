"""The format of .env files, such that a shell's ``source`` and dotenv libraries read the same.

# a comment
export NAME=value            # behind a space, a comment too
SINGLE='as it is, also
over lines'
DOUBLE="\\n, \\r, \\t, \\\\, \\", \\$ are escapes; $NAME is not replaced"
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kvorum.cli.data.nesting import BadContent

_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s=#'\"]+)[ \t]*=")
_SPACE = re.compile(r"[ \t]*")
_REST = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)")
_BARE = re.compile(r"[^\n]*?(?=[ \t]+#|[ \t]*\r?(?:\n|\Z))")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\([nrt\n\\\"$`])")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\n": ""}
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")


def read(text: str) -> dict[str, str]:
    """Raises BadContent, with the line."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if blank := _REST.match(text, at):
            at = blank.end()
            continue
        if not (name := _NAME.match(text, at)):
            raise BadContent(f"line {_line(text, at)}: expected NAME=value")
        if name[1] in found:
            raise BadContent(f"line {_line(text, at)}: {name[1]} is given twice")
        found[name[1]], at = _value(text, name.end())
    return found


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins there, and where the next line does."""
    space = _SPACE.match(text, at)
    assert space is not None
    match text[space.end() : space.end() + 1]:
        case "'":
            found = _SINGLE.match(text, space.end())
        case '"':
            found = _DOUBLE.match(text, space.end())
        case _:
            found = _BARE.match(text, at)
    if found is None:
        raise BadContent(f"line {_line(text, at)}: a quote is not closed")
    if not (rest := _REST.match(text, found.end())):
        raise BadContent(f"line {_line(text, found.end())}: something follows the closing quote")
    if found.re is _BARE:
        return found[0].strip(), rest.end()
    if found.re is _SINGLE:
        return found[1], rest.end()
    return _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[1]), found[1]), rest.end()


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def write(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={_quoted(value)}\n" for name, value in values.items())


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if "'" not in value:
        return f"'{value}'"
    # As in a shell: what has a meaning in double quotes is escaped, and a line break stands as it is.
    return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'
