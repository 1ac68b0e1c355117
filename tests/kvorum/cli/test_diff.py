"""diff: two prefixes, a prefix and a file, a prefix and its past."""

from __future__ import annotations

import json

import pytest

from tests.kvorum.cli.conftest import CommandLine


@pytest.fixture
def sides(kvorum: CommandLine) -> CommandLine:
    """/d/a and /d/b, which differ."""
    kvorum.ok("rm", "-ry", "/d") if kvorum.values("/d/") else None
    kvorum.ok("import", "-", "--format=yaml", "--prefix=/d/a", given="x: 1\ny: 1\nt: |\n  a\n  b\n")
    kvorum.ok("import", "-", "--format=yaml", "--prefix=/d/b", given="x: 1\nz: 1\nt: |\n  a\n  c\n")
    return kvorum


BODY = " t: |\n   a\n-  b\n+  c\n x: 1\n-y: 1\n+z: 1\n"


def test_two_prefixes(sides: CommandLine) -> None:
    """Keys are compared by what stands behind the prefix, at one revision; equal ones print nothing."""
    old, new, hunk, *body = sides.ok("diff", "/d/a", "/d/b/").splitlines(keepends=True)
    revision = old.split()[-1]
    assert (old, new) == (f"--- /d/a/ at revision {revision}\n", f"+++ /d/b/ at revision {revision}\n")
    assert (hunk, "".join(body)) == ("@@ -1,5 +1,5 @@\n", BODY)
    assert sides.ok("diff", "/d/a", "/d/a") == ""


def test_a_prefix_and_a_file(sides: CommandLine) -> None:
    """What would have to change for the prefix to be what the file says; also from standard input."""
    text = sides.ok("export", "--prefix", "/d/b")
    (sides.folder / "b.yaml").write_text(text)
    for out in (
        sides.ok("diff", "/d/a", "b.yaml"),
        sides.ok("diff", "/d/a", "-", "--format", "yaml", given=text),
    ):
        assert out.splitlines()[1] in ("+++ b.yaml", "+++ -")
        assert out.endswith(BODY)
    assert sides.ok("diff", "/d/b", "b.yaml") == ""


def test_two_revisions(sides: CommandLine) -> None:
    """With one it is compared with now."""
    first = json.loads(sides.ok("get", "/none", "-w", "json"))["header"]["revision"]
    sides.ok("put", "/d/a/x", "2")
    second = json.loads(sides.ok("get", "/none", "-w", "json"))["header"]["revision"]
    sides.ok("put", "/d/a/x", "3")
    assert sides.ok("diff", "/d/a", f"--rev={first}").splitlines()[-3:] == ["-x: 1", "+x: 3", " y: 1"]
    between = sides.ok("diff", "/d/a", f"--rev={first}", f"--to-rev={second}").splitlines()
    assert between[:2] == [f"--- /d/a/ at revision {first}", f"+++ /d/a/ at revision {second}"]
    assert between[-3:] == ["-x: 1", "+x: 2", " y: 1"]
    assert sides.fails("diff", "/d/a", code=128) == (
        "give what to compare with: another prefix, a FILE, or --rev"
    )
    assert "future revision" in sides.fails("diff", "/d/a", "--rev=999999999")


def test_exit_code_and_formats(sides: CommandLine) -> None:
    """Differences are an exit code only if that is asked for; they can be had as data."""
    assert sides("diff", "/d/a", "/d/b", "--exit-code").code == 1
    assert sides("diff", "/d/a", "/d/a", "--exit-code").code == 0
    assert json.loads(sides.ok("diff", "/d/a", "/d/b", "-w", "json"))[1:] == [
        {"key": "y", "change": "removed", "old": "1", "new": None},
        {"key": "z", "change": "added", "old": None, "new": "1"},
    ]


def test_colours_on_a_terminal(sides: CommandLine) -> None:
    """Added green, removed red; elsewhere, or with NO_COLOR, plain."""
    out = sides.on_terminal("diff", "/d/a", "/d/b").out
    assert "\x1b[31m-y: 1\x1b[0m\n\x1b[32m+z: 1\x1b[0m\n" in out
    assert "\x1b" not in sides.on_terminal("diff", "/d/a", "/d/b", NO_COLOR="1").out
    assert "\x1b" not in sides.process("diff", "/d/a", "/d/b").out
