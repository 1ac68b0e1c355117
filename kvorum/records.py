"""From the keys below a prefix to a dataclass.

    @dataclass
    class Database:
        host: str
        port: int = 5432

    @dataclass
    class Settings:
        database: Database
        tags: list[str] = field(default_factory=list)

    read = dataclass_reader(Settings)
    read({"database/host": b"db1", "tags": b'["a", "b"]'})     # Settings(Database("db1", 5432), ["a", "b"])

Each field is a key (``kvorum.decoding`` tells how its value is read), each nested dataclass a level of keys;
``field(metadata={"key": "max-open"})`` names another key. A field without a key takes its default; an
optional one that has none is None. Of a nested dataclass with a default, the keys that are there replace
parts. Keys that belong to no field are ignored: they may be of another version of the application.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from kvorum.decoding import Kind, Unfit, hints_of, is_dataclass_type, kind_of, without_none
from kvorum.errors import KvorumError

T = TypeVar("T")
Content = Mapping[str, bytes]
"""What stands below the prefix: the rest of each key, and its value."""
_MISSING: Any = dataclasses.MISSING


class Problem(NamedTuple):
    """``path`` is the rest of a key's name; empty for what concerns several keys."""

    path: str
    text: str


class InvalidConfig(KvorumError):
    """Keys do not make what they are bound to; ``problems`` are all that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in problems))
        self.problems = tuple(problems)

    def below(self, prefix: str) -> InvalidConfig:
        """The same, in which the keys have their whole names."""
        return InvalidConfig([Problem(prefix + path, text) for path, text in self.problems])


def dataclass_reader(kind: type[T]) -> Callable[[Content], T]:
    """What makes a ``kind`` of keys and values, or raises InvalidConfig. Raises TypeError, at once, where a
    field's type is none that can be read from a key."""
    try:
        record = _record(kind)
    except RecursionError:
        raise TypeError(
            f"{kind.__qualname__} contains itself: expected a type whose keys have an end"
        ) from None

    def read(content: Content) -> T:
        problems: list[Problem] = []
        made = record.read("", content, _MISSING, problems)
        if problems:
            raise InvalidConfig(problems)
        return cast(T, made)

    return read


class _Field(NamedTuple):
    name: str
    key: str
    kind: Kind | _Record
    is_optional: bool
    default: Callable[[], Any] | None


class _Record(NamedTuple):
    make: type
    fields: list[_Field]

    def read(self, path: str, content: Content, given: Any, problems: list[Problem]) -> Any:
        """An object of what stands below ``path``; what does not stand there is as in ``given``, if that is
        one. Where there are new problems, what is returned is nothing."""
        before = len(problems)
        values = {field.name: _read(field, path, content, given, problems) for field in self.fields}
        if len(problems) > before:
            return None
        try:
            return self.make(**values)
        except Exception as error:  # what __post_init__ refuses
            problems.append(Problem(path.rstrip("/"), f"{self.make.__qualname__} refuses it: {error}"))
            return None


def _record(kind: type) -> _Record:
    hints = hints_of(kind)
    return _Record(
        kind, [_field(kind, field, hints[field.name]) for field in dataclasses.fields(kind) if field.init]
    )


def _field(kind: type, field: dataclasses.Field[Any], annotation: Any) -> _Field:
    inner, is_optional = without_none(annotation)
    default: Callable[[], Any] | None = None
    if callable(field.default_factory):
        default = field.default_factory
    elif field.default is not _MISSING:
        default = _constant(field.default)
    read = _record(inner) if is_dataclass_type(inner) else kind_of(inner, f"{kind.__qualname__}.{field.name}")
    return _Field(field.name, field.metadata.get("key", field.name), read, is_optional, default)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _read(field: _Field, path: str, content: Content, given: Any, problems: list[Problem]) -> Any:
    key, kind = path + field.key, field.kind
    if isinstance(kind, _Record):
        below, base = f"{key}/", _fallback(field, given)
        if base is not _MISSING and not any(one.startswith(below) for one in content):
            return base
        return kind.read(below, content, base if isinstance(base, kind.make) else _MISSING, problems)
    if key in content:
        try:
            return kind.from_text(content[key])
        except Unfit as error:
            problems.append(Problem(key, str(error)))
            return None
    found = _fallback(field, given)
    if found is _MISSING:
        problems.append(Problem(key, f"expected {kind.name}, but there is no such key"))
    return found


def _fallback(field: _Field, given: Any) -> Any:
    if given is not _MISSING:
        return getattr(given, field.name)
    if field.default is not None:
        return field.default()
    return None if field.is_optional else _MISSING
