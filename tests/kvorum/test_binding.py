"""What keys are bound to, without a store."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kvorum.binding import Binding, Changed, Refused
from kvorum.records import InvalidConfig
from kvorum.types import KeyValue


@dataclass
class Settings:
    host: str
    port: int = 80


def kvs(**values: str) -> list[KeyValue]:
    return [KeyValue(f"/app/{name}".encode(), value.encode(), 1, 1, 1, 0) for name, value in values.items()]


def test_the_first_value_is_no_change() -> None:
    """Nor is what comes to the same."""
    binding = Binding("/app", Settings)
    assert binding.update(kvs(host="a")) is None
    assert binding.update(kvs(host="a", port="80", other="x")) is None
    assert binding.update(kvs(host="b")) == Changed(Settings("a"), Settings("b"))
    assert binding.value == Settings("b")


def test_what_is_refused_is_told_once() -> None:
    """Unless it is refused for something else; the last good value stays."""
    binding = Binding(b"/app/", Settings)
    binding.update(kvs(host="a"))
    refused = binding.update(kvs(host="a", port="x"))
    assert isinstance(refused, Refused)
    assert str(refused.error) == "/app/port: expected an int, its value is 'x'"
    assert binding.error is refused.error
    assert binding.update(kvs(host="b", port="x")) is None
    assert isinstance(binding.update(kvs(host="b", port="y")), Refused)
    assert binding.value == Settings("a")
    assert binding.update(kvs(host="b")) == Changed(Settings("a"), Settings("b"))
    assert binding.error is None
    assert isinstance(binding.update(kvs(port="y")), Refused)


def test_back_to_what_it_was_is_no_change() -> None:
    """But the error is over."""
    binding = Binding("/app", Settings)
    binding.update(kvs(host="a"))
    binding.update(kvs())
    assert binding.update(kvs(host="a")) is None
    assert binding.error is None


def test_without_a_good_one_there_is_no_value() -> None:
    """Why is said."""
    binding = Binding("/app", Settings)
    binding.update(kvs())
    with pytest.raises(InvalidConfig, match=r"^/app/host: expected a str, but there is no such key$"):
        binding.value  # noqa: B018
