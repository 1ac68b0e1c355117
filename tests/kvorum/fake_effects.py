"""Carries plans out without a server: a test scripts what comes of each effect, and sees what was asked."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from kvorum.endpoints import Endpoints
from kvorum.errors import ConnectionFailed, KvorumError
from kvorum.plans import CloseStream, Core, Effect, Exchange, OpenStream, Plan, ReadFrame, Reply, Sleep

T = TypeVar("T")
Outcome = Any
REFUSED = ConnectionFailed("refused", maybe_done=False)
BROKEN = ConnectionFailed("broken", maybe_done=True)


def answer(status: int = 200, **fields: Any) -> Reply:
    return Reply(status, json.dumps(fields).encode())


def refusal(message: str, code: int, status: int = 503) -> Reply:
    return answer(status, error=message, code=code, message=message)


def frame(**result: Any) -> bytes:
    return json.dumps({"result": result}).encode()


class Stage:
    """``outcomes`` come in order, one for each Exchange, OpenStream and ReadFrame: a value, or an error to be
    raised. Sleeps and time-outs pass at once, on a clock of its own."""

    def __init__(
        self, *outcomes: Outcome, endpoints: str = "a,b,c", timeout: float = 5.0, **user: str
    ) -> None:
        self.outcomes = list(outcomes)
        self.effects: list[Effect] = []
        self.now = 1000.0
        self.core = Core(
            Endpoints(endpoints, _First()),
            clock=lambda: self.now,
            rng=random.Random(1),
            timeout=timeout,
            **user,
        )

    def run(self, plan: Plan[T]) -> T:
        try:
            effect = next(plan)
            while True:
                self.effects.append(effect)
                try:
                    outcome = self._perform(effect)
                except KvorumError as error:
                    effect = plan.throw(error)
                else:
                    effect = plan.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Sleep):
            self.now += effect.seconds
            return None
        if isinstance(effect, CloseStream):
            return None
        assert self.outcomes, f"nothing was foreseen for {effect}"
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Callable):  # type: ignore[arg-type]
            outcome = outcome(effect)
        if isinstance(outcome, Takes):
            self.now += outcome.seconds
            outcome = outcome.outcome
        if isinstance(outcome, ReadTimesOut) and isinstance(effect, ReadFrame):
            self.now += effect.timeout
            return None
        if isinstance(outcome, TakesAll) and isinstance(effect, Exchange):
            self.now += effect.timeout
            raise ConnectionFailed("no answer in time", maybe_done=True)
        if isinstance(outcome, KvorumError):
            raise type(outcome)(str(outcome), maybe_done=outcome.maybe_done)  # type: ignore[call-arg]
        return outcome

    # What was asked.

    def exchanges(self, path: str = "") -> list[Exchange]:
        return [one for one in self.effects if isinstance(one, Exchange) and one.path.startswith(path)]

    def asked(self, path: str = "") -> list[str]:
        """The hosts that requests went to, in order."""
        return [one.endpoint.split("/")[2].split(":")[0] for one in self.exchanges(path)]

    def opened(self) -> list[dict[str, Any]]:
        """The create requests of all watches."""
        return [json.loads(one.body)["create_request"] for one in self.effects if isinstance(one, OpenStream)]

    def slept(self) -> list[float]:
        return [one.seconds for one in self.effects if isinstance(one, Sleep)]


@dataclass
class Takes:
    """The outcome comes so late."""

    seconds: float
    outcome: Outcome


class ReadTimesOut:
    """Nothing comes on the stream for as long as it is waited for."""


class TakesAll:
    """The member is asked, and does not answer."""


class _First(random.Random):
    """Begins with the first endpoint."""

    def randrange(self, *args: Any) -> int:
        return 0
