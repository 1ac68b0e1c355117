"""edit: a value or a prefix in an editor, written back only where nobody else was faster."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import pytest

from tests.kvorum.cli.conftest import CommandLine


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a shell script the editor; the file is $1."""

    def use(script: str) -> None:
        path = tmp_path / "an editor"
        path.write_text(f"#!/bin/sh\nset -e\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("VISUAL", shlex.quote(str(path)))

    return use


def kept(error: str) -> str:
    """The text in the file that the error names."""
    return Path(re.search(r"What you edited is kept in (.+)", error)[1]).read_text()


def test_a_value_is_edited(editor, kvorum: CommandLine) -> None:
    """The line break that editors add is taken off where the value had none, and kept where it had one."""
    editor('echo changed > "$1"')
    kvorum.ok("put", "/ed1/a", "old")
    assert re.fullmatch(r"/ed1/a: written \(revision \d+\)\n", kvorum.ok("edit", "/ed1/a"))
    assert kvorum.ok("get", "/ed1/a", "--print-value-only") == "changed\n"
    kvorum.ok("put", "/ed1/b", given="old\n")
    kvorum.ok("edit", "/ed1/b")
    assert kvorum.ok("get", "/ed1/b", "--print-value-only") == "changed\n\n"
    kvorum.ok("edit", "/ed1/new")
    assert kvorum.ok("get", "/ed1/new", "--print-value-only") == "changed\n"


def test_what_is_unchanged_is_not_written(editor, kvorum: CommandLine) -> None:
    """No revision is made, and a key that is not there stays so."""
    editor(":")
    kvorum.ok("put", "/ed2/a", "old")
    before = kvorum.ok("ls", "-l", "/ed2", "-w", "json")
    for target in ("/ed2/a", "/ed2/", "/ed2/none"):
        assert kvorum.ok("edit", target) == f"{target}: unchanged, nothing written\n"
    assert kvorum.ok("ls", "-l", "/ed2", "-w", "json") == before


def test_an_editor_that_leaves_no_file_has_written_nothing(editor, kvorum: CommandLine) -> None:
    editor('rm "$1"')
    kvorum.ok("put", "/ed23/a", "old")
    said = kvorum.fails("edit", "/ed23/a")
    assert said == "the editor left no text: No such file or directory; nothing was written"
    assert kvorum.values("/ed23") == {"/ed23/a": "old"}


def test_an_interrupt_is_the_editor_s_affair(editor, kvorum: CommandLine) -> None:
    """Ctrl-C goes to whoever is on the terminal. In an editor it ends some mode, and not the editing."""
    editor('kill -INT $PPID; kill -QUIT $PPID; echo "in spite of it" > "$1"')
    kvorum.ok("put", "/ed20/a", "old")
    ran = kvorum.process("edit", "/ed20/a")
    assert (ran.code, ran.error) == (0, "")
    assert kvorum.values("/ed20") == {"/ed20/a": "in spite of it"}
    editor("grep SigIgn /proc/self/status > seen")
    kvorum.process("edit", "/ed20/a")
    ignored = int((kvorum.folder / "seen").read_text().split()[1], 16)
    assert not ignored & (1 << (signal.SIGINT - 1))


@pytest.mark.parametrize("name", ["..", ".", "x" * 300, "é" * 200 + ".yaml", "a\nb"])
def test_a_key_need_not_be_a_file_s_name(name: str, editor, kvorum: CommandLine) -> None:
    editor('echo changed > "$1"')
    kvorum.ok("edit", f"/ed21/{name}")
    assert kvorum.ok("get", "--prefix", "/ed21", "--print-value-only") == "changed\n"
    kvorum.ok("del", "--prefix", "/ed21")


def test_variables_are_the_keys_they_were_made_of(editor, kvorum: CommandLine) -> None:
    """Also those of a key that cannot be shown as it is: it is not renamed by the way."""
    editor("sed -i s/old/new/ $1")
    kvorum.ok("put", "/ed22/a\tb", "kept")
    kvorum.ok("put", "/ed22/c", "old")
    kvorum.ok("edit", "/ed22/", "--format=env")
    assert kvorum.values("/ed22") == {"/ed22/a\tb": "kept", "/ed22/c": "new"}


def test_nobody_else_can_read_the_file(editor, kvorum: CommandLine) -> None:
    """A value may be a secret: the file is in a folder of its own, and gone afterwards."""
    editor('stat -c %a "$(dirname "$1")" > seen; echo "$1" >> seen; echo x > "$1"')
    kvorum.ok("put", "/ed3/app.conf", "old")
    kvorum.ok("edit", "/ed3/app.conf")
    mode, path = (kvorum.folder / "seen").read_text().split()
    assert (mode, Path(path).name) == ("700", "app.conf")
    assert not Path(path).parent.exists()


def test_who_is_too_late_keeps_the_text(editor, kvorum: CommandLine) -> None:
    """What somebody else wrote stays, and what was typed is in a file."""
    theirs = shlex.join(kvorum.command("put", "/ed4/a", "theirs"))
    editor(f'{theirs}; echo mine > "$1"')
    kvorum.ok("put", "/ed4/a", "old")
    ran = kvorum("edit", "/ed4/a", PYTHONPATH=kvorum.home)
    assert ran.code == 1
    assert "Error: /ed4/a changed since it was read (revision " in ran.error
    assert kept(ran.error) == "mine\n"
    assert kvorum.values("/ed4") == {"/ed4/a": "theirs"}


def test_a_prefix_is_edited_as_yaml(editor, kvorum: CommandLine) -> None:
    """Lines that are changed, added and taken out are keys that are; all in one revision."""
    for name in ("db/host", "db/port", "gone", "same"):
        kvorum.ok("put", f"/ed5/{name}", "1")
    editor("""cp "$1" seen; sed -i 's/host:.*/host: two/; /gone/d; $a new: 3' "$1" """)
    assert kvorum.ok("edit", "/ed5/").startswith("/ed5/: written (revision ")
    seen = (kvorum.folder / "seen").read_text()
    assert seen.startswith("# The keys under /ed5/ at revision ")
    assert seen.endswith("\ndb:\n  host: '1'\n  port: '1'\ngone: '1'\nsame: '1'\n")
    values = {"/ed5/db/host": "two", "/ed5/db/port": "1", "/ed5/new": "3", "/ed5/same": "1"}
    assert kvorum.values("/ed5/") == values


@pytest.mark.parametrize("format_", ["yaml", "json", "toml", "env", "properties"])
def test_a_prefix_in_another_format(format_: str, editor, kvorum: CommandLine) -> None:
    """Every format can be edited, also when nothing is changed."""
    kvorum.ok("put", f"/ed6/{format_}/db/host", "old")
    editor(":")
    assert "unchanged" in kvorum.ok("edit", "-r", f"/ed6/{format_}", "--format", format_)
    editor("""sed -i s/old/new/ "$1" """)
    kvorum.ok("edit", "-r", f"/ed6/{format_}", "--format", format_)
    assert kvorum.values("/ed6/" + format_) == {f"/ed6/{format_}/db/host": "new"}


def test_a_key_that_appears_under_an_edited_prefix(editor, kvorum: CommandLine) -> None:
    """It would otherwise be deleted unseen: it is a conflict."""
    kvorum.ok("put", "/ed7/a", "old")
    theirs = shlex.join(kvorum.command("put", "/ed7/b", "theirs"))
    editor(f"""{theirs}; sed -i s/old/mine/ "$1" """)
    ran = kvorum("edit", "/ed7/", PYTHONPATH=kvorum.home)
    assert "Error: /ed7/b changed since it was read" in ran.error
    assert "a: mine" in kept(ran.error)
    assert kvorum.values("/ed7") == {"/ed7/a": "old", "/ed7/b": "theirs"}


def test_a_text_that_is_no_yaml_is_kept(editor, kvorum: CommandLine) -> None:
    """It is said what is wrong, and nothing is written; on a terminal it can be edited again."""
    kvorum.ok("put", "/ed8/a", "old")
    editor('echo "a: [" > "$1"')
    ran = kvorum("edit", "/ed8/")
    assert (ran.code, kept(ran.error)) == (3, "a: [\n")
    assert "Error: line 2: " in ran.error
    editor('if grep -q bad "$1"; then echo "a: new" > "$1"; else echo "bad: [" > "$1"; fi')
    (kvorum.folder / "an editor").chmod(0o755)
    path = shlex.quote(str(kvorum.folder / "an editor"))
    ran = kvorum.on_terminal("edit", "/ed8/", when="Edit again?", answer=lambda: "y\n", VISUAL=path)
    assert ran.code == 0, ran
    assert kvorum.values("/ed8") == {"/ed8/a": "new"}


def test_an_editor_that_fails_writes_nothing(editor, kvorum: CommandLine) -> None:
    """Leaving it with an error is how one gives up; what was typed until then is kept."""
    kvorum.ok("put", "/ed9/a", "old")
    editor("exit 3")
    assert kvorum.fails("edit", "/ed9/a") == "the editor ended with 3: nothing was written"
    editor('echo typed > "$1"; exit 3')
    assert kept(kvorum("edit", "/ed9/a").error) == "typed\n"
    assert kvorum.values("/ed9") == {"/ed9/a": "old"}


def test_no_editor(kvorum: CommandLine) -> None:
    """What cannot be run is named, with the variables to set."""
    ran = kvorum("edit", "/ed10/a", VISUAL="", EDITOR="/no/editor")
    assert ran.error.startswith("Error: the editor '/no/editor' cannot be run: ")
    assert ran.error.endswith("; set $VISUAL or $EDITOR\n")


def test_a_lease_stays_with_an_edited_key(editor, kvorum: CommandLine) -> None:
    """Editing a value does not make it outlive what it was bound to."""
    lease = kvorum.ok("lease", "grant", "600").split()[1]
    kvorum.ok("put", f"--lease={lease}", "/ed11/a", "1")
    editor('echo 2 > "$1"')
    kvorum.ok("edit", "/ed11/a")
    kvorum.ok("lease", "revoke", lease)
    assert kvorum.values("/ed11") == {}
