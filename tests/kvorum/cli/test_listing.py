"""ls and tree: keys like files in directories."""

from __future__ import annotations

import json

import pytest

from kvorum.cli.data import listing
from kvorum.client import Client
from kvorum.txn import Put
from tests.kvorum.cli.conftest import CommandLine


@pytest.fixture
def keys(kvorum: CommandLine) -> str:
    """A prefix with keys of every kind: deep, both a value and a prefix, with odd slashes and bytes."""
    for name in ("a", "db", "db-x", "db/host", "db/replica/host", "z//y", "end/", "\x1b[31m"):
        kvorum.ok("put", f"/l1/{name}", f"v:{name}")
    kvorum.ok("put", "/l1x", "a neighbour")
    return "/l1"


def test_one_level(keys: str, kvorum: CommandLine) -> None:
    """What has keys below it ends in a slash; what a terminal would obey is quoted."""
    expected = '"\\x1b[31m"\na\ndb\ndb-x\ndb/\nend/\nz/\n'
    assert kvorum.ok("ls", keys) == kvorum.ok("ls", f"{keys}/") == expected
    assert kvorum.ok("ls", f"{keys}/db") == "host\nreplica/\n"
    assert kvorum.ok("ls", f"{keys}/z") == "/y\n"
    assert kvorum.ok("ls", f"{keys}/end") == '""\n'
    assert "/l1/\n" in kvorum.ok("ls")


def test_a_key_without_any_below_is_listed_itself(keys: str, kvorum: CommandLine) -> None:
    """Like ls of a file; and what is not there is said."""
    assert kvorum.ok("ls", f"{keys}/a") == f"{keys}/a\n"
    assert kvorum.fails("ls", f"{keys}/none") == f"there is no key {keys}/none, and none under {keys}/none/"


def test_all_keys(keys: str, kvorum: CommandLine) -> None:
    """-R lists every key under the prefix."""
    found = json.loads(kvorum.ok("ls", "-R", f"{keys}/db", "-w", "json"))
    assert found == [
        {"name": "host", "key": f"{keys}/db/host", "directory": False},
        {"name": "replica/host", "key": f"{keys}/db/replica/host", "directory": False},
    ]


def test_revisions_and_sizes(keys: str, kvorum: CommandLine) -> None:
    """Of a key its own, of a directory the latest, and the sum."""
    kvorum.ok("put", f"{keys}/db/host", "changed")
    found = {row["name"]: row for row in json.loads(kvorum.ok("ls", "-l", keys, "-w", "json"))}
    a, db, host = (
        json.loads(kvorum.ok("get", f"{keys}/{n}", "-w", "json"))["kvs"][0] for n in ("a", "db", "db/host")
    )
    assert (found["a"]["revision"], found["a"]["version"], found["a"]["size"]) == (
        a["mod_revision"],
        a["version"],
        3,
    )
    assert found["db"]["revision"] == db["mod_revision"]
    assert found["db/"] == {
        "name": "db/", "key": f"{keys}/db/", "directory": True, "revision": host["mod_revision"],
        "version": None, "keys": 2, "size": len("changed") + len("v:db/replica/host"), "lease": None,
    }  # fmt: skip
    head, *lines = kvorum.ok("ls", "-l", keys).splitlines()
    assert head.split() == ["REVISION", "VERSION", "KEYS", "BYTES", "NAME"]
    assert lines[1].split() == [str(a["mod_revision"]), str(a["version"]), "1", "3", "a"]


def test_formats(keys: str, kvorum: CommandLine) -> None:
    """The same rows as a table and as fields."""
    table = kvorum.ok("ls", f"{keys}/db", "-w", "table").splitlines()
    assert [cell.strip() for cell in table[1].strip("|").split("|")] == ["NAME", "KEY", "DIRECTORY"]
    assert [cell.strip() for cell in table[3].strip("|").split("|")] == ["host", f"{keys}/db/host", "false"]
    assert kvorum.ok("ls", f"{keys}/db", "-w", "fields").splitlines()[:3] == [
        '"Name" : "host"',
        f'"Key" : "{keys}/db/host"',
        '"Directory" : false',
    ]


def test_what_lies_deeper_is_not_read(kvorum: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory costs no more than a page, however many keys are in it."""
    monkeypatch.setattr(listing, "_FIRST_PAGE", 10)
    with Client(f"127.0.0.1:{kvorum.port}") as client:
        for start in range(0, 300, 100):
            client.transact([], [Put(f"/l2/big/{start + n}", "") for n in range(100)])
        for number in range(12):
            client.put(f"/l2/{number:02}", "")
        client.put("/l2/z/x", "")
        asked = []
        real = client.range
        monkeypatch.setattr(client, "range", lambda *a, **o: (asked.append(a), real(*a, **o))[1])
        names = [entry.path.decode() for entry in listing.level(client, b"/l2/")]
    assert names == [*(f"/l2/{number:02}" for number in range(12)), "/l2/big/", "/l2/z/"]
    assert len(asked) == 3


def test_a_tree(keys: str, kvorum: CommandLine) -> None:
    """Directories and keys with the lines between them; the values if they are asked for."""
    assert kvorum.ok("tree", keys) == (
        "/l1/\n"
        '├── "\\x1b[31m"\n'
        "├── a\n"
        "├── db/\n"
        "│   ├── host\n"
        "│   └── replica/\n"
        "│       └── host\n"
        "├── db-x\n"
        "├── end/\n"
        "└── z/\n"
        "    └── /y\n"
        "\n3 directories, 8 keys\n"
    )
    kvorum.ok("put", f"{keys}/db/replica/host", given="two\nlines\n")
    assert kvorum.ok("tree", "-v", f"{keys}/db") == (
        "/l1/db/\n├── host: v:db/host\n└── replica/\n    └── host: |\n            two\n            lines\n"
        "\n1 directory, 2 keys\n"
    )
    assert kvorum.ok("tree", "-L", "1", f"{keys}/db").splitlines()[:-2] == [
        "/l1/db/",
        "├── host",
        "└── replica/",
    ]


def test_a_tree_too_deep_to_be_drawn(kvorum: CommandLine) -> None:
    """A key of thousands of slashes is no failure of ours, and can be seen from above."""
    kvorum.ok("put", "/l3/" + "a/" * 3_000 + "end", "1")
    assert kvorum.fails("tree", "/l3") == "some keys lie too deep to be drawn: give a --level"
    assert kvorum.ok("tree", "/l3", "-L", "1") == "/l3/\n└── a/\n\n3000 directories, 1 key\n"


def test_a_tree_as_a_document(keys: str, kvorum: CommandLine) -> None:
    """Nested as it is drawn."""
    kvorum.ok("rm", f"{keys}/db/host")
    [node] = json.loads(kvorum.ok("tree", f"{keys}/db", "-v", "-w", "json"))
    assert (node["name"], node["below"][0]["name"], node["below"][0]["value"]) == (
        "replica", "host", "v:db/replica/host"
    )  # fmt: skip


def test_colour_only_on_a_terminal(keys: str, kvorum: CommandLine) -> None:
    """Directories are coloured where somebody looks, but not with NO_COLOR."""
    assert "\x1b[34m\x1b[1mdb/\x1b[0m\n" in kvorum.on_terminal("ls", keys).out
    assert kvorum.on_terminal("ls", keys, NO_COLOR="1").out == kvorum.ok("ls", keys)
    assert kvorum.on_terminal("ls", keys, TERM="dumb").out == kvorum.ok("ls", keys)
    assert kvorum.process("ls", keys).out == kvorum.ok("ls", keys)
