"""The simulator on every run of the suite: new seeds, old failures, deliberate mistakes, and itself."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.common.builds import needs_subclasses
from tests.sim import main, mutants, reached
from tests.sim.faults import Fault
from tests.sim.oracle import Oracle, Violation
from tests.sim.shrink import Failure, attempt, shrink

NEW_SEEDS = 60
STEPS = 2000
REGRESSIONS = Path(__file__).parent / "regressions.txt"
JOBS = os.cpu_count() or 1


def seeds_of_today() -> range:
    """Other seeds every day, and the same for everybody who looks into a failure on that day."""
    today = datetime.datetime.now(datetime.UTC).date()
    first = int(today.strftime("%Y%m%d")) * 1000
    return range(first, first + NEW_SEEDS)


def regressions() -> list[int]:
    lines = REGRESSIONS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@needs_subclasses
def test_new_seeds_keep_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds nobody has run before, chosen by the date."""
    seeds = seeds_of_today()
    failed = main.run_many(seeds, STEPS, JOBS)
    assert not failed, f"repeat with scripts/simulate --seeds {len(seeds)} --start {seeds[0]}\n" + (
        capsys.readouterr().out
    )


@needs_subclasses
def test_seeds_that_failed_once_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever was found once stays mended."""
    failed = main.run_many(regressions(), STEPS, JOBS)
    assert not failed, capsys.readouterr().out


@pytest.fixture(scope="module")
def caught() -> Iterator[dict[str, tuple[int, str | None]]]:
    """Every mutant hunted, on as many processes as there are cores."""
    names = [mutant.name for mutant in mutants.load_all()]
    with ThreadPoolExecutor(JOBS) as pool:
        yield dict(zip(names, pool.map(hunt, names), strict=True))


def hunt(name: str) -> tuple[int, str | None]:
    """The seed that is known to catch it first; if that does not any more, from there on."""
    return main.hunt(name, mutants.load(name).seed, main.MUTANT_SEEDS_MAX)


@pytest.mark.parametrize("name", [mutant.name for mutant in mutants.load_all()])
def test_every_mistake_is_caught(name: str, caught: dict[str, tuple[int, str | None]]) -> None:
    """The simulator has teeth: it finds each deliberate mistake, by a check and not by accident."""
    _, check = caught[name]
    assert check is not None, f"not caught in {main.MUTANT_SEEDS_MAX} seeds"


def test_there_are_enough_mistakes_and_they_fit() -> None:
    """At least 25, each of which still fits the code it spoils; the equivalent ones too."""
    everyone = mutants.load_all()
    assert len(everyone) >= 25
    for mutant in [*everyone, *mutants.load_equivalent()]:
        assert mutant.story
        source = (mutants.ROOT / mutant.path).read_text()
        compile(mutant.apply(source), mutant.path, "exec")


@needs_subclasses
def test_the_same_seed_gives_the_same_trace_byte_for_byte() -> None:
    """One seed decides everything: also where Python's hashes differ from process to process."""
    traces = [trace_in_a_process_of_its_own(seed=14, hash_seed=hash_seed) for hash_seed in ("1", "2")]
    assert traces[0] == traces[1]
    assert traces[0].count("\n") > STEPS / 2


def trace_in_a_process_of_its_own(seed: int, hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.sim.main", "--seed", str(seed), "--trace"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        command, cwd=mutants.ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_plan_of_faults_shrinks_to_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty faults, the two that make the run fail remain."""
    faults = tuple(Fault(number, 10 * number, "crash") for number in range(20))

    def fails_with_3_and_17(seed: int, steps: int, chosen: tuple[Fault, ...]) -> Failure | None:
        numbers = {fault.number for fault in chosen}
        if not {3, 17} <= numbers:
            return None
        return Failure(seed, steps, tuple(chosen), Violation("a check", "a story"))

    monkeypatch.setattr("tests.sim.shrink.attempt", fails_with_3_and_17)
    smaller = shrink(Failure(1, STEPS, faults, Violation("a check", "a story")))
    assert [fault.number for fault in smaller.faults] == [3, 17]
    assert smaller.steps == 250


@needs_subclasses
def test_a_failure_is_told_with_its_seed_a_small_plan_and_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who reads the report can repeat the run and follow it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tests.sim.oracle.Oracle.check_hash", broken_check)
    assert main.run_one(5, STEPS, trace=False) == 1
    main.tell_failure(5, STEPS)
    report = capsys.readouterr().out
    assert "BROKEN at seed 5: equal hashes: planted" in report
    assert "shrunk to seed 5, " in report
    assert " steps, 0 faults" in report
    assert "scripts/simulate --seed 5" in report
    assert (tmp_path / "simulation-5.trace").read_text().count("\n") > 50


def broken_check(oracle: Oracle, node: object) -> None:
    oracle.fail("equal hashes", "planted")


@needs_subclasses
def test_a_run_can_be_repeated_with_a_part_of_its_faults() -> None:
    """A seed without its faults is still a run, and a good one."""
    assert attempt(7, STEPS, faults=()) is None


def test_what_is_argued_to_be_unreached_is_in_the_code() -> None:
    """Each argument names a line of the core that is still there, and says why."""
    for place, why in reached.arguments().items():
        name, function, code = place.split(" ", 1)[0], *place.split(" ", 1)[1].split(": ", 1)
        source = (mutants.ROOT / name).read_text()
        assert f"def {function}(" in source, place
        assert code.split(" → ")[0] in source, place
        assert why, place
