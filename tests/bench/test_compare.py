"""The rows beside etcd: which there are, what they are to reach, and the page they are kept on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import results
from bench.document import replace_section, restart_sentence, section
from bench.figures import P50, P99, PER_SECOND, SECONDS, Figure
from bench.goals import GOALS, Goal, flatness, goal_of
from bench.report import COLUMNS, Row, heading, lines
from bench.results import Kept, Results
from bench.works import pick, stages

MANY = 20_000
WORKS = [work for stage in stages(MANY) for work in stage.works]


def row(name: str, figure: Figure, etcd: list[float], kvorum: list[float]) -> Row:
    runs = {"etcd": etcd, "kvorum": kvorum}
    return Row(name, name, [figure], {side: [{figure: v} for v in of_side] for side, of_side in runs.items()})


def test_every_goal_is_measured() -> None:
    """Each goal belongs to rows that exist and report its figure."""
    figures = {work.name: work.figures for work in WORKS}
    assert all(goal.figure in figures[name] for goal in GOALS for name in goal.works)


def test_rows_are_picked() -> None:
    """--only takes rows by name, and with them only the stages that have any."""
    assert len(WORKS) == len({work.name for work in WORKS})
    assert [[work.name for work in stage.works] for stage in pick(stages(MANY), "put 64")] == [["put 64"]]
    assert [(stage.keys, len(stage.works)) for stage in pick(stages(MANY), "many")] == [(MANY, 4)]
    with pytest.raises(SystemExit, match="none of the rows"):
        pick(stages(MANY), "nonsense")


@pytest.mark.parametrize(
    ("figure", "ratio", "verdict"),
    [
        (PER_SECOND, 1.99, "missed"),
        (PER_SECOND, 2.0, "met"),
        (PER_SECOND, 4.0, "reached"),
        (P99, 0.51, "missed"),
        (P99, 0.5, "met"),
        (P99, 0.25, "reached"),
    ],
)
def test_verdict_knows_the_direction(figure: Figure, ratio: float, verdict: str) -> None:
    """Twice as good is twice the throughput, but half the latency."""
    assert Goal(("put 64",), figure, 2, 4).verdict(ratio) == verdict


def test_goals_are_told_as_bounds_on_the_ratio() -> None:
    """What is printed beside a ratio has the ratio's direction."""
    told = [str(goal_of(*key)) for key in (("put 64", PER_SECOND), ("put 64", P99), ("put 1", P50))]
    assert told == ["≥ 2× (4×)", "≤ ½× (⅓×)", "≤ 1× (⅔×)"]
    assert str(goal_of("many restart", SECONDS)) == "≤ ½×"
    assert goal_of("put 1", PER_SECOND) is None


def test_rows_are_lines_of_a_table() -> None:
    """Every line has as many cells as the heading; ratios are those of neighbours, and the median of
    them is judged."""
    (line,) = lines(row("put 64", PER_SECOND, [100, 200], [300, 100]))
    assert {text.count("|") for text in (*heading().splitlines(), line)} == {len(COLUMNS) + 1}
    assert "| 150 | 200 | **1.75×** (0.50–3.00) | ≥ 2× (4×) | missed |" in line


def test_flat_is_the_same_time_with_many_keys() -> None:
    """A restart with many keys may take a quarter longer than with few, whatever etcd's takes."""
    assert flatness(2.5, 2.0) == "flat"
    assert flatness(2.6, 2.0) == "not flat"
    rows = {name: row(name, SECONDS, [1], [s]) for name, s in (("restart", 2.0), ("many restart", 4.0))}
    assert "2.00 times as long as one with few (etcd 1.00 times): not flat" in restart_sentence(rows)[0]
    assert restart_sentence({"restart": rows["restart"]}) == []


def test_results_are_kept(tmp_path: Path) -> None:
    """What was measured is read back as it was; under other conditions nothing is."""
    kept = Kept(row("put 64", PER_SECOND, [100.5], [300.25]), "abc1234", "2026-01-31")
    results.save(tmp_path / "kept.json", Results(["2 cores"], {"put 64": kept}))
    assert results.load(tmp_path / "kept.json", ["2 cores"]).rows == {"put 64": kept}
    assert results.load(tmp_path / "kept.json", ["8 cores"]).rows == {}
    assert results.load(tmp_path / "none.json", ["2 cores"]).rows == {}


def test_section_tells_which_commits_were_measured() -> None:
    """Rows of different commits may stand together, and the section names them all."""
    rows = {
        name: Kept(row(name, PER_SECOND, [1], [2]), commit, "2026-01-31")
        for name, commit in (("put 64", "aaa"), ("get 64", "bbb"))
    }
    text = section(Results(["2 cores"], rows), ["put 64", "get 64"], "some.svg")
    assert text.startswith("2 cores; commit aaa, 2026-01-31; commit bbb, 2026-01-31.")
    assert text.index("put 64") < text.index("get 64") < text.index("(some.svg)")


def test_section_is_replaced_where_it_stands() -> None:
    """A section measured again takes its old place; a new one comes last; all else stays."""
    page = "# Benchmarks\n\nHow.\n\n## 1 node\n\nold\n\n## 3 nodes\n\nthree\n"
    assert replace_section(page, "1 node", "new") == page.replace("old", "new")
    assert replace_section(page, "5 nodes", "five") == page + "\n## 5 nodes\n\nfive\n"
