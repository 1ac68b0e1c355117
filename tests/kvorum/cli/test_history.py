"""history: each revision of a key that the store remembers, before and after a compaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.servers import Server, running, start_etcd, start_kvorum
from tests.kvorum.cli.conftest import CommandLine


@pytest.fixture(params=[start_kvorum, start_etcd])
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CommandLine]:
    """A server that nobody else writes to, ours and etcd: revisions are known."""
    server: Server = request.param(tmp_path)
    with running(server):
        yield CommandLine(server.port, tmp_path)


def steps(kvorum: CommandLine, key: str) -> list[tuple[int, str, int, str | None]]:
    found = json.loads(kvorum.ok("history", key, "-w", "json"))
    return [(one["revision"], one["change"], one["version"], one["value"]) for one in found]


def test_every_revision(alone: CommandLine) -> None:
    """Created, changed, put again, deleted, created anew; other keys are not told."""
    for words in (
        ["put", "k", "a"],
        ["put", "other", "x"],
        ["put", "k", "b"],
        ["put", "k", "b"],
        ["del", "k"],
    ):
        alone.ok(*words)
    deleted = [(2, "created", 1, "a"), (4, "changed", 2, "b"), (5, "same", 3, "b"), (6, "deleted", 0, None)]
    assert steps(alone, "k") == deleted
    alone.ok("put", "other", "y")
    assert steps(alone, "k") == deleted
    alone.ok("put", "k", "c")
    assert steps(alone, "k") == [*deleted, (8, "created", 1, "c")]
    lease = alone.ok("lease", "grant", "600").split()[1]
    alone.ok("put", f"--lease={lease}", "k", "c")
    assert steps(alone, "k")[-1] == (9, "lease", 2, "c")
    assert alone.fails("history", "none") == "the store remembers no key none"


def test_what_is_compacted_is_forgotten(alone: CommandLine) -> None:
    """The state that the compaction left is the first that is told, and that it was one is said; for a key
    that was not changed since, for one that was, for one that was deleted then and there."""
    for words in (
        ["put", "old", "1"],
        ["put", "k", "a"],
        ["put", "k", "b"],
        ["put", "old", "2"],
        ["del", "gone"],
    ):
        alone.ok(*words)
    alone.ok("put", "gone", "1")
    alone.ok("del", "gone")
    alone.ok("put", "k", "c")  # 8
    alone.ok("compaction", "7")
    ran = alone("history", "k", "-w", "json")
    assert ran.error == "(what was before revision 7 is compacted)\n"
    assert [(one["revision"], one["change"]) for one in json.loads(ran.out)] == [
        (4, "changed"),
        (8, "changed"),
    ]
    ran = alone("history", "old", "-w", "json")
    assert [(one["revision"], one["version"], one["value"]) for one in json.loads(ran.out)] == [(5, 2, "2")]
    assert alone.fails("history", "gone") == "the store remembers no key gone"
    alone.ok("compaction", "8")
    assert [one["revision"] for one in json.loads(alone("history", "k", "-w", "json").out)] == [8]
    alone.ok("del", "k")
    ran = alone("history", "k", "-w", "json")
    assert [(one["revision"], one["change"]) for one in json.loads(ran.out)] == [
        (8, "changed"),
        (9, "deleted"),
    ]


def test_for_people(kvorum: CommandLine) -> None:
    """A line each, or with -p the lines that changed; -n takes the last ones."""
    kvorum.ok("put", "/h1/a", given="a\nb\n")
    kvorum.ok("put", "/h1/a", given="a\nc\n")
    kvorum.ok("put", "/h1/a", "plain")
    kvorum.ok("rm", "/h1/a")
    head, *lines = kvorum.ok("history", "/h1/a").splitlines()
    assert head.split() == ["REVISION", "VERSION", "CHANGE", "VALUE"]
    assert [line.split()[1:] for line in lines] == [
        ["1", "created", "a", "…", "(2", "lines)"],
        ["2", "changed", "a", "…", "(2", "lines)"],
        ["3", "changed", "plain"],
        ["-", "deleted"],
    ]
    patch = kvorum.ok("history", "/h1/a", "-p", "-n", "3").splitlines()
    assert [line for line in patch if (line[:4].isspace() and line[4] in "+-") or line == "     a"] == [
        *("     a", "    -b", "    +c"),
        *("    -a", "    -c", "    +plain"),
        "    -plain",
    ]
    assert "\x1b[31mdeleted \x1b[0m" in kvorum.on_terminal("history", "/h1/a").out
    assert kvorum.ok("history", "/h1/a", "-n", "1", "-w", "fields").splitlines()[1] == '"Change" : "deleted"'
