"""Colour, questions and progress: only where somebody looks.

Colour goes to a terminal, unless NO_COLOR is set or TERM is dumb. Progress is drawn on stderr, when that is a
terminal and the work takes more than a moment. A question is asked only where stdin and stderr are terminals.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import click

_DIFF_STYLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("---", {"bold": True}),
    ("+++", {"bold": True}),
    ("@@", {"fg": "cyan"}),
    ("-", {"fg": "red"}),
    ("+", {"fg": "green"}),
)


def colours(stream: TextIO | None = None) -> bool:
    """Whether what goes to the stream (stdout, if none is given) is coloured."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return (stream or sys.stdout).isatty()


def styled(text: str, **style: Any) -> str:
    return click.style(text, **style) if colours() else text


def painted_diff(lines: Sequence[str]) -> str:
    """The text of a unified diff, coloured where that is seen."""
    if not colours():
        return "".join(line + "\n" for line in lines)
    painted = []
    for at, line in enumerate(lines):
        # Only the first two lines are the names: a removed line may itself begin with --.
        found = (style for start, style in _DIFF_STYLES[0 if at < 2 else 2 :] if line.startswith(start))
        painted.append(click.style(line, **next(found, {})) + "\n")
    return "".join(painted)


def can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str) -> bool:
    return click.confirm(question, default=False, err=True)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be called with how much is done and how much there is."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    bar: Any = None
    task: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar, task
        if bar is None and done >= total:
            return  # done before anybody looks
        if bar is None:
            bar = _bar()
            task = bar.add_task(what, total=total)
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
