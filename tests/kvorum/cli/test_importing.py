"""import: what a file says becomes keys, all of it or nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kvorum.client import Client
from tests.common.servers import running, start_kvorum
from tests.kvorum.cli.conftest import CommandLine

CONFIG = "db:\n  host: a\n  port: 5432\ndebug: no\n"


def test_a_file_becomes_keys(kvorum: CommandLine) -> None:
    """Nested mappings are paths; the second time there is nothing to do, and no revision is made."""
    (kvorum.folder / "config.yaml").write_text(CONFIG)
    first = kvorum.ok("import", "config.yaml", "--prefix", "/i1")
    assert first.startswith("config.yaml: 3 added, 0 changed, 0 removed, 0 unchanged (revision ")
    assert kvorum.values("/i1") == {"/i1/db/host": "a", "/i1/db/port": "5432", "/i1/debug": "no"}
    again = kvorum.ok("import", "config.yaml", "--prefix", "/i1/")
    assert again == "config.yaml: 0 added, 0 changed, 0 removed, 3 unchanged\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yml", "db: {host: h}\n"),
        ("a.json", '{"db": {"host": "h"}}'),
        ("a.toml", '[db]\nhost = "h"\n'),
        ("a.properties", "db.host=h\n"),
    ],
)
def test_the_suffix_says_the_format(name: str, text: str, kvorum: CommandLine) -> None:
    """Each suffix is read as its format."""
    (kvorum.folder / name).write_text(text)
    kvorum.ok("import", name, "--prefix", f"/i2/{name}")
    assert kvorum.values(f"/i2/{name}/") == {f"/i2/{name}/db/host": "h"}


def test_standard_input_needs_a_format(kvorum: CommandLine) -> None:
    """It has no suffix; without --format nothing is read."""
    said = kvorum.fails("import", "-", given="a: 1", code=128)
    assert said == (
        "standard input and output have no name: give --format, one of yaml, json, toml, env, properties"
    )
    kvorum.ok("import", "-", "--format", "env", "--prefix", "/i3", given="A='b c'\n")
    assert kvorum.values("/i3/") == {"/i3/A": "b c"}


def test_a_variable_changes_the_key_it_was_made_of(kvorum: CommandLine) -> None:
    """A .env file that was exported, edited and imported makes no second key."""
    kvorum.ok("put", "/i4/db/max-conns", "5")
    (kvorum.folder / ".env").write_text(kvorum.ok("export", "--format", "env", "--prefix", "/i4") + "NEW=1\n")
    text = (kvorum.folder / ".env").read_text().replace("DB_MAX_CONNS=5", "DB_MAX_CONNS=6")
    (kvorum.folder / ".env").write_text(text)
    kvorum.ok("import", ".env", "--prefix", "/i4")
    assert kvorum.values("/i4/") == {"/i4/db/max-conns": "6", "/i4/NEW": "1"}


@pytest.mark.parametrize("key", [b"/i20/a\tb", b"/i20/a\xffb", b"/i20/a\xc2\xa0b"])
def test_a_variable_finds_its_key_whatever_that_is_made_of(key: bytes, kvorum: CommandLine) -> None:
    """Also where it cannot be shown as it is, or is no text."""
    with Client(f"127.0.0.1:{kvorum.port}") as client:
        client.put(key, "old")
        kvorum.ok("import", "-", "--format=env", "--prefix=/i20", given="A_B=new\n")
        found = {kv.key: kv.value for kv in client.range("/i20/", prefix=True)}
        client.delete("/i20/", prefix=True)
    assert found == {key: b"new"}


def test_a_dry_run_and_a_diff_write_nothing(kvorum: CommandLine) -> None:
    """One lists keys, the other shows lines."""
    kvorum.ok("import", "-", "--format", "yaml", "--prefix", "/i5", given="a: 1\nb: 1\nc: |\n  x\n  y\n")
    before = kvorum.ok("get", "--prefix", "/i5/", "-w", "json")
    (kvorum.folder / "new.yaml").write_text("b: 2\nc: |\n  x\n  z\nd: 1\n")
    words = ("import", "new.yaml", "--prefix", "/i5", "--prune")
    assert kvorum.ok(*words, "--dry-run") == (
        "- /i5/a\n~ /i5/b\n~ /i5/c\n+ /i5/d\n"
        "new.yaml: 1 added, 2 changed, 1 removed, 0 unchanged; nothing is written, this is a dry run\n"
    )
    names, diff = kvorum.ok(*words, "--diff").split("@@\n", 1)
    assert names.startswith("--- the store at revision ")
    assert diff == "-/i5/a: 1\n-/i5/b: 1\n+/i5/b: 2\n /i5/c: |\n   x\n-  y\n+  z\n+/i5/d: 1\n"
    found = json.loads(kvorum.ok(*words, "--diff", "-w", "json"))
    assert found[0] == {"key": "/i5/a", "change": "removed", "old": "1", "new": None}
    assert json.loads(kvorum.ok("get", "--prefix", "/i5/", "-w", "json"))["kvs"] == json.loads(before)["kvs"]


def test_without_prune_other_keys_stay(kvorum: CommandLine) -> None:
    """With it, what the file lacks goes, but only under the prefix."""
    for key in ("/i6/a", "/i6/b", "/i6x", "/i6"):
        kvorum.ok("put", key, "old")
    (kvorum.folder / "f.json").write_text('{"a": "new"}')
    kvorum.ok("import", "f.json", "--prefix", "/i6")
    assert kvorum.values("/i6") == {"/i6": "old", "/i6/a": "new", "/i6/b": "old", "/i6x": "old"}
    assert "0 added, 0 changed, 1 removed, 1 unchanged" in kvorum.ok(
        "import", "f.json", "--prefix", "/i6", "--prune"
    )
    assert kvorum.values("/i6") == {"/i6": "old", "/i6/a": "new", "/i6x": "old"}


def test_prune_of_everything_is_refused(kvorum: CommandLine) -> None:
    """Nobody deletes the whole store by forgetting a flag, nor one file's keys for the next."""
    (kvorum.folder / "f.json").write_text("{}")
    expected = "--prune needs a --prefix, and exactly one FILE: it deletes what that lacks"
    assert kvorum.fails("import", "f.json", "--prune", code=128) == expected
    assert kvorum.fails("import", "f.json", "f.json", "--prefix", "/x", "--prune", code=128) == expected


