"""``scripts/simulate``: many seeds on all cores, one seed with its trace, or all mutants.

    scripts/simulate --seeds 1000               seeds 1 to 1000, or from --start
    scripts/simulate --seed 4711 --trace        one run, told line by line
    scripts/simulate --mutants [NAME …]         is each deliberate mistake caught, and by what
    scripts/simulate --coverage                 which branches of the core are not reached, and why

Exit code 0 if every promise was kept (or every mutant caught), 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.sim import mutants, reached

STEPS = 2000
TRACE_TAIL = 60
MUTANT_SEEDS_MAX = 1000
COVERAGE_SEEDS = 400


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__, formatter_class=_AsItIs)
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds")
    parser.add_argument("--start", type=int, default=1, metavar="S", help="the first of them (1)")
    parser.add_argument("--seed", type=int, metavar="S", help="only this seed")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps with faults per seed ({STEPS})")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell what happens")
    parser.add_argument("--mutants", nargs="*", metavar="NAME", help="try all mutants, or these")
    parser.add_argument("--coverage", action="store_true", help="which branches of the core are reached")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one per core)")
    parser.add_argument("--mutant", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.mutant is not None:
        return _hunt(chosen.mutant, chosen.start, chosen.seeds or MUTANT_SEEDS_MAX, chosen.steps)
    if chosen.coverage:
        return reached.report(chosen.start, chosen.seeds or COVERAGE_SEEDS, chosen.jobs)
    if chosen.mutants is not None:
        return try_mutants(chosen.mutants, chosen.start, chosen.seeds or MUTANT_SEEDS_MAX, chosen.jobs)
    if chosen.seed is not None:
        return run_one(chosen.seed, chosen.steps, trace=chosen.trace)
    if chosen.seeds is None:
        parser.error("say --seeds N, --seed S, --mutants or --coverage")
    return run_many(range(chosen.start, chosen.start + chosen.seeds), chosen.steps, chosen.jobs)


class _AsItIs(argparse.RawDescriptionHelpFormatter):
    pass


# One seed.


def run_one(seed: int, steps: int, *, trace: bool) -> int:
    from tests.sim.options import choose
    from tests.sim.shrink import attempt

    print(f"seed {seed}, {steps} steps: {choose(seed)}", flush=True)
    failure = attempt(seed, steps, tell=print if trace else None)
    if failure is None:
        print("every promise was kept")
        return 0
    print(f"BROKEN {failure.violation}")
    return 1


# Many seeds.


def run_many(seeds: Iterable[int], steps: int, jobs: int) -> int:
    """Run all; stop at the first that fails, shrink it and tell its story."""
    seeds = list(seeds)
    print(
        f"{len(seeds)} seeds from {seeds[0]}, {steps} steps each and then the calm, {jobs} processes",
        flush=True,
    )
    begun, done, total = time.monotonic(), 0, 0
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for seed, taken, check in pool.imap_unordered(
            _run_seed, ((seed, steps) for seed in seeds), chunksize=4
        ):
            done, total = done + 1, total + taken
            if check is not None:
                pool.terminate()
                tell_failure(seed, steps)
                return 1
            if done % 1000 == 0:
                print(f"{done} seeds, {_rate(done, total, begun)}", flush=True)
    print(f"{done} seeds passed: {_rate(done, total, begun)}")
    return 0


def _rate(done: int, steps: int, begun: float) -> str:
    seconds = time.monotonic() - begun
    return f"{steps} steps in {seconds:.0f} s, {60 * done / seconds:.0f} seeds a minute"


def _run_seed(job: tuple[int, int]) -> tuple[int, int, str | None]:
    """(seed, steps taken, the check that failed)."""
    from tests.sim.oracle import Violation
    from tests.sim.simulation import Simulation

    seed, steps = job
    simulation = Simulation(seed, steps=steps)
    try:
        simulation.run()
    except Violation as violation:
        return seed, simulation.queue.steps, violation.check
    return seed, simulation.queue.steps, None


def tell_failure(seed: int, steps: int) -> None:
    """Print what fails, the smallest plan of faults found that still does, and its trace."""
    from tests.sim.options import choose
    from tests.sim.shrink import attempt, shrink

    failure = attempt(seed, steps)
    if failure is None:
        print(f"seed {seed} failed once and does not again: the simulation is not deterministic")
        return
    print(f"BROKEN at seed {seed}: {failure.violation}\n\n{choose(seed)}\n\nshrinking {failure}")
    smaller = shrink(failure)
    lines: list[str] = []
    attempt(seed, smaller.steps, smaller.faults, lines.append)
    path = Path(f"simulation-{seed}.trace")
    path.write_text("".join(f"{line}\n" for line in lines))
    print(f"\nshrunk to {smaller}\n{smaller.violation}\n")
    print("\n".join(lines[-TRACE_TAIL:]))
    print(
        f"\nThe whole trace is in {path}. Repeat with: scripts/simulate --seed {seed} --steps {steps} --trace"
    )


# Mutants.


def try_mutants(names: list[str], start: int, seeds: int, jobs: int) -> int:
    """A table of who was caught by what."""
    chosen = [mutants.load(name) for name in names] if names else mutants.load_all()
    print(f"{len(chosen)} mutants, up to {seeds} seeds each from {start}", flush=True)
    print(f"{'mutant':44} {'seeds':>5}  {'caught by'}")
    missed = 0
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, (count, check) in zip(
            chosen, pool.map(lambda one: hunt(one.name, start, seeds), chosen), strict=True
        ):
            print(f"{mutant.name:44} {count:5}  {check or 'NOT CAUGHT'}", flush=True)
            missed += check is None
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


def hunt(name: str, start: int, seeds: int, steps: int = STEPS) -> tuple[int, str | None]:
    """Run seeds on a mutant in a process of its own: (seeds it took, the check that caught it)."""
    command = [sys.executable, "-m", "tests.sim.main", "--mutant", name, "--start", str(start)]
    command += ["--seeds", str(seeds), "--steps", str(steps)]
    done = subprocess.run(command, cwd=mutants.ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the hunt for mutant {name} failed: {done.stderr[-2000:]}")
    count, check = json.loads(done.stdout.splitlines()[-1])
    return count, check


def _hunt(name: str, start: int, seeds: int, steps: int) -> int:
    mutants.install(mutants.load(name))
    for count, check in enumerate(_checks(range(start, start + seeds), steps), start=1):
        if check is not None:
            print(json.dumps([count, check]))
            return 0
    print(json.dumps([seeds, None]))
    return 0


def _checks(seeds: Iterable[int], steps: int) -> Iterator[str | None]:
    for seed in seeds:
        yield _run_seed((seed, steps))[2]


if __name__ == "__main__":
    sys.exit(main())
