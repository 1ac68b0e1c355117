"""How far the store can have been, by what was answered."""

from __future__ import annotations

from bisect import bisect_left

from tests.sim.history import History, Outcome


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
