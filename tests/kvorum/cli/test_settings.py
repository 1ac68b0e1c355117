"""What the global flags say."""

from __future__ import annotations

import click
import pytest

from kvorum.cli.settings import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1h0m0s", 3600), ("1.5h", 5400), (".5s", 0.5)),
        *(("250us", 0.00025), ("1µs", 1e-6), ("5", 5), ("0.5", 0.5), ("0", 0)),
    ],
)
def test_durations_are_go_s_or_seconds(text: str, expected: float) -> None:
    """In one piece or in several."""
    assert seconds("--flag", text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "s", "1m30", "1 s", "-1s", "1d", "1.2.3s", "."])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """With the flag's name."""
    with pytest.raises(click.BadParameter, match="expected one such as 5s or 500ms") as caught:
        seconds("--flag", text)
    assert caught.value.param_hint == "'--flag'"
