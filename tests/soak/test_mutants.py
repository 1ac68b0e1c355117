"""The judges of leases and locks see real mistakes: clusters of processes that have one must be caught."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.common.servers import ROOT
from tests.sim.mutants import load
from tests.soak.mutated import DIRECTORY, names


@pytest.mark.parametrize(
    ("mutant", "minutes", "why"),
    [
        ("keepalive_that_changes_nothing", "0.06", "had to live"),
        ("lock_without_waiting", "0.04", "not the holder|not the leader"),
    ],
)
def test_a_mistake_is_caught(
    mutant: str, minutes: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without faults. The other mistakes show only with some, or take longer."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-m", "tests.soak.main", "--minutes", minutes, "--mutant", mutant]
    command += ["--plain", "--faults", "none", "--rate", "100"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1, f"{ran.stdout}\n{ran.stderr}"
    _, _, told = ran.stdout.partition("VIOLATION(S):")
    assert any(word in told for word in why.split("|")), ran.stdout


@pytest.mark.parametrize("name", names())
def test_every_mistake_fits_the_code(name: str) -> None:
    mutant = load(name, DIRECTORY)
    assert mutant.apply((ROOT / mutant.path).read_text())
