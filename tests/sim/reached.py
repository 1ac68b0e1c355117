"""``scripts/simulate --coverage``: does the simulator reach every branch of the core?

Branches that it does not reach are listed, with the reason, in ``unreached.txt``; one that is
not listed there is a gap in the simulator (or dead code), and one that is listed and was reached is
a reason that no longer holds. The checks of ``invariants.py`` are not counted: their failing
branches are what must not be reached.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LIST = Path(__file__).parent / "unreached.txt"
MEASURED = "raft/core/*"
LEFT_OUT = ("raft/core/invariants.py", "raft/core/describe.py")


def report(start: int, seeds: int, jobs: int) -> int:
    """Run seeds under measurement; print what is unreached. 0 if that is what the list says."""
    with tempfile.TemporaryDirectory() as directory:
        share = -(-seeds // jobs)
        parts = [(Path(directory) / f"part{n}", start + n * share, share) for n in range(jobs)]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda part: _measure_apart(*part), parts))
        found, percent = _combine(directory, [str(path) for path, _, _ in parts])
    argued = arguments()
    print(f"{seeds} seeds from {start} reach {percent:.1f} % of the core's lines and branches")
    for place in sorted(found):
        print(f"  unreached  {place}\n             {argued.get(place, 'NOT ARGUED')}")
    missing = found - argued.keys()
    print(f"{len(found)} unreached, {len(missing)} of them not argued")
    for place in sorted(argued.keys() - found):
        print(f"  note: argued to be unreachable, but reached: {place}")
    return 1 if missing else 0


def arguments() -> dict[str, str]:
    """What is argued to be unreached, and why: a line that names it, then indented lines that say why."""
    argued: dict[str, str] = {}
    place = ""
    for line in LIST.read_text().splitlines():
        if line.startswith("    "):
            argued[place] = f"{argued[place]} {line.strip()}".strip()
        elif line and not line.startswith("#"):
            place = line
            argued[place] = ""
    return argued


def _measure_apart(path: Path, start: int, seeds: int) -> None:
    command = [sys.executable, "-m", "tests.sim.reached", str(path), str(start), str(seeds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the measured run failed: {done.stdout[-1000:]} {done.stderr[-2000:]}")


def measure(path: str, start: int, seeds: int) -> None:
    """In a process of its own: run the seeds, leave the measurement at ``path``."""
    import coverage

    measured = coverage.Coverage(data_file=path, branch=True, include=[MEASURED], messages=False)
    measured.start()
    from tests.sim.simulation import Simulation

    for seed in range(start, start + seeds):
        Simulation(seed).run()
    measured.stop()
    measured.save()


def _combine(directory: str, parts: list[str]) -> tuple[set[str], float]:
    import coverage

    whole = coverage.Coverage(data_file=str(Path(directory) / "whole"), branch=True, messages=False)
    whole.combine(parts)
    target = Path(directory) / "report.json"
    whole.json_report(outfile=str(target), include=[MEASURED], omit=list(LEFT_OUT))
    told = json.loads(target.read_text())
    found: set[str] = set()
    for name, file in told["files"].items():
        place = _Places(name)
        for line in file["missing_lines"]:
            found.add(place.of(line))
        for source, target_line in file["missing_branches"]:
            if source in file["missing_lines"] or target_line in file["missing_lines"]:
                continue
            onward = place.lines[target_line - 1].strip() if target_line > 0 else "end"
            found.add(f"{place.of(source)} → {onward}")
    return found, told["totals"]["percent_covered"]


class _Places:
    """Names lines by what surrounds them, not by numbers, which change."""

    def __init__(self, name: str) -> None:
        source = (ROOT / name).read_text()
        self._name = name
        self.lines = source.splitlines()
        functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
        self._functions = [(one.lineno, one.end_lineno or one.lineno, one.name) for one in functions]

    def of(self, line: int) -> str:
        around = [one for one in self._functions if one[0] <= line <= one[1]]
        function = max(around)[2] if around else ""
        return f"{self._name} {function}: {self.lines[line - 1].strip()}"


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
