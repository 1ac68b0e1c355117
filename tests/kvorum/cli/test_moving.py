"""cp, mv and rm: of a key, or of all under a prefix; all or nothing."""

from __future__ import annotations

import json

import pytest

from tests.kvorum.cli.conftest import CommandLine


@pytest.fixture
def at(kvorum: CommandLine, request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own, with a tree under it."""
    prefix = f"/mv/{request.node.name}"
    for name in ("db/host", "db/port", "debug"):
        kvorum.ok("put", f"{prefix}/a/{name}", name)
    return prefix


def under(kvorum: CommandLine, prefix: str) -> dict[str, str]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in kvorum.values(f"{prefix}/").items()}


TREE = {"a/db/host": "db/host", "a/db/port": "db/port", "a/debug": "debug"}


def test_a_key(at: str, kvorum: CommandLine) -> None:
    """Copied and moved by name; below a target that ends in a slash, under its own."""
    assert kvorum.ok("cp", f"{at}/a/debug", f"{at}/b").startswith("copied 1 key (revision ")
    kvorum.ok("cp", f"{at}/a/db/host", f"{at}/a/")
    assert kvorum.ok("mv", f"{at}/a/db/port", f"{at}/c").startswith("moved 1 key (revision ")
    expected = {"a/db/host": "db/host", "a/debug": "debug", "a/host": "db/host", "b": "debug", "c": "db/port"}
    assert under(kvorum, at) == expected


def test_a_prefix(at: str, kvorum: CommandLine) -> None:
    """All keys under it, in one revision."""
    copied = json.loads(kvorum.ok("cp", "-r", f"{at}/a", f"{at}/b/", "-w", "json"))
    copies = {key.replace("a/", "b/", 1): value for key, value in TREE.items()}
    assert under(kvorum, at) == {**TREE, **copies}
    assert copied["copied"] == 3
    rows = json.loads(kvorum.ok("ls", "-l", "-R", f"{at}/b", "-w", "json"))
    assert {row["revision"] for row in rows} == {copied["revision"]}
    moved = json.loads(kvorum.ok("mv", "-r", f"{at}/a/", f"{at}/c", "-w", "json"))
    assert moved["keys"] == [f"{at}/c/db/host", f"{at}/c/db/port", f"{at}/c/debug"]
    assert under(kvorum, at) == {
        **copies,
        **{key.replace("a/", "c/", 1): value for key, value in TREE.items()},
    }


def test_into_itself_and_out_of_itself(at: str, kvorum: CommandLine) -> None:
    """A prefix can be moved deeper and higher, also where source and target overlap."""
    kvorum.ok("mv", "-r", f"{at}/a", f"{at}/a/b")
    assert set(under(kvorum, at)) == {"a/b/db/host", "a/b/db/port", "a/b/debug"}
    kvorum.ok("mv", "-r", f"{at}/a/b", f"{at}/a")
    assert under(kvorum, at) == TREE
    kvorum.ok("cp", "-r", f"{at}/a", f"{at}/a/a")
    assert len(under(kvorum, at)) == 6
    # a/x goes to a/a/x, a/a/x to a/a/a/x: each of the three goes on to the next.
    kvorum.ok("mv", "-r", "--force", f"{at}/a", f"{at}/a/a")
    assert set(under(kvorum, at)) == {f"a/a/{key}" for key in ("db/host", "db/port", "debug")} | {
        f"a/a/a/{key}" for key in ("db/host", "db/port", "debug")
    }


def test_what_is_there_is_not_overwritten(at: str, kvorum: CommandLine) -> None:
    """Unless it is forced; then too, nothing but the targets."""
    kvorum.ok("put", f"{at}/b/debug", "theirs")
    kvorum.ok("put", f"{at}/b/other", "theirs")
    before = under(kvorum, at)
    for words in (("cp", "-r", f"{at}/a", f"{at}/b"), ("mv", f"{at}/a/debug", f"{at}/b/debug")):
        said = kvorum.fails(*words)
        assert said == f"{at}/b/debug would be overwritten: give --force if that is meant"
    assert under(kvorum, at) == before
    kvorum.ok("mv", "-rf", f"{at}/a", f"{at}/b")
    expected = {"b/db/host": "db/host", "b/db/port": "db/port", "b/debug": "debug", "b/other": "theirs"}
    assert under(kvorum, at) == expected


def test_what_is_not_there(at: str, kvorum: CommandLine) -> None:
    """Is named; and a key is not moved onto itself."""
    assert kvorum.fails("cp", f"{at}/a/db", f"{at}/b") == (
        f"there is no key {at}/a/db (all keys under a prefix: -r)"
    )
    assert kvorum.fails("mv", "-r", f"{at}/none", f"{at}/b") == f"there is no key under {at}/none/"
    assert kvorum.fails("cp", f"{at}/a/debug", f"{at}/a/") == (
        f"{at}/a/debug: source and target are the same"
    )
    assert under(kvorum, at) == TREE


def test_leases(at: str, kvorum: CommandLine) -> None:
    """What is moved ends with its lease; a copy does not."""
    lease = kvorum.ok("lease", "grant", "600").split()[1]
    kvorum.ok("put", f"--lease={lease}", f"{at}/l/x", "1")
    kvorum.ok("cp", f"{at}/l/x", f"{at}/copy")
    kvorum.ok("mv", "-r", f"{at}/l", f"{at}/moved")
    assert {"copy", "moved/x"} <= under(kvorum, at).keys()
    kvorum.ok("lease", "revoke", lease)
    assert under(kvorum, at) == {**TREE, "copy": "1"}


@pytest.mark.parametrize("word", ["cp", "mv"])
@pytest.mark.parametrize(
    "change", ["put a/debug theirs", "del a/debug", "put a/new theirs", "put b/debug theirs"]
)
def test_who_is_too_late_changes_nothing(word: str, change: str, at: str, kvorum: CommandLine) -> None:
    """A source that is changed, deleted or new, a target that appears: each is a conflict, and named."""
    verb, name, *value = change.split()
    with kvorum.meddled(lambda: kvorum.ok(verb, f"{at}/{name}", *value)) as meddled:
        said = meddled.fails(word, "-r", f"{at}/a", f"{at}/b")
    assert said.startswith(f"{at}/{name} changed since it was read (revision ")
    theirs = {**TREE, name: value[0]} if value else {k: v for k, v in TREE.items() if k != name}
    assert under(kvorum, at) == theirs


def test_more_than_a_transaction_holds(at: str, kvorum: CommandLine) -> None:
    """A hundred and twenty-six keys can be moved at once; more are refused, and nothing is moved."""
    for count, start in ((100, 0), (26, 100), (1, 126)):
        keys = json.dumps({f"k{start + n:03}": "x" for n in range(count)})
        kvorum.ok("import", "-", "--format=json", f"--prefix={at}/many{'/' * (start < 126)}", given=keys)
    said = kvorum.fails("mv", "-r", f"{at}/many", f"{at}/more")
    assert said.startswith(
        "254 changes are one transaction of 129 operations, more than the server takes (--max-t"
    )
    kvorum.ok("rm", f"{at}/many/k126")
    kvorum.ok("mv", "-r", f"{at}/many", f"{at}/more")
    assert len(under(kvorum, f"{at}/more")) == 126
    assert under(kvorum, f"{at}/many") == {}


def test_rm_of_keys(at: str, kvorum: CommandLine) -> None:
    """All of them or, if one is not there, none."""
    said = kvorum.fails("rm", f"{at}/a/debug", f"{at}/none")
    assert said == f"there is no key {at}/none: nothing was deleted"
    assert under(kvorum, at) == TREE
    assert kvorum.ok("rm", f"{at}/a/debug", f"{at}/a/db/port").startswith("removed 2 keys (revision ")
    assert under(kvorum, at) == {"a/db/host": "db/host"}


def test_rm_of_a_prefix_asks(at: str, kvorum: CommandLine) -> None:
    """On a terminal, with how much it is; where nobody can be asked it wants --yes."""
    assert kvorum.fails("rm", "-r", f"{at}/a", code=128) == (
        "nobody can be asked here whether to delete these keys: give --yes"
    )
    question = f"Delete 3 keys under {at}/a/? [y/N]"
    no = kvorum.on_terminal("rm", "-r", f"{at}/a", when=question, answer=lambda: "n\n")
    assert (no.code, no.out.splitlines()[-1]) == (1, "Error: nothing was deleted")
    assert under(kvorum, at) == TREE
    yes = kvorum.on_terminal("rm", "-r", f"{at}/a", when=question, answer=lambda: "y\n")
    assert "removed 3 keys (revision " in yes.out
    assert under(kvorum, at) == {}
    assert kvorum.fails("rm", "-ry", f"{at}/a") == f"there is no key under {at}/a/"


def test_rm_deletes_nothing_that_was_not_asked_about(at: str, kvorum: CommandLine) -> None:
    """What changes while the question stands is not deleted unseen."""

    def answer() -> str:
        kvorum.ok("put", f"{at}/a/new", "theirs")
        return "y\n"

    ran = kvorum.on_terminal("rm", "-r", f"{at}/a", when="[y/N]", answer=answer)
    assert (ran.code, ran.out.splitlines()[-1]) == (
        1, f"Error: something under {at}/a/ changed meanwhile: nothing was deleted"
    )  # fmt: skip
    assert under(kvorum, at) == {**TREE, "a/new": "theirs"}


def test_rm_of_several_prefixes(at: str, kvorum: CommandLine) -> None:
    """One under the other is no obstacle; neighbours stay."""
    kvorum.ok("put", f"{at}/ab", "stays")
    assert kvorum.ok("rm", "-ry", f"{at}/a", f"{at}/a/db", f"{at}/a/").startswith("removed 3 keys")
    assert under(kvorum, at) == {"ab": "stays"}