def test_a_bad_file_stops_those_before_it(kvorum: CommandLine) -> None:
    """All files are read before the first is written."""
    (kvorum.folder / "good.json").write_text('{"a": 1}')
    (kvorum.folder / "bad.json").write_text('{"a": ')
    said = kvorum.fails("import", "good.json", "bad.json", "--prefix", "/i7", code=3)
    assert said == "bad.json: line 1: Expecting value"
    assert kvorum.fails("import", "good.json", "none.json", code=3) == (
        "none.json cannot be read: No such file or directory"
    )
    assert kvorum.values("/i7") == {}


def test_a_lease_stays_with_its_key(kvorum: CommandLine) -> None:
    """A value that is imported does not outlive what its key was bound to."""
    lease = kvorum.ok("lease", "grant", "600").split()[1]
    kvorum.ok("put", f"--lease={lease}", "/i8/a", "1")
    kvorum.ok("import", "-", "--format", "json", "--prefix", "/i8", given='{"a": "2"}')
    kvorum.ok("lease", "revoke", lease)
    assert kvorum.values("/i8") == {}


def test_more_than_one_transaction_holds_is_refused(tmp_path: Path) -> None:
    """The server's limit is named, and nothing is written; up to the limit it goes."""
    with running(start_kvorum(tmp_path, "--max-txn-ops", "4")) as server:
        kvorum = CommandLine(server.port, tmp_path)
        five = json.dumps(dict.fromkeys("abcde", "x"))
        assert kvorum.fails("import", "-", "--format", "json", given=five) == (
            "-: 5 changes are one transaction of 5 operations, more than the server takes (--max-txn-ops, 128"
            " unless set): nothing was written; change less at once, or raise that limit"
        )
        assert kvorum.values("") == {}
        kvorum.ok("import", "-", "--format", "json", given=json.dumps(dict.fromkeys("abcd", "x")))
        assert kvorum.values("") == dict.fromkeys("abcd", "x")


