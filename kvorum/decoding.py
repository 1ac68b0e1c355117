"""How the value of one key is read as a Python type.

    kind = kind_of(int)
    kind.name                   # "an int"
    kind.from_text(b"80\\n")     # 80
    kind.from_text(b"many")     # Unfit: expected an int, its value is 'many'

Numbers, booleans (true, false, yes, no, on, off, 1, 0), paths, literals and enumerations (by value, or by
name) are read from text, whatever white space stands around; ``str`` and ``bytes`` are the value as it is.
Lists, tuples, sets and dictionaries are JSON, and so are dataclasses that stand within these. Of a union, it
is the first type that the value fits.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import json
import pathlib
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

_SHOWN_CHARACTERS = 40
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_LISTS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Set: frozenset,
}
_DICTIONARIES = (dict, collections.abc.Mapping)


class Unfit(ValueError):
    """A value is not what its type expects; the message begins with "expected"."""


class Kind(NamedTuple):
    """How values of a type are read. Both ways raise Unfit."""

    name: str
    """With its article."""
    from_text: Callable[[bytes], Any]
    from_json: Callable[[Any], Any]


def kind_of(annotation: Any, where: str = "the value") -> Kind:
    """Raises TypeError, naming ``where`` the annotation stands, if it is none of those above."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(arguments[0], where)
    if origin in (typing.Union, types.UnionType):
        return _union([kind_of(one, where) for one in arguments])
    if origin is typing.Literal:
        return _choice(arguments, f"one of {', '.join(map(repr, arguments))}")
    outer = origin or annotation
    if outer is tuple:
        return _tuple(arguments, where)
    if outer in _LISTS:
        return _list(_LISTS[outer], kind_of(arguments[0], where) if arguments else _ANY)
    if outer in _DICTIONARIES:
        return _dictionary(arguments, where)
    if is_dataclass_type(annotation):
        return _object(annotation)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _enumeration(annotation)
    if (kind := _SIMPLE.get(annotation)) is not None:
        return kind
    raise TypeError(
        f"{where} is of type {name_of(annotation)}, which cannot be read from a key: expected str, bytes, "
        "int, float, bool, Path, an Enum, a Literal, a list, tuple, set or dict of these, or a dataclass"
    )


def without_none(annotation: Any) -> tuple[Any, bool]:
    """The type without "or None", and whether that was there."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    rest = [one for one in typing.get_args(annotation) if one is not type(None)]
    if len(rest) == len(typing.get_args(annotation)):
        return annotation, False
    return (typing.Union[tuple(rest)], True)  # noqa: UP007  # there is no other way to say so


def is_dataclass_type(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def hints_of(kind: type) -> dict[str, Any]:
    """The types of a class's attributes. Raises TypeError where one is a name that is not to be found."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"the types of {kind.__qualname__} cannot be told: {error}; "
            f"expected names that module {kind.__module__} knows"
        ) from None


def has_default(field: dataclasses.Field[Any]) -> bool:
    return (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)


def name_of(annotation: Any) -> str:
    return annotation.__qualname__ if type(annotation) is type else str(annotation).replace("typing.", "")


def unfit(name: str, value: object) -> NoReturn:
    shown = value if isinstance(value, str) else json.dumps(value, default=str)
    raise Unfit(f"expected {name}, its value is {cut(shown)!r}")


def cut(text: str) -> str:
    """As much of it as belongs in a message."""
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Unfit(f"expected text in UTF-8, its value is {data[:_SHOWN_CHARACTERS]!r}") from None


# ---- one value -----------------------------------------------------------------------------------


def _scalar(name: str, parse: Callable[[str], Any], json_types: tuple[type, ...]) -> Kind:
    def from_text(data: bytes) -> Any:
        text = text_of(data).strip()
        try:
            return parse(text)
        except ValueError:
            unfit(name, text)

    def from_json(value: Any) -> Any:
        if not isinstance(value, json_types) or (isinstance(value, bool) and bool not in json_types):
            unfit(name, value)
        return parse(value) if isinstance(value, str) and str not in json_types else value

    return Kind(name, from_text, from_json)


def _boolean(text: str) -> bool:
    found = _BOOLEANS.get(text.lower())
    if found is None:
        raise ValueError(text)
    return found


def _str(value: Any) -> str:
    return value if isinstance(value, str) else unfit("a str", value)


def _path(value: Any) -> pathlib.Path:
    return pathlib.Path(value) if isinstance(value, str) and value else unfit("a Path", value)


