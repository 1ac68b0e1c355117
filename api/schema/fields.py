"""Protobuf messages from parsed JSON, by tables of their fields: API.md 1.5.

Fields are read in the order of their proto numbers, as etcd does, so that of several mistakes
the same one is reported, and of several members of a oneof the same one wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from api.errors import BadRequest
from api.schema.base64_go import decode
from api.schema.go_json import GoNumber, go_quote, parse_scalar

_INTEGER = re.compile(r"-?\d+")
_PLAIN_INTEGER = re.compile("[1-9][0-9]*").fullmatch  # of up to 18 digits it fits into 64 bits, signed or not
_INT64 = (-(1 << 63), (1 << 63) - 1)
_UINT64 = (0, (1 << 64) - 1)
_INT32 = (-(1 << 31), (1 << 31) - 1)


class Field(NamedTuple):
    """``name`` is the proto name, ``read`` turns what JSON has into the value."""

    name: str
    read: Callable[[Any], Any]

    @property
    def camel_name(self) -> str:
        head, *rest = self.name.split("_")
        return head + "".join(part.capitalize() for part in rest)


class Message:
    """A message type; ``read`` gives the fields that are present, by proto name."""

    def __init__(self, *fields: Field) -> None:
        # The other spelling, where there is one.
        self._fields = [
            (field.name, field.camel_name if field.camel_name != field.name else None, field.read)
            for field in fields
        ]

    def read(self, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise mismatch(value, "map[string]json.RawMessage")
        members: dict[str, Any] = value
        found: dict[str, Any] = {}
        for name, camel_name, read in self._fields:
            given = members.get(name)
            if given is None and camel_name is not None:
                given = members.get(camel_name)
            if given is not None:
                found[name] = read(given)
                if len(found) == len(members):
                    break  # nothing else is given
        return found


def mismatch(value: Any, go_type: str) -> BadRequest:
    """Go's words for a value of the wrong kind."""
    return BadRequest(f"json: cannot unmarshal {_kind(value)} into Go value of type {go_type}")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, GoNumber | int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def read_bytes(value: Any) -> bytes:
    if type(value) is str or (isinstance(value, str) and not isinstance(value, GoNumber)):
        return decode(value)
    if isinstance(value, list):
        # What Go makes of an array of numbers.
        return bytes(_integer(item, "uint8", (0, 255)) for item in value)
    raise mismatch(value, "[]uint8")


def read_int64(value: Any) -> int:
    return _integer64(value, "int64", _INT64)


def read_uint64(value: Any) -> int:
    return _integer64(value, "uint64", _UINT64)


def _integer64(value: Any, go_type: str, limits: tuple[int, int]) -> int:
    """64 bits may also come as a string, since JavaScript's numbers do not hold as many."""
    if isinstance(value, str) and not isinstance(value, GoNumber):
        if len(value) < 19 and _PLAIN_INTEGER(value):
            return int(value)
        value = parse_scalar(value)
        if value is None:
            return 0
    return _integer(value, go_type, limits)


def _integer(value: Any, go_type: str, limits: tuple[int, int]) -> int:
    low, high = limits
    if type(value) is int and low <= value <= high:
        return value
    if isinstance(value, GoNumber):
        number = _to_integer(value)
        if number is not None and low <= number <= high:
            return number
        raise BadRequest(f"json: cannot unmarshal number {value} into Go value of type {go_type}")
    raise mismatch(value, go_type)


def _to_integer(text: str) -> int | None:
    """An integer that is written as such, or with an exponent (as newer gateways take it)."""
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= 20 else None
    mantissa, _, exponent = text.lower().partition("e")
    if _INTEGER.fullmatch(mantissa) and exponent.lstrip("+").isdigit() and len(mantissa) <= 20:
        power = int(exponent) if len(exponent) <= 3 else 100
        return int(mantissa) * int(10 ** min(power, 20))
    return None


def read_string(value: Any) -> str:
    if value is None:
        return ""  # in a list; as a field it would be absent
    if isinstance(value, str) and not isinstance(value, GoNumber):
        return value
    raise mismatch(value, "string")


def read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise mismatch(value, "bool")


def enum_reader(go_name: str, names: Sequence[str]) -> Callable[[Any], int]:
    """Reads a name, or any number: protobuf enums are open."""
    numbers = {name: number for number, name in enumerate(names)}

    def read(value: Any) -> int:
        if isinstance(value, str) and not isinstance(value, GoNumber):
            if value not in numbers:
                shown = go_quote('"' + value + '"')
                raise BadRequest(f"unknown value {shown} for enum {go_name}")
            return numbers[value]
        return _integer(value, "protoreflect.EnumNumber", _INT32)

    return read


def repeated(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda value: [read(item) for item in items(value)]


def items(value: Any) -> list[Any]:
    """Those of a repeated field."""
    if not isinstance(value, list):
        raise mismatch(value, "[]json.RawMessage")
    return value