@pytest.mark.parametrize("size", [1_000_000, 3_000_000])
def test_a_file_too_large_for_a_request_is_refused(size: int, kvorum: CommandLine) -> None:
    """The limit is named, and nothing is written. What is very large is refused by another layer."""
    large = json.dumps({"a": "x" * size, "b": "y" * size})
    said = kvorum.fails("import", "-", "--format", "json", "--prefix", "/i9", given=large)
    assert said.startswith(
        f"-: 2 changes of {2 * size + 10} bytes are more than the server takes in one transaction (--max-r"
    )
    assert kvorum.values("/i9") == {}


def test_large_files_change_little(kvorum: CommandLine) -> None:
    """A file of more keys than a transaction may compare can still change some of them."""
    keys = {f"k{n:03}": "1" for n in range(300)}
    for start in range(0, 300, 100):
        part = json.dumps(dict(list(keys.items())[start : start + 100]))
        kvorum.ok("import", "-", "--format", "json", "--prefix", "/i10", given=part)
    whole = json.dumps({**keys, "k150": "2"})
    said = kvorum.ok("import", "-", "--format", "json", "--prefix", "/i10", "--prune", given=whole)
    assert said.startswith("-: 0 added, 1 changed, 0 removed, 299 unchanged (revision ")


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_lost_answer_is_made_good(lost: str, kvorum: CommandLine) -> None:
    """Where the connection breaks during the transaction, it is found out whether it was carried out; and it
    is, once."""
    prefix = f"/i12/{lost}"
    kvorum.ok("import", "-", "--format=yaml", f"--prefix={prefix}", given="a: 1\nb: 1\n")
    with kvorum.meddled(lose=lost) as meddled:
        words = ("import", "-", "--format=yaml", f"--prefix={prefix}", "--prune")
        said = meddled.ok(*words, given="a: 2\nc: 2\n")
    rows = json.loads(kvorum.ok("ls", "-l", prefix, "-w", "json"))
    assert [(row["name"], row["version"]) for row in rows] == [("a", 2), ("c", 1)]
    assert said == f"-: 1 added, 1 changed, 1 removed, 0 unchanged (revision {rows[0]['revision']})\n"


def test_what_stays_unknown_is_said(kvorum: CommandLine) -> None:
    """The answer is lost, and then somebody else writes: nobody can tell whether ours was there between."""
    kvorum.ok("put", "/i13/a", "1")
    with kvorum.meddled(lambda: kvorum.ok("put", "/i13/a", "theirs"), lose="answer") as meddled:
        said = meddled.fails("import", "-", "--format=yaml", "--prefix=/i13", given="a: 2\n", code=2)
    assert "unknown" in said
    assert kvorum.values("/i13") == {"/i13/a": "theirs"}


def test_who_is_too_late_writes_nothing(kvorum: CommandLine) -> None:
    """A change between the reading and the writing is named, and nothing is overwritten."""
    kvorum.ok("import", "-", "--format", "yaml", "--prefix", "/i11", given=CONFIG)
    (kvorum.folder / "new.yaml").write_text(CONFIG.replace("5432", "1"))
    theirs = {"/i11/db/host": "theirs", "/i11/db/port": "5432", "/i11/debug": "no"}
    with kvorum.meddled(lambda: kvorum.ok("put", "/i11/db/host", "theirs")) as meddled:
        said = meddled.fails("import", "new.yaml", "--prefix", "/i11")
    assert said.startswith("new.yaml: /i11/db/host changed since it was read (revision ")
    assert said.endswith("): nothing was written")
    assert kvorum.values("/i11") == theirs


@pytest.mark.parametrize("form", ["simple", "json", "yaml", "table", "fields"])
def test_a_file_s_name_may_be_no_text(form: str, kvorum: CommandLine) -> None:
    """What is written is reported, whatever bytes its name is made of."""
    name = os.fsdecode(b"\xff.yaml")
    (kvorum.folder / name).write_text("a: 1\n")
    said = kvorum.ok("import", name, f"--prefix=/i21/{form}", "-o", form)
    assert "added" in said.lower()
    assert kvorum.values(f"/i21/{form}") == {f"/i21/{form}/a": "1"}


def test_what_a_file_says_cannot_command_a_terminal(kvorum: CommandLine) -> None:
    """Also where it is named because it is wrong."""
    text = '{"a\\u001b[31m": 1, "a\\u001b[31m": 2}'
    said = kvorum.fails("import", "-", "--format=json", given=text, code=3)
    assert said == "-: the name a\\x1b[31m is given twice"
