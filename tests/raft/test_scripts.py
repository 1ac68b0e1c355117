"""Every script in ``scripts/`` is a test. ``scripted`` tells its commands, ``tests.datadriven`` its form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import datadriven
from tests.raft.scripted import Interpreter

SCRIPTS = Path(__file__).parent / "scripts"

# Scripts that say what should happen where the core does something else, each with the reason.
# They are not rewritten, and one that passes fails the suite: take it off the list then.
KNOWN_FAILURES: dict[str, str] = {}


def _cases() -> list[object]:
    paths = sorted(SCRIPTS.glob("*.txt"))
    return [
        pytest.param(
            path,
            id=path.stem,
            marks=[pytest.mark.xfail(strict=True, reason=KNOWN_FAILURES[path.stem])]
            if path.stem in KNOWN_FAILURES
            else [],
        )
        for path in paths
    ]


@pytest.mark.parametrize("path", _cases())
def test_script(path: Path, rewrite: bool) -> None:
    """The script prints what it claims."""
    datadriven.run(path, Interpreter().execute, rewrite=rewrite and path.stem not in KNOWN_FAILURES)


def test_known_failures_exist() -> None:
    """The list names scripts that are there."""
    assert KNOWN_FAILURES.keys() <= {path.stem for path in SCRIPTS.glob("*.txt")}
