"""Differences for people: a unified diff that patch itself could follow."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvorum.cli.data.unified import Difference, differences, entry, unified

SIDES = st.dictionaries(
    st.sampled_from([b"k%02d" % n for n in range(30)]), st.sampled_from([b"", b"x", b"a\nb\nc", b"a\nd\n"])
)


@given(SIDES, SIDES)
@settings(max_examples=40)
def test_patch_makes_one_of_the_other(old: dict[bytes, bytes], new: dict[bytes, bytes]) -> None:
    """The lines, their numbers and their order are those of diff -u: patch accepts them without fuzz."""

    def text(side: dict[bytes, bytes]) -> str:
        return "".join(f"{line}\n" for key in sorted(side) for line in entry(key, side[key]))

    diff = "".join(f"{line}\n" for line in unified(old, new, "old", "new"))
    assert (not diff) == (old == new)
    with TemporaryDirectory() as folder:
        file = Path(folder, "file")
        file.write_text(text(old))
        if diff:
            command = ["patch", "--fuzz=0", "--quiet", str(file)]
            subprocess.run(command, input=diff.encode(), check=True, capture_output=True)
        # Of what was emptied, patch leaves no file.
        assert (file.read_text() if file.exists() else "") == text(new)


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (b"plain", ["k: plain"]),
        (b"", ['k: ""']),
        (b" x", ['k: " x"']),
        (b'"x', ['k: "\\"x"']),
        (b"a\nb\n", ["k: |", "  a", "  b"]),
        (b"a\nb", ["k: |-", "  a", "  b"]),
        (b"\x1b[31m", ['k: "\\x1b[31m"']),
        (b"\xff", ['k: "\\xff"']),
        (b"\xff" * 100, ["k: (100 bytes, SHA-256 da6f14970ce356ce…)"]),
    ],
)
def test_a_value_in_lines(value: bytes, lines: list[str]) -> None:
    """Text as it is; what a terminal would obey, quoted; many bytes, told."""
    assert entry(b"k", value) == lines


def test_differences_are_in_the_order_of_keys() -> None:
    """With what was and what becomes of each."""
    found = differences({b"b": b"1", b"a": b"1", b"s": b""}, {b"c": b"1", b"a": b"2", b"s": b""})
    assert found == [Difference(b"a", b"1", b"2"), Difference(b"b", b"1", None), Difference(b"c", None, b"1")]
    assert [one.kind for one in found] == ["changed", "removed", "added"]
