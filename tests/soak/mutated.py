"""Kvorum with a deliberate mistake: ``python -m tests.soak.mutated NAME serve …``.

The mistakes are files in ``mutants/``, as those of the simulator (``tests.sim.mutants``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.sim import mutants

DIRECTORY = Path(__file__).resolve().parent / "mutants"


def names() -> list[str]:
    return sorted(path.stem for path in DIRECTORY.glob("*.mutant"))


def main(name: str, arguments: list[str]) -> int:
    mutants.install(mutants.load(name, DIRECTORY))
    from kvorum.cli.main import run  # which imports what has the mistake

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
