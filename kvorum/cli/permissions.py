"""The keys that a role is for: as etcdctl's arguments name them, and as it shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvorum.cli import output
from kvorum.cli.kv import Arguments
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, Settings
from kvorum.messages import prefix_end

KINDS = ("READ", "WRITE", "READWRITE")
OPEN = b"\0"
"""The end of a range that has none."""
_TWO_WAYS = "--from-key and --prefix flags are mutually exclusive"


def key_range(arguments: Arguments, *, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """Key and end of the range; no end for a key alone. The empty key is that of zero bytes, which all others
    are behind, since a permission cannot be for an empty one; its end is not looked at."""
    key = to_bytes(arguments[0])
    if prefix and from_key and (not key or len(arguments) == 1):
        raise Failure(_TWO_WAYS, EXIT_BAD_ARGUMENTS)
    if not key:
        return b"\0", OPEN if prefix or from_key else b""
    if len(arguments) > 1:
        if prefix or from_key:
            flag = "--prefix" if prefix else "--from-key"
            raise Failure(f"unexpected endkey argument with {flag} flag", EXIT_BAD_ARGUMENTS)
        return key, to_bytes(arguments[1])
    if prefix:
        return key, prefix_end(key)
    return key, OPEN if from_key else b""


def show(role: str, answer: dict[str, Any], settings: Settings) -> None:
    """What a role permits, from the answer about it."""
    output.refuse_table(settings)
    permissions = answer.get("perm", [])
    if settings.write_out == "json":
        output.write_json(output.as_go(answer))
    elif settings.write_out == "fields":
        output.write_lines([*output.header_fields(answer["header"]), *_fields(permissions)])
    else:
        output.write(b"Role %b\n" % to_bytes(role))
        for title, kinds in (("Read", ("READ", "READWRITE")), ("Write", ("WRITE", "READWRITE"))):
            output.write_lines([f"KV {title}:"])
            for one in permissions:
                if _kind(one) in kinds:
                    output.write(b"\t%b\n" % _keys(output.raw(one, "key"), output.raw(one, "range_end")))


def revoked(key: bytes, end: bytes) -> bytes:
    """Of what the permission was, in etcdctl's words."""
    return b"range " + _interval(key, end) if end else b"key " + key


def _keys(key: bytes, end: bytes) -> bytes:
    if not end:
        return key
    interval = _interval(key, end)
    return interval + b" (prefix %b)" % key if prefix_end(key) == end else interval


def _interval(key: bytes, end: bytes) -> bytes:
    return b"[%b, <open ended>" % key if end == OPEN else b"[%b, %b)" % (key, end)


def _fields(permissions: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for one in permissions:
        lines += [
            f'"PermType" :  {_kind(one)}',
            f'"Key" : {output.go_quoted(output.raw(one, "key"))}',
            f'"RangeEnd" : {output.go_quoted(output.raw(one, "range_end"))}',
        ]
    return lines


def _kind(permission: dict[str, Any]) -> str:
    """The gateway leaves the first one out, as it does with all that is zero."""
    kind: str = permission.get("permType", KINDS[0])
    return kind
