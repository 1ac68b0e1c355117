"""The compares of txn, such as ``mod("key") > "0"``: etcdctl's language, and its words for what is none."""

from __future__ import annotations

import re
from typing import Any

from kvorum.cli import words
from kvorum.cli.kv import go_integer
from kvorum.cli.output import go_quoted
from kvorum.cli.raw_text import to_bytes
from kvorum.messages import b64

_QUOTED = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`)')
_CLOSED = re.compile(r"\)\s+(\S+)")
_RESULTS = {"=": "EQUAL", ">": "GREATER", "<": "LESS", "!=": "NOT_EQUAL"}
_TARGETS = {
    **dict.fromkeys(("ver", "version"), ("VERSION", "version")),
    **dict.fromkeys(("c", "create"), ("CREATE", "create_revision")),
    **dict.fromkeys(("m", "mod"), ("MOD", "mod_revision")),
    **dict.fromkeys(("val", "value"), ("VALUE", "value")),
    "lease": ("LEASE", "lease"),
}


def parsed(line: str) -> dict[str, Any]:
    """As it stands in a request. Raises ValueError in etcdctl's words."""
    target, paren, rest = line.partition("(")
    if not paren:
        raise ValueError(f"malformed comparison: {line}")
    key, result, operand = _parts(line, target, rest)
    if target not in _TARGETS:
        raise ValueError(f"malformed comparison: {line} (unknown target {target})")
    if result not in _RESULTS:
        raise ValueError(f"malformed comparison: {line} (unknown operator {result})")
    kind, member = _TARGETS[target]
    value = b64(to_bytes(operand))
    if kind != "VALUE":
        try:
            value = str(go_integer(operand, 16 if kind == "LEASE" else 10))
        except ValueError:
            raise ValueError(f"invalid txn compare request: {line}") from None
    return {"key": b64(to_bytes(key)), "target": kind, "result": _RESULTS[result], member: value}


def _parts(line: str, target: str, rest: str) -> tuple[str, str, str]:
    """Key, operator and operand. What stands behind them is not read, as in etcdctl."""
    key = result = ""
    quoted_key = _QUOTED.match(rest)
    try:
        if quoted_key:
            key = words.unquoted(quoted_key[1])
            if closed := _CLOSED.match(rest, quoted_key.end()):
                result = closed[1]
                if operand := _QUOTED.match(rest, closed.end()):
                    return key, result, words.unquoted(operand[1])
    except ValueError:
        pass  # an escape that is none
    shown = [go_quoted(to_bytes(text)) for text in (key, "")]
    raise ValueError(f"malformed comparison: {line}; got {target}({shown[0]}) {result} {shown[1]}")
