"""Java's .properties: the syntax of java.util.Properties, and names with dots for paths.

``db.host`` is the key ``db/host``. A dot of the key itself is written ``\\.`` (and so ``\\\\.`` in the
file, where a backslash is doubled), a backslash ``\\\\``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kvorum.cli.data.nesting import BadContent

_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_NAME = re.compile(r"((?:[^\\=:\s]|\\.)*)[ \t\f]*[=:]?[ \t\f]*", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SPACE = " \t\f"


def read(text: str) -> dict[str, str]:
    """Keys, with slashes, and values. Raises BadContent, with the line."""
    found: dict[str, str] = {}
    for number, line in _logical_lines(text):
        match = _NAME.match(line)
        assert match is not None
        try:
            key, value = _key(_unescaped(match[1])), _unescaped(line[match.end() :])
        except ValueError as problem:
            raise BadContent(f"line {number}: {problem}") from None
        if key in found:
            raise BadContent(f"line {number}: {match[1]} is given twice")
        found[key] = value
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; one that ends in a backslash goes on in the next."""
    parts: list[str] = []
    for number, natural in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        line = natural.lstrip(_SPACE)
        if not parts and (not line or line[0] in "#!"):
            continue
        backslashes = len(line) - len(line.rstrip("\\"))
        parts.append(line[: len(line) - backslashes % 2])
        if backslashes % 2 == 0:
            yield number - len(parts) + 1, "".join(parts)
            parts = []
    if any(parts):  # the last line of the file goes on in nothing
        yield number - len(parts) + 1, "".join(parts)


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] == "u":
            raise ValueError("\\u is not followed by four hexadecimal digits")
        return chr(int(match[1][1:], 16)) if len(match[1]) > 1 else _ESCAPED.get(match[1], match[1])

    # Characters beyond the first plane are written as two halves.
    halves = _ESCAPE.sub(one, text).encode("utf-16-le", "surrogatepass")
    try:
        return halves.decode("utf-16-le")
    except UnicodeDecodeError:
        raise ValueError("\\u gives half of a surrogate pair") from None


def _key(name: str) -> str:
    return re.sub(r"\\([.\\])|\.", lambda m: m[1] or "/", name)


def write(values: Mapping[str, str]) -> str:
    lines = []
    for key, value in values.items():
        name = re.sub(r"[.\\]", r"\\\g<0>", key).replace("/", ".")
        lines.append(f"{_escaped(name, of_name=True)}={_escaped(value)}\n")
    return "".join(lines)


def _escaped(text: str, *, of_name: bool = False) -> str:
    text = text.replace("\\", "\\\\")
    for letter, character in _ESCAPED.items():
        text = text.replace(character, "\\" + letter)
    text = re.sub(r"[ =:#!]" if of_name else r"^ ", r"\\\g<0>", text)
    # ASCII, so that it is the same in the old encoding, Latin-1, and in UTF-8.
    return re.sub(r"[^\x20-\x7e]", lambda m: _as_utf16(m[0]), text)


def _as_utf16(character: str) -> str:
    data = character.encode("utf-16-be")
    return "".join(f"\\u{data[at : at + 2].hex()}" for at in range(0, len(data), 2))
