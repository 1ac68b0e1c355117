"""kvorum help, which is --help in other words."""

from __future__ import annotations

import pytest

from tests.common.commands import run_here


@pytest.mark.parametrize("words", [[], ["get"], ["lease"], ["lease", "grant"], ["help"]])
def test_it_is_what_the_flag_shows(words: list[str]) -> None:
    """Of the program, a group, and a command."""
    asked = run_here(["help", *words])
    assert asked == run_here([*words, "--help"])
    assert (asked.code, asked.error) == (0, "")
    assert asked.out.startswith(" ".join(["Usage: kvorum", *words]))


def test_what_is_no_command_is_named() -> None:
    """In one line."""
    assert run_here(["help", "frob"]) == (128, "", "Error: No such command 'frob'.\n")
