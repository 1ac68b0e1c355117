"""From keys to pydantic models."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator

from kvorum.pydantic_models import is_model_type, model_reader
from kvorum.records import InvalidConfig


@dataclass
class Pool:
    size: int = 4


class Database(BaseModel):
    host: str
    port: Annotated[int, Field(gt=0)] = 5432
    pool: Pool = Pool()


class Settings(BaseModel):
    database: Database
    name: str = "app"
    debug: bool = False
    limit: int | None
    burst: int | None = 7
    tags: list[str] = []
    weights: dict[str, float] | None = None
    home: Path = Path("/")
    mode: Literal["fast", "slow"] = "fast"
    password: SecretStr = SecretStr("")
    max_open: int = Field(10, alias="max-open")
    replica: Database | None = None

    @field_validator("name")
    @classmethod
    def is_short(cls, name: str) -> str:
        if len(name) > 5:
            raise ValueError("too long")
        return name


def problems(content: dict[str, bytes]) -> list[Any]:
    with pytest.raises(InvalidConfig) as caught:
        model_reader(Settings)(content)
    return [tuple(problem) for problem in caught.value.problems]


def test_fields_are_keys_and_nested_ones_levels_of_keys() -> None:
    """Text becomes what the model says; aliases are names of keys."""
    content = {
        "database/host": b"db1",
        "database/pool/size": b"9",
        "debug": b"true\n",
        "tags": b'["a"]',
        "weights": b'{"a": 0.5}',
        "home": b"/home",
        "password": b"secret",
        "max-open": b"3",
        "of another version": b"\xff",
    }
    found = model_reader(Settings)(content)
    assert found == Settings.model_validate(
        {
            "database": {"host": "db1", "pool": {"size": 9}},
            "debug": True,
            "limit": None,
            "tags": ["a"],
            "weights": {"a": 0.5},
            "home": "/home",
            "password": "secret",
            "max-open": 3,
        }
    )
    assert found.burst == 7
    assert found.replica is None


def test_all_problems_are_told_at_once() -> None:
    """Each with its key, what was expected and what is there."""
    found = problems({"database/port": b"x", "name": b"too long", "tags": b"[1]", "mode": b"odd"})
    assert [key for key, _ in found] == ["database/host", "database/port", "name", "tags", "mode"]
    told = dict(found)
    assert told["database/host"] == "expected str, but there is no such key"
    assert told["database/port"].startswith("expected int, its value is 'x' (")
    assert told["name"] == "expected str, its value is 'too long' (Value error, too long)"
    assert told["tags"].startswith("[0]: expected list[str], its value is 1 (")
    assert "'fast', 'slow'" in told["mode"]


def test_what_is_no_json_is_said() -> None:
    """Before pydantic sees it; also what is nested so deep that nobody can read it."""
    for tags in (b"a, b", b"[" * 100_000):
        [(key, text)] = problems({"database/host": b"", "tags": tags})
        assert (key, text.split(":")[0]) == ("tags", "expected list[str] in JSON")


def test_models_are_known_without_importing_pydantic() -> None:
    """Whoever does not use it need not have it."""
    assert is_model_type(Settings)
    assert not is_model_type(Pool)
    script = (
        "import sys, kvorum.pydantic_models as m; assert not m.is_model_type(int);"
        "assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
