"""From the keys below a prefix to a pydantic model (version 2).

Fields are keys, and models, or dataclasses, are levels of keys, as in ``kvorum.records``; a field with an
alias is the key of that name. Values are given to pydantic as text, which it turns into numbers and the like;
those of lists, dictionaries and what stands within them are JSON.

Pydantic is not imported here: who binds such a model has it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from kvorum.decoding import cut, has_default, hints_of, is_dataclass_type, name_of, without_none
from kvorum.records import Content, InvalidConfig, Problem

T = TypeVar("T")
_JSON = (collections.abc.Collection, collections.abc.Mapping)
_TEXT = (str, bytes)


def is_model_type(kind: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def model_reader(kind: type[T]) -> Callable[[Content], T]:
    """What makes a ``kind`` of keys and values, or raises InvalidConfig."""
    pydantic, model = sys.modules["pydantic"], cast(Any, kind)

    def read(content: Content) -> T:
        gathering = _Gathering(content)
        found = gathering.of(kind, "")
        if gathering.problems:
            raise InvalidConfig(gathering.problems)
        try:
            return cast(T, model.model_validate(found))
        except pydantic.ValidationError as error:
            told = error.errors(include_url=False, include_context=False)
            raise InvalidConfig([gathering.problem(one) for one in told]) from None

    return read


class _Gathering:
    """What is given to pydantic, and what its errors mean in terms of keys."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._types: dict[str, str] = {}  # of each key that could be there
        self.problems: list[Problem] = []

    def of(self, kind: type, path: str) -> dict[str, Any]:
        """What there is for the fields of a model or dataclass."""
        found: dict[str, Any] = {}
        for name, annotation, is_required in _children(kind):
            key, (inner, is_optional) = path + name, without_none(annotation)
            self._types[key] = name_of(inner)
            if is_model_type(inner) or is_dataclass_type(inner):
                below = f"{key}/"
                is_there = any(one.startswith(below) for one in self._content)
                if is_there or (is_required and not is_optional):
                    found[name] = self.of(inner, below)
            elif key in self._content:
                found[name] = self._value(inner, key, self._content[key])
            if name not in found and is_required and is_optional:
                found[name] = None
        return found

    def _value(self, annotation: Any, key: str, data: bytes) -> Any:
        if annotation is bytes:
            return data
        try:
            text = data.decode()
            return json.loads(text) if _is_json(annotation) else text if annotation is str else text.strip()
        except (ValueError, RecursionError) as error:
            wanted = "text" if isinstance(error, UnicodeDecodeError) else "JSON"
            self.problems.append(Problem(key, f"expected {name_of(annotation)} in {wanted}: {error}"))
            return None

    def problem(self, error: Any) -> Problem:
        """One of pydantic's. Where its place leads into the value of a key, the rest is told behind that."""
        place = [str(one) for one in error["loc"]]
        for length in range(len(place), 0, -1):
            if (key := "/".join(place[:length])) in self._content:
                rest = "".join(f"[{one}]" for one in place[length:])
                shown = cut(repr(error["input"]))
                wanted = f"expected {self._types.get(key, 'another value')}, its value is {shown}"
                return Problem(key, f"{rest + ': ' if rest else ''}{wanted} ({error['msg']})")
        key = "/".join(place)
        if error["type"] == "missing":
            return Problem(key, f"expected {self._types.get(key, 'a value')}, but there is no such key")
        return Problem(key, error["msg"])


def _children(kind: Any) -> Iterator[tuple[str, Any, bool]]:
    """Name, type, and whether it must be given, of each field."""
    if is_model_type(kind):
        for name, field in kind.model_fields.items():
            alias = field.validation_alias if isinstance(field.validation_alias, str) else field.alias
            yield alias or name, field.annotation, field.is_required()
    else:
        hints = hints_of(kind)
        for one in dataclasses.fields(kind):
            yield one.name, hints[one.name], not has_default(one)


def _is_json(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Annotated, typing.Union, types.UnionType):
        return any(map(_is_json, typing.get_args(annotation)))
    kind = origin or annotation
    if not isinstance(kind, type) or issubclass(kind, _TEXT):
        return False
    return is_model_type(kind) or is_dataclass_type(kind) or issubclass(kind, _JSON)