def _float(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        unfit("a float", value)
    return float(value)


def _none(value: Any) -> None:
    if value is not None:
        unfit("null", value)


_SIMPLE: dict[Any, Kind] = {
    int: _scalar("an int", lambda text: int(text, 10), (int,)),
    float: _scalar("a float", float, (float,))._replace(from_json=_float),
    bool: _scalar("a bool (true or false)", _boolean, (bool,)),
    str: Kind("a str", text_of, _str),
    bytes: Kind("bytes", lambda data: data, lambda value: _str(value).encode()),
    pathlib.Path: Kind("a Path", lambda data: _path(text_of(data).strip()), _path),
    type(None): Kind("null", lambda data: _none(text_of(data).strip() or None), _none),
    Any: Kind("anything", text_of, lambda value: value),
}
_ANY = _SIMPLE[Any]


def _choice(values: Iterable[Any], name: str, made: Callable[[Any], Any] = lambda value: value) -> Kind:
    """One of several values, which stand for themselves in JSON."""
    by_text = {str(value): value for value in values}

    def from_text(data: bytes) -> Any:
        text = text_of(data).strip()
        return made(by_text[text]) if text in by_text else unfit(name, text)

    def from_json(value: Any) -> Any:
        for one in by_text.values():
            if one == value and type(one) is type(value):
                return made(one)
        unfit(name, value)

    return Kind(name, from_text, from_json)


def _enumeration(kind: type[enum.Enum]) -> Kind:
    """By value, which comes first where both fit, or by name."""
    name = f"one of {', '.join(str(one.value) for one in kind)} ({kind.__qualname__})"
    by_value = _choice((one.value for one in kind), name, kind)
    by_name = _choice((one.name for one in kind), name, kind.__getitem__)
    return _union([by_value, by_name])._replace(name=name)


def _union(kinds: list[Kind]) -> Kind:
    name = " or ".join(dict.fromkeys(kind.name for kind in kinds))

    def first(ways: list[Callable[[Any], Any]], value: Any) -> Any:
        for way in ways:
            try:
                return way(value)
            except Unfit:
                continue
        unfit(name, value.decode(errors="replace") if isinstance(value, bytes) else value)

    texts, jsons = [kind.from_text for kind in kinds], [kind.from_json for kind in kinds]
    return Kind(name, lambda data: first(texts, data), lambda value: first(jsons, value))


# ---- several values, in JSON -----------------------------------------------------------------------


def json_kind(name: str, from_json: Callable[[Any], Any]) -> Kind:
    def from_text(data: bytes) -> Any:
        text = text_of(data)
        try:
            return from_json(json.loads(text))
        except Unfit:
            raise
        except (ValueError, RecursionError):
            unfit(f"{name} in JSON", text)

    return Kind(name, from_text, from_json)


def _list(make: Callable[[Iterable[Any]], Any], element: Kind) -> Kind:
    name = "a list" if element is _ANY else f"a list of {_plain(element)}"

    def from_json(value: Any) -> Any:
        if not isinstance(value, list):
            unfit(name, value)
        found = [_within(f"[{index}]", element, one) for index, one in enumerate(value)]
        try:
            return make(found)
        except TypeError:  # a set of lists
            unfit(f"{name} whose elements can stand in a set", value)

    return json_kind(name, from_json)


def _tuple(arguments: tuple[Any, ...], where: str) -> Kind:
    if not arguments or arguments[-1] is Ellipsis:
        return _list(tuple, kind_of(arguments[0], where) if arguments else _ANY)
    kinds = [kind_of(one, where) for one in arguments]
    name = f"a list of {', '.join(map(_plain, kinds))}"

    def from_json(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(kinds):
            unfit(name, value)
        return tuple(
            _within(f"[{i}]", kind, one) for i, (kind, one) in enumerate(zip(kinds, value, strict=True))
        )

    return json_kind(name, from_json)


def _dictionary(arguments: tuple[Any, ...], where: str) -> Kind:
    """JSON's keys are text, and are read as a key's value is."""
    keys, values = (kind_of(one, where) for one in arguments) if arguments else (_ANY, _ANY)
    name = "a dict" if values is _ANY else f"a dict of {_plain(values)}"

    def from_json(value: Any) -> Any:
        if not isinstance(value, dict):
            unfit(name, value)
        return {
            keys.from_text(key.encode()): _within(f"[{key!r}]", values, one) for key, one in value.items()
        }

    return json_kind(name, from_json)


def _object(kind: type) -> Kind:
    """A dataclass within a list or the like."""
    name, hints = f"a {kind.__qualname__}", hints_of(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    kinds = {field.name: kind_of(hints[field.name], f"{kind.__qualname__}.{field.name}") for field in fields}
    required = [field.name for field in fields if not has_default(field)]

    def from_json(value: Any) -> Any:
        if not isinstance(value, dict):
            unfit(name, value)
        if missing := [one for one in required if one not in value]:
            unfit(f"{name} with {', '.join(missing)}", value)
        found = {one: _within(f".{one}", kinds[one], value[one]) for one in kinds if one in value}
        try:
            return kind(**found)
        except Exception as error:  # what __post_init__ refuses
            raise Unfit(f"expected {name}: {error}") from None

    return json_kind(name, from_json)


def _within(place: str, kind: Kind, value: Any) -> Any:
    try:
        return kind.from_json(value)
    except Unfit as error:
        raise Unfit(f"{place}: {error}" if str(error)[0] not in "[." else f"{place}{error}") from None


def _plain(kind: Kind) -> str:
    """Its name without the article."""
    first, _, rest = kind.name.partition(" ")
    return rest if first in ("a", "an") else kind.name
