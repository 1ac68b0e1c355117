"""Words of the interactive commands."""

from __future__ import annotations

import pytest

from kvorum.cli.words import split


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  watch\tfoo  --rev=1 ", ["watch", "foo", "--rev=1"]),
        ("put 'a \\n b' \"c d\"", ["put", "a \\n b", "c d"]),
        (r'put "\x41\t\101\u00e9\U0001F600\"\\"', ["put", 'A\tAé😀"\\']),
        (r'put "\xff"', ["put", "\udcff"]),
        ('a"b c"d \'\' ""', ['a"b', 'c"d', "", ""]),
        ("put 'never ends", ["put", "never", "ends"]),
    ],
)
def test_lines_are_split_as_etcdctl_splits_them(line: str, words: list[str]) -> None:
    """At spaces and quotes; a quote within a word is part of it."""
    assert split(line) == words


@pytest.mark.parametrize("line", [r'"\q"', r'"\x4"', r'"\u12"', r'"\UFFFFFFFF"', r'"\9"', '"a\\\'"'])
def test_an_escape_that_is_none_is_refused(line: str) -> None:
    """In Go's words."""
    with pytest.raises(ValueError, match=r"^invalid syntax$"):
        split(line)
