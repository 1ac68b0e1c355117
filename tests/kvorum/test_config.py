"""Bound configuration: both shells, on ours and on etcd."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from kvorum.records import InvalidConfig
from tests.kvorum.clients import MakeClient

SECONDS = 20.0


@dataclass
class Pool:
    size: int = 4


@dataclass
class Settings:
    host: str
    port: int = 80
    pool: Pool = field(default_factory=Pool)


class Model(BaseModel):
    host: str
    port: int = 80


def test_keys_are_a_dataclass_that_follows_them(client: Any, key: str) -> None:
    """Each change of its value is told, with what it was before."""
    client.put(f"{key}host", "db1")
    changes: list[tuple[Settings, Settings]] = []
    with client.bind(key, Settings, on_change=lambda old, new: changes.append((old, new))) as config:
        first = config.value
        assert first == Settings("db1")
        assert config.error is None
        assert config.wait_for(client.put(f"{key}pool/size", "9").revision, SECONDS)
        assert config.value == Settings("db1", pool=Pool(9))
        assert config.wait_for(client.put(f"{key}of no field", "").revision, SECONDS)
        assert changes == [(first, config.value)]


def test_the_prefix_is_a_level(client: Any, key: str) -> None:
    """With or without the / behind it, and no other begins with it."""
    name = key.rstrip("/")
    client.put(f"{key}host", "db1")
    client.put(f"{name}-other/host", "db2")
    for prefix in (name, key):
        with client.bind(prefix, Settings) as config:
            assert config.value.host == "db1"


def test_the_last_good_value_is_kept(client: Any, key: str) -> None:
    """As long as the keys are none; why is told once, and can be asked for."""
    client.put(f"{key}host", "db1")
    errors: list[InvalidConfig] = []
    changes: list[Any] = []
    with client.bind(
        key, Settings, on_change=lambda *both: changes.append(both), on_error=errors.append
    ) as config:
        good = config.value
        assert config.wait_for(client.put(f"{key}port", "eighty").revision, SECONDS)
        assert config.value is good
        assert str(config.error) == f"{key}port: expected an int, its value is 'eighty'"
        assert config.wait_for(client.put(f"{key}host", "db2").revision, SECONDS)
        assert config.value is good
        assert errors == [config.error]
        assert changes == []
        assert config.wait_for(client.put(f"{key}port", "81").revision, SECONDS)
        assert config.value == Settings("db2", 81)
        assert config.error is None
        assert changes == [(good, config.value)]


def test_keys_that_are_no_value_at_first_are_an_error(client: Any, key: str) -> None:
    """Which says all that is wrong."""
    client.put(f"{key}port", "eighty")
    with pytest.raises(InvalidConfig) as caught:
        client.bind(key, Settings)
    assert str(caught.value) == (
        f"{key}host: expected a str, but there is no such key; "
        f"{key}port: expected an int, its value is 'eighty'"
    )


def test_what_keys_cannot_be_bound_to_is_refused(client: Any, key: str) -> None:
    """Whatever the keys are."""
    with pytest.raises(TypeError, match="cannot be bound to keys: expected a dataclass or a pydantic model"):
        client.bind(key, dict)


def test_keys_are_a_pydantic_model(client: Any, key: str) -> None:
    """Its own errors are told in terms of keys."""
    client.put(f"{key}host", "db1")
    with client.bind(key, Model) as config:
        assert config.value == Model(host="db1")
        assert config.wait_for(client.put(f"{key}port", "eighty").revision, SECONDS)
        assert str(config.error).startswith(f"{key}port: expected int, its value is 'eighty' (")
        assert config.wait_for(client.put(f"{key}port", "81").revision, SECONDS)
        assert config.value.port == 81


def test_what_one_transaction_changes_changes_together(client: Any, key: str) -> None:
    """Nobody ever sees one half of it."""
    with client.txn() as t:
        t.put(f"{key}host", "0")
        t.put(f"{key}port", "0")
    seen: set[tuple[str, int]] = set()
    stop = threading.Event()

    def see(value: Settings) -> None:
        seen.add((value.host, value.port))

    with client.bind(key, Settings, on_change=lambda old, new: see(new)) as config:

        def look() -> None:
            while not stop.is_set():
                see(config.value)

        looking = threading.Thread(target=look)
        looking.start()
        for number in range(1, 50):
            with client.txn() as t:
                t.put(f"{key}host", str(number))
                t.put(f"{key}port", str(number))
        assert config.wait_for(t.revision, SECONDS)
        stop.set()
        looking.join()
        assert config.value == Settings("49", 49)
    assert all(host == str(port) for host, port in seen)
    assert ("49", 49) in seen


def test_who_has_no_server_is_told(make_client: MakeClient) -> None:
    """Nothing is waited for longer than a call takes."""
    from kvorum import ConnectionFailed

    with make_client("127.0.0.1:1", timeout=0.2) as client, pytest.raises(ConnectionFailed):
        client.bind("/app", Settings)
