"""Who had heard of which revision when."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from tests.sim.history import History, Outcome
from tests.sim.model import Timeline
from tests.soak.calls import Call


def heard(history: History, calls: list[Call]) -> Timeline:
    """By any answer, and by any watch."""
    asked: list[Any] = [*history.operations, *calls]
    told: list[tuple[int, int, Any]] = [
        (op.returned, op.revision, op) for op in asked if op.outcome is Outcome.OK and op.returned is not None
    ]
    for log in history.watches:
        for time, response in log.responses:
            told.append((time, response.revision, log))
            if response.events:
                told.append((time, response.events[-1].kv.mod_revision, log))
    return Timeline(told, 1)


class Ceiling:
    """How far the store can have been at a time: no further than any answer says to a question that was asked
    later. (Serializable reads may say less than was.)"""

    def __init__(self, history: History, top: int) -> None:
        asked = [
            (op.invoked, op.revision)
            for op in history.operations
            if op.outcome is Outcome.OK and not getattr(op.request, "serializable", False)
        ]
        asked.sort()
        self._times = [time for time, _ in asked]
        self._least = [top] * (len(asked) + 1)
        for place in range(len(asked) - 1, -1, -1):
            self._least[place] = min(self._least[place + 1], asked[place][1])

    def after(self, time: int) -> int:
        return self._least[bisect_left(self._times, time)]
