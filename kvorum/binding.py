"""What keys are bound to: a value of a dataclass or pydantic model, and what is wrong with the keys if they
are none. Pure.

    binding = Binding(b"/app", Settings)
    binding.update(kvs)         # Changed(old, new), Refused(error), or None where nothing is different
    binding.value               # the last good one
    binding.error               # why the keys are no good now; None if they are
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from kvorum.decoding import is_dataclass_type
from kvorum.pydantic_models import is_model_type, model_reader
from kvorum.records import Content, InvalidConfig, dataclass_reader
from kvorum.types import Key, KeyValue

T = TypeVar("T")


class Changed(NamedTuple, Generic[T]):
    old: T
    new: T


class Refused(NamedTuple):
    error: InvalidConfig


class Binding(Generic[T]):
    """``prefix`` with or without the / at its end."""

    def __init__(self, prefix: Key, kind: type[T]) -> None:
        """Raises TypeError where no keys could make a ``kind``."""
        given = prefix.encode() if isinstance(prefix, str) else prefix
        self.prefix = given.rstrip(b"/") + b"/"
        self.error: InvalidConfig | None = None
        self._read = _reader(kind)
        self._value: T | None = None

    @property
    def value(self) -> T:
        """The last good one. Raises InvalidConfig as long as there was none."""
        if self._value is None:
            raise self.error or InvalidConfig([])
        return self._value

    def update(self, kvs: Iterable[KeyValue]) -> Changed[T] | Refused | None:
        """The keys are these now. The first value is no change."""
        shown = self.prefix.decode(errors="replace")
        content = {kv.key[len(self.prefix) :].decode(errors="replace"): kv.value for kv in kvs}
        try:
            new = self._read(content)
        except InvalidConfig as error:
            found = error.below(shown)
            if self.error is not None and self.error.problems == found.problems:
                return None
            self.error = found
            return Refused(found)
        old, self._value, self.error = self._value, new, None
        return None if old is None or old == new else Changed(old, new)


def _reader(kind: type[T]) -> Callable[[Content], T]:
    if is_model_type(kind):
        return model_reader(kind)
    if is_dataclass_type(kind):
        return dataclass_reader(kind)
    raise TypeError(f"{kind!r} cannot be bound to keys: expected a dataclass or a pydantic model")
