"""The runner of scripts, on scripts of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import datadriven
from tests.datadriven import ScriptError

GOOD = """\
# It counts.
(say a; say b)

# And here is why.
say one; say two
(say hidden)
say three
----
one
two
three

(say only set-up)

quiet
----
(nothing)
"""


def execute(command: str) -> list[str]:
    """``say X`` prints X, ``quiet`` nothing."""
    name, _, rest = command.partition(" ")
    if name == "say":
        return [rest]
    if name == "quiet":
        return []
    raise ScriptError(f"no command {name}")


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "script.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_script_that_prints_what_it_claims_passes(tmp_path: Path) -> None:
    """Shown commands print, commands in parentheses do not, and nothing is printed as such."""
    path = script(tmp_path, GOOD)
    datadriven.run(path, execute)
    assert path.read_text(encoding="utf-8") == GOOD


def test_commands_run_in_order() -> None:
    """Also those in parentheses are run, where they stand."""
    ran: list[str] = []
    for block in datadriven.parse(GOOD):
        ran += [command.text for command in block.commands]
    assert ran == [
        "say a",
        "say b",
        "say one",
        "say two",
        "say hidden",
        "say three",
        "say only set-up",
        "quiet",
    ]


def test_a_difference_fails_with_a_diff(tmp_path: Path) -> None:
    """What was expected and what was printed instead are both told, and the file is left alone."""
    wrong = GOOD.replace("two\nthree", "2\nthree")
    path = script(tmp_path, wrong)
    with pytest.raises(AssertionError, match=r"(?s)-2\n\+two"):
        datadriven.run(path, execute)
    assert path.read_text(encoding="utf-8") == wrong


@pytest.mark.parametrize("expected", ["one\ntwo\nthree\nfour", "one", "(nothing)"])
def test_output_that_is_missing_or_too_much_fails(tmp_path: Path, expected: str) -> None:
    """Every line counts, also at the end."""
    path = script(tmp_path, GOOD.replace("one\ntwo\nthree", expected))
    with pytest.raises(AssertionError):
        datadriven.run(path, execute)


def test_rewriting_accepts_what_is_printed(tmp_path: Path) -> None:
    """--rewrite changes nothing but the expected output."""
    path = script(tmp_path, GOOD.replace("one\ntwo\nthree", "two").replace("(nothing)", "something"))
    datadriven.run(path, execute, rewrite=True)
    assert path.read_text(encoding="utf-8") == GOOD


def test_rewriting_fills_in_what_is_new(tmp_path: Path) -> None:
    """A new block is written without its output."""
    path = script(tmp_path, "# New.\nsay x\n----\n\n\nsay y\n----")
    datadriven.run(path, execute, rewrite=True)
    assert path.read_text(encoding="utf-8") == "# New.\nsay x\n----\nx\n\nsay y\n----\ny\n"
    datadriven.run(path, execute)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("say x\n----\nx\n", "script.txt:1: expected a comment"),
        ("", "expected a comment"),
        ("# A.\n\nsay x\n", "script.txt:3: expected ----"),
        ("# A.\n----\nx\n", "expected commands"),
        ("# A.\n(say x\n", r"script.txt:2: expected \)"),
        ("# A.\nsay x;; say y\n----\nx\n", "empty command"),
        ("# A.\nshout x\n----\nx\n", "script.txt:1: shout x: no command shout"),
        ("# A.\nsay  \n----\n\n", "without empty lines"),
    ],
)
def test_a_bad_script_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The complaint names the file and the line."""
    with pytest.raises(ScriptError, match=message):
        datadriven.run(script(tmp_path, text), execute)
