"""From keys to dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from kvorum.records import InvalidConfig, Problem, dataclass_reader


@dataclass
class Pool:
    size: int = 4
    idle: float = 1.5


@dataclass
class Database:
    host: str
    port: int = 5432
    pool: Pool = field(default_factory=lambda: Pool(size=8))


@dataclass(kw_only=True)
class Settings:
    ROOM: ClassVar[int] = 3
    database: Database
    name: str = "app"
    debug: bool = False
    limit: int | None
    tags: list[str] = field(default_factory=list)
    max_open: int = field(default=10, metadata={"key": "max-open"})
    replica: Database | None
    made: str = field(default="", init=False)


@dataclass
class Percentage:
    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 100:
            raise ValueError(f"{self.value} is not between 0 and 100")


@dataclass
class Volume:
    level: Percentage


@dataclass
class Ring:
    next: Ring | None = None


@dataclass
class Unreadable:
    inner: Pool
    what: complex


@dataclass
class Unknown:
    what: NoSuchName  # type: ignore[name-defined]  # noqa: F821


def problems(kind: type, content: dict[str, bytes]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidConfig) as caught:
        dataclass_reader(kind)(content)
    return [tuple(problem) for problem in caught.value.problems]


def test_fields_are_keys_and_nested_ones_levels_of_keys() -> None:
    """What has no key has its default, and what is optional None."""
    read = dataclass_reader(Settings)
    content = {
        "database/host": b"db1",
        "database/pool/idle": b"2",
        "tags": b'["a"]',
        "max-open": b"3",
        "of another version": b"\xff",
        "database/too": b"",
    }
    assert read(content) == Settings(
        database=Database("db1", 5432, Pool(size=8, idle=2.0)),
        limit=None,
        replica=None,
        tags=["a"],
        max_open=3,
    )


def test_defaults_are_not_shared() -> None:
    """A list that one value was given is not that of the next."""
    read = dataclass_reader(Settings)
    one, other = read({"database/host": b""}), read({"database/host": b""})
    assert one.tags is not other.tags
    assert one.database.pool is not other.database.pool


def test_an_optional_level_is_there_when_one_of_its_keys_is() -> None:
    """And then it must be whole."""
    read = dataclass_reader(Settings)
    assert read({"database/host": b"a", "replica/host": b"b"}).replica == Database("b")
    assert problems(Settings, {"database/host": b"a", "replica/port": b"1"}) == [
        ("replica/host", "expected a str, but there is no such key")
    ]


def test_all_problems_are_told_at_once() -> None:
    """Each with its key."""
    assert problems(Settings, {"debug": b"maybe", "limit": b"1.5", "database/port": b"x"}) == [
        ("database/host", "expected a str, but there is no such key"),
        ("database/port", "expected an int, its value is 'x'"),
        ("debug", "expected a bool (true or false), its value is 'maybe'"),
        ("limit", "expected an int, its value is '1.5'"),
    ]


def test_what_a_dataclass_itself_refuses_is_a_problem() -> None:
    """Of the level that it is read from."""
    assert problems(Volume, {"level/value": b"101"}) == [
        ("level", "Percentage refuses it: 101 is not between 0 and 100")
    ]


def test_problems_can_be_told_with_whole_keys() -> None:
    """One sentence for each."""
    error = InvalidConfig([Problem("a", "expected b"), Problem("c/d", "expected e")]).below("/app/")
    assert str(error) == "/app/a: expected b; /app/c/d: expected e"
    assert error.problems == (("/app/a", "expected b"), ("/app/c/d", "expected e"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Ring, "^Ring contains itself: expected a type whose keys have an end$"),
        (Unreadable, "^Unreadable.what is of type complex, which cannot be read from a key: expected str,"),
        (Unknown, "^the types of Unknown cannot be told: name 'NoSuchName' is not defined; expected names "),
    ],
)
def test_types_that_cannot_be_read_are_refused_at_once(kind: Any, message: str) -> None:
    """Not only when a value comes."""
    with pytest.raises(TypeError, match=message):
        dataclass_reader(kind)
