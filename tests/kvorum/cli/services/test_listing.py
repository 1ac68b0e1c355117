"""kvorum service list, show, resolve, watch and deregister, on a node of ours and on etcd."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvorum import Client
from kvorum.services.records import Instance, encode
from tests.common.commands import run_here, tool
from tests.common.servers import Server

SINCE = "2026-11-26T12:00:00Z"


@pytest.fixture
def name() -> str:
    return f"s-{uuid.uuid4().hex}"


@pytest.fixture
def client(store: Server) -> Iterator[Client]:
    with Client(store.url) as client:
        yield client


@pytest.fixture
def three(client: Client, name: str) -> Iterator[list[Instance]]:
    three = [
        Instance(name, "a", "10.0.0.1:80", {"v": "1", "w": "x y"}, ("x", "z"), 2, "us", SINCE),
        Instance(name, "b", "10.0.0.2:80", {"v": "2"}, ("x",), 1, "eu/1b", SINCE),
        Instance(name, "c", "10.0.0.3:80", {}, (), 1, "eu/1a", SINCE),
    ]
    for one in three:
        client.put(one.key, encode(one))
    yield three
    client.delete(f"/services/{name}/", prefix=True)


def run(store: Server, *words: str, home: Path | None = None) -> tuple[int, str, str]:
    environment = {"XDG_STATE_HOME": str(home)} if home else {}
    return run_here([f"--endpoints=127.0.0.1:{store.port}", "service", *words], environment=environment)


def said(store: Server, *words: str) -> str:
    code, out, error = run(store, *words)
    assert (code, error) == (0, "")
    return out


def test_a_list_of_services(store: Server, three: list[Instance], name: str) -> None:
    """With how many instances each has, and all their tags."""
    assert f"{name}, 3, x z" in said(store, "list").splitlines()
    assert f"{name}, 2, x z" in said(store, "list", "--tag", "x").splitlines()
    assert f"{name}, 1, x" in said(store, "list", "--meta", "v=2").splitlines()
    assert name not in said(store, "list", "--tag", "nobody's")


def test_a_list_in_other_formats(store: Server, three: list[Instance], name: str) -> None:
    listed = json.loads(said(store, "list", "-o", "json"))[name]
    assert [one["addr"] for one in listed] == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
    assert yaml.safe_load(said(store, "list", "-o", "yaml"))[name] == listed
    assert "SERVICE" in said(store, "list", "-o", "table")
    assert f'"Service" : "{name}"\n"Instances" : 3\n"Tags" : "x z"\n' in said(store, "list", "-o", "fields")


def test_all_that_is_known_of_a_service(store: Server, three: list[Instance], name: str) -> None:
    assert said(store, "show", name) == (
        f"a, 10.0.0.1:80, 2, us, x z, v=1 w=x y, {SINCE}\n"
        f"b, 10.0.0.2:80, 1, eu/1b, x, v=2, {SINCE}\n"
        f"c, 10.0.0.3:80, 1, eu/1a, , , {SINCE}\n"
    )
    [one] = json.loads(said(store, "show", name, "--tag", "z", "-o", "json"))
    assert one == {
        "name": name,
        "id": "a",
        "addr": "10.0.0.1:80",
        "weight": 2,
        "zone": "us",
        "tags": ["x", "z"],
        "metadata": {"v": "1", "w": "x y"},
        "since": SINCE,
    }
    assert said(store, "show", name, "--meta", "v=2", "-o", "fields") == (
        f'"Name" : "{name}"\n"ID" : "b"\n"Address" : "10.0.0.2:80"\n"Weight" : 1\n"Zone" : "eu/1b"\n'
        f'"Tag" : "x"\n"Metadata" : "v=2"\n"Since" : "{SINCE}"\n\n'
    )
    table = said(store, "show", name, "-o", "table")
    assert "METADATA" in table
    assert "10.0.0.3:80" in table


def test_addresses(store: Server, three: list[Instance], name: str) -> None:
    """One a line, for scripts; the nearest first."""
    assert said(store, "resolve", name) == "10.0.0.1:80\n10.0.0.2:80\n10.0.0.3:80\n"
    assert said(store, "resolve", name, "--zone", "eu/1a") == "10.0.0.3:80\n10.0.0.2:80\n10.0.0.1:80\n"
    assert said(store, "resolve", name, "--tag", "x", "--meta", "v=2") == "10.0.0.2:80\n"
    shown = json.loads(said(store, "resolve", name, "--zone", "eu/1a", "-o", "json"))
    assert [one["id"] for one in shown] == ["c", "b", "a"]


def test_one_of_them(store: Server, three: list[Instance], name: str, tmp_path: Path) -> None:
    """At random, or in turn from one call to the next: by weight, and of the nearest."""
    assert said(store, "resolve", name, "--one", "--zone", "eu/1a") == "10.0.0.3:80\n"
    assert said(store, "resolve", name, "--one") in [f"{one.addr}\n" for one in three]
    turns = [
        run(store, "resolve", name, "--one", "--policy", "round-robin", home=tmp_path)[1].strip()[-4]
        for _ in range(8)
    ]
    assert sorted(turns[:4]) == sorted(turns[4:]) == ["1", "1", "2", "3"]  # whoever is the first


def test_whose_turn_it_is_does_not_depend_on_a_file_that_is_broken(
    store: Server, three: list[Instance], name: str, tmp_path: Path
) -> None:
    words = ("resolve", name, "--one", "--policy", "round-robin")
    file = tmp_path / "kvorum" / "turns" / name
    for content in (b"", b"[]", b"{", b"\xff", b'{"earned": {"a": "x", "b": null}, "first": "a"}'):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        code, out, error = run(store, *words, home=tmp_path)
        assert (code, error) == (0, "")
        assert out in [f"{one.addr}\n" for one in three]
    file.unlink()
    file.mkdir()
    code, out, error = run(store, *words, home=tmp_path)
    assert (code, out) == (1, "")
    assert error.startswith("Error: whose turn it is cannot be kept: ")


@pytest.mark.parametrize("words", [("show",), ("resolve",), ("resolve", "--one")])
def test_nobody_there_is_an_exit_code(store: Server, name: str, words: tuple[str, ...]) -> None:
    """For scripts; and nothing on stdout."""
    code, out, error = run(store, words[0], name, *words[1:])
    assert (code, out) == (1, "")
    assert error == f"Error: no instance of {name} is registered, or none that meets the conditions\n"


def test_a_watch(store: Server, client: Client, three: list[Instance], name: str) -> None:
    """First who is there, then who comes, goes and changes."""
    with tool(store, "service", "watch", name) as watch:
        assert [watch.line() for _ in three] == [f"added {name} {one.id} at {one.addr}" for one in three]
        moved = Instance(name, "a", "10.0.0.9:80")
        client.put(moved.key, encode(moved))
        assert watch.line() == f"changed {name} a at 10.0.0.9:80"
        client.delete(moved.key)
        assert watch.line() == f"removed {name} a at 10.0.0.9:80"
        with client.services.register(name, "10.0.0.4:80"):
            assert watch.line() == f"added {name} 10.0.0.4:80"
        assert watch.line() == f"removed {name} 10.0.0.4:80"
        watch.signal(2)
        assert watch.end()[0] == 130


def test_what_others_have_written_is_one_line_and_no_command_to_a_terminal(
    store: Server, client: Client, name: str
) -> None:
    """Or a record could tell of instances that are not there."""
    value = encode(Instance(name, "", "10.0.0.1:80", {"v": "1\n2"}, ("\x1b[2J",), 1, "\u202eeu", SINCE))
    client.put(f"/services/{name}/a\nremoved {name} b", value)
    assert said(store, "show", name) == (
        rf"a\nremoved {name} b, 10.0.0.1:80, 1, \u202eeu, \x1b[2J, v=1\n2, {SINCE}" + "\n"
    )
    assert rf"{name}, 1, \x1b[2J" in said(store, "list").splitlines()
    assert r" v=1\n2 " in said(store, "show", name, "-o", "table")
    with tool(store, "service", "watch", name) as watch:
        assert watch.line() == rf"added {name} a\nremoved {name} b at 10.0.0.1:80"
    client.delete(f"/services/{name}/", prefix=True)


@pytest.mark.parametrize("form", ["json", "yaml", "fields"])
def test_a_watch_in_other_formats(store: Server, three: list[Instance], name: str, form: str) -> None:
    """Of all services, if none is named."""
    with tool(store, "service", "watch", "-o", form) as watch:
        if form == "json":
            found: Any = None
            while found is None or found["instance"]["name"] != name:
                found = json.loads(watch.line())
            assert (found["type"], found["instance"]["id"]) == ("added", "a")
        else:
            lines = [watch.line() for _ in range(3)]
            assert lines[0] == ("---" if form == "yaml" else '"Type" : "added"')


def test_somebody_is_taken_off_the_list(store: Server, three: list[Instance], name: str) -> None:
    assert said(store, "deregister", name, "b") == f"deregistered {name} b\n"
    assert said(store, "resolve", name) == "10.0.0.1:80\n10.0.0.3:80\n"
    assert run(store, "deregister", name, "b") == (1, "", f"Error: there is no instance 'b' of {name}\n")


MISTAKES = [
    (("show", "a/b"), "the service name 'a/b' is wrong: expected 1 to 63"),
    (("resolve", "a", "--meta", "x"), "--meta 'x' is wrong: expected NAME=VALUE"),
    (("resolve", "a", "--policy", "best"), "Invalid value for '--policy'"),
    (("watch", "-"), "the service name '-' is wrong"),
    (("watch", "-o", "table"), "table not supported as output format"),
]


@pytest.mark.parametrize(("words", "error"), MISTAKES)
def test_mistakes_are_one_sentence(kvorum_server: Server, words: tuple[str, ...], error: str) -> None:
    code, out, found = run(kvorum_server, *words)
    assert (code in (4, 128), out) == (True, "")
    assert found.startswith(f"Error: {error}")
    assert found.count("\n") == 1
