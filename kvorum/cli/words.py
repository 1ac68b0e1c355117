"""Lines of the interactive commands (txn, watch -i), taken apart into words as etcdctl does it."""

from __future__ import annotations

import re

from kvorum.cli.raw_text import to_text

_WORD = re.compile(r"""(?P<double>"(?:[^"\\]|\\.)*")|'(?P<single>[^']*)'|(?P<bare>[^'"\s]\S*)""")
_ESCAPE = re.compile(
    r"""\\(?:(?P<one>[abfnrtv\\"])|x(?P<x>[0-9a-fA-F]{2})|(?P<octal>[0-3][0-7]{2})"""
    r"""|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|(?P<bad>.?))""",
    re.DOTALL,
)
_NAMED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}


def split(line: str) -> list[str]:
    """Words between spaces, or in quotes: in ``'…'`` as they stand, in ``"…"`` with Go's escapes. Raises
    ValueError for an escape that is none."""
    words = []
    for found in _WORD.finditer(line):
        if found["double"] is not None:
            words.append(unquoted(found["double"]))
        else:
            words.append(found["bare"] if found["single"] is None else found["single"])
    return words


def unquoted(text: str) -> str:
    """What Go means by ``"…"``, or by backquotes without escapes. Raises ValueError as ``split``."""
    return text[1:-1] if text[0] == "`" else _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(escape: re.Match[str]) -> str:
    if escape["one"]:
        return _NAMED[escape["one"]]
    if escape["x"]:
        return to_text(bytes([int(escape["x"], 16)]))
    if escape["octal"]:
        return to_text(bytes([int(escape["octal"], 8)]))
    code = escape["u"] or escape["U"]
    if not code or int(code, 16) > 0x10FFFF:
        raise ValueError("invalid syntax")
    return chr(int(code, 16))
