"""How the value of one key is read."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest

from kvorum.decoding import Unfit, kind_of


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10


@dataclass
class Backend:
    host: str
    weight: int = 1


@pytest.mark.parametrize(
    ("annotation", "data", "value"),
    [
        (str, b" as it is\n", " as it is\n"),
        (bytes, b"\xff", b"\xff"),
        (int, b"8080", 8080),
        (int, b" -1\n", -1),
        (float, b"0.5", 0.5),
        (float, b"1", 1.0),
        (bool, b"true", True),
        (bool, b"OFF\n", False),
        (bool, b"0", False),
        (Path, b"/etc/hosts", Path("/etc/hosts")),
        (Colour, b"green", Colour.GREEN),
        (Colour, b"GREEN", Colour.GREEN),
        (Level, b"10", Level.HIGH),
        (Literal["on", 3], b"3", 3),
        (list[int], b"[1, 2]", [1, 2]),
        (list, b'[1, "a"]', [1, "a"]),
        (Sequence[str], b'["a"]', ["a"]),
        (tuple[int, str], b'[1, "a"]', (1, "a")),
        (tuple[int, ...], b"[1, 2, 3]", (1, 2, 3)),
        (set[str], b'["a", "a"]', {"a"}),
        (frozenset[float], b"[1, 2.5]", frozenset({1.0, 2.5})),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (dict[int, bool], b'{"1": true}', {1: True}),
        (dict[str, list[Colour]], b'{"a": ["red"]}', {"a": [Colour.RED]}),
        (Mapping[str, Any], b'{"a": [null]}', {"a": [None]}),
        (dict[str, Any], b"{}", {}),
        (list[Backend], b'[{"host": "a"}]', [Backend("a")]),
        (list[Optional[int]], b"[1, null]", [1, None]),  # noqa: UP045  # as others write it
        (int | str, b"1", 1),
        (int | str, b"one", "one"),
        (Annotated[int, "a port"], b"1", 1),
    ],
)
def test_a_value_is_read_as_its_type(annotation: Any, data: bytes, value: object) -> None:
    """And is of that very type."""
    found = kind_of(annotation).from_text(data)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "data", "message"),
    [
        (str, b"\xff", "expected text in UTF-8, its value is b'\\xff'"),
        (int, b"many", "expected an int, its value is 'many'"),
        (int, b"1.5", "expected an int, its value is '1.5'"),
        (int, b"", "expected an int, its value is ''"),
        (int, b"x" * 100, f"expected an int, its value is '{'x' * 40}…'"),
        (float, b"fast", "expected a float, its value is 'fast'"),
        (bool, b"2", "expected a bool (true or false), its value is '2'"),
        (Path, b"", "expected a Path, its value is ''"),
        (Colour, b"blue", "expected one of red, green (Colour), its value is 'blue'"),
        (Literal["a", "b"], b"c", "expected one of 'a', 'b', its value is 'c'"),
        (list[int], b"1, 2", "expected a list of int in JSON, its value is '1, 2'"),
        (list[int], b"{}", "expected a list of int, its value is '{}'"),
        (list[int], b'[1, "2"]', "[1]: expected an int, its value is '2'"),
        (list[int], b"[true]", "[0]: expected an int, its value is 'true'"),
        (list[str], b"[1]", "[0]: expected a str, its value is '1'"),
        (tuple[int, int], b"[1]", "expected a list of int, int, its value is '[1]'"),
        (dict[str, list[int]], b'{"a": [1, null]}', "['a'][1]: expected an int, its value is 'null'"),
        (
            list[Backend],
            b'[{"weight": 1}]',
            "[0]: expected a Backend with host, its value is '{\"weight\": 1}'",
        ),
        (list[Backend], b'[{"host": "a", "weight": "1"}]', "[0].weight: expected an int, its value is '1'"),
        (list[Any], b"[" * 100_000, f"expected a list in JSON, its value is '{'[' * 40}…'"),
        (set[Any], b"[[1]]", "expected a list whose elements can stand in a set, its value is '[[1]]'"),
        (int | None, b"some", "expected an int or null, its value is 'some'"),
    ],
)
def test_what_does_not_fit_is_said(annotation: Any, data: bytes, message: str) -> None:
    """What was expected, and what is there."""
    with pytest.raises(Unfit) as caught:
        kind_of(annotation).from_text(data)
    assert str(caught.value) == message


@pytest.mark.parametrize("annotation", [object, complex, list[complex], dict[str, object]])
def test_types_that_no_value_can_be_read_as_are_refused(annotation: Any) -> None:
    """Before any value is."""
    with pytest.raises(
        TypeError, match=r"^Settings.x is of type \w+, which cannot be read from a key: expected"
    ):
        kind_of(annotation, "Settings.x")
