"""From a run that fails to the smallest one found that fails in the same way: fewer faults, fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.sim.faults import Fault
from tests.sim.oracle import Violation
from tests.sim.simulation import Simulation


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that breaks a promise, and all it takes to repeat it."""

    seed: int
    steps: int
    faults: tuple[Fault, ...]
    violation: Violation

    def __str__(self) -> str:
        lines = [f"  step {fault.step}: {fault.kind} (fault {fault.number})" for fault in self.faults]
        return "\n".join([f"seed {self.seed}, {self.steps} steps, {len(lines)} faults", *lines])


def attempt(
    seed: int,
    steps: int,
    faults: Sequence[Fault] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Failure | None:
    """Run once; what fails, or None."""
    simulation = Simulation(seed, steps=steps, faults=faults, tell=tell)
    try:
        simulation.run()
    except Violation as violation:
        return Failure(seed, steps, tuple(simulation.faults), violation)
    return None


def shrink(failure: Failure, *, tries: int = 200) -> Failure:
    """Leave out what is not needed for the same check to fail, piece by piece (delta debugging)."""
    check = failure.violation.check

    def still_fails(steps: int, faults: Sequence[Fault]) -> Failure | None:
        nonlocal tries
        if tries <= 0:
            return None
        tries -= 1
        found = attempt(failure.seed, steps, faults)
        return found if found is not None and found.violation.check == check else None

    size = max(1, len(failure.faults) // 2)
    while size and failure.faults:
        start = 0
        while start < len(failure.faults):
            kept = failure.faults[:start] + failure.faults[start + size :]
            if (smaller := still_fails(failure.steps, kept)) is not None:
                failure = smaller
            else:
                start += size
        size //= 2
    for steps in (100, 250, 500, 1000, 1500):
        if steps < failure.steps:
            kept = tuple(fault for fault in failure.faults if fault.step < steps)
            if (smaller := still_fails(steps, kept)) is not None:
                return smaller
    return failure
