"""Which instances are meant, and which of them is taken: pure.

    near = nearest(matching(instances, tags=["v2"], metadata={}), zone="eu/1a")
    picker = picker_of("round-robin")
    picker.pick(instances, zone="eu/1a")

An instance of weight 0 is taken only where there are none but such.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from kvorum.errors import KvorumError
from kvorum.services.records import Instance, each_tag

POLICIES = ("round-robin", "random")
PICKERS_MAX = 1000
"""More are hardly asked again."""


class NoInstance(KvorumError):
    """Nobody offers the service, or nobody who meets the conditions."""


def matching(
    instances: Iterable[Instance], tags: Iterable[str] = (), metadata: Mapping[str, str] | None = None
) -> list[Instance]:
    """Those that have all these tags, and all of this metadata."""
    wanted, pairs = set(each_tag(tags)), (metadata or {}).items()
    return [one for one in instances if wanted <= set(one.tags) and pairs <= one.metadata.items()]


def nearness(one: Instance, zone: str) -> int:
    """How many parts of the zones' paths are the same, from the left: ``eu/1a`` is nearer to ``eu/1b`` than
    to ``us``."""
    common = 0
    for ours, theirs in zip(zone.split("/"), one.zone.split("/"), strict=False):
        if ours != theirs or not ours:
            break
        common += 1
    return common


def nearest(instances: Iterable[Instance], zone: str) -> list[Instance]:
    """All of them, the nearest first; those that are equally near in the order they came."""
    return sorted(instances, key=lambda one: -nearness(one, zone))


def eligible(instances: Sequence[Instance], zone: str = "") -> list[Instance]:
    """Those among whom one is taken: with a weight, if any has; and of those the nearest."""
    weighty = [one for one in instances if one.weight] or list(instances)
    best = max((nearness(one, zone) for one in weighty), default=0)
    return [one for one in weighty if nearness(one, zone) == best]


class Picker(Protocol):
    """Takes one of several, again and again."""

    def pick(self, instances: Sequence[Instance], zone: str = "") -> Instance:
        """One of the eligible. Raises NoInstance where there are none at all."""
        ...


class RandomPicker:
    """By chance, in the proportion of the weights."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()

    def pick(self, instances: Sequence[Instance], zone: str = "") -> Instance:
        among = _among(instances, zone)
        weights = [one.weight for one in among]
        return self._rng.choices(among, weights)[0] if any(weights) else self._rng.choice(among)


class RoundRobinPicker:
    """In turn, and in the proportion of the weights at every moment: 2 and 1 are a b a, a b a, not a a b.

    Everybody earns its weight with each choice; the richest is taken and pays what all have earned together.
    Who joins later begins with nothing, so that it does not get everything at first. Whose turn is the first
    is left to chance: or a thousand clients that start together would all begin with the same.
    """

    def __init__(
        self, earned: Mapping[str, int] | None = None, first: str = "", rng: random.Random | None = None
    ) -> None:
        self.earned: dict[str, int] | None = None if earned is None else dict(earned)
        """By id. Who is given it, and ``first``, goes on where another has stopped."""
        self.first = first
        """Whose turn was the first; of those who have earned the same, he comes before the others."""
        self._rng = rng or random.Random()

    def pick(self, instances: Sequence[Instance], zone: str = "") -> Instance:
        among = _among(instances, zone)
        weights = [one.weight or 1 for one in among]  # if one is 0, then all are
        if self.earned is None:
            earned = {one.id: weight for one, weight in zip(among, weights, strict=True)}
            taken = self._rng.choices(among, weights)[0]
            self.first = taken.id
        else:
            before = self.earned
            earned = {
                one.id: before.get(one.id, 0) + weight for one, weight in zip(among, weights, strict=True)
            }
            taken = max(among, key=lambda one: (earned[one.id], one.id == self.first))
        earned[taken.id] -= sum(weights)
        self.earned = earned
        return taken


def picker_of(policy: str) -> Picker:
    """Raises ValueError for a policy that there is not."""
    if policy == "round-robin":
        return RoundRobinPicker()
    if policy == "random":
        return RandomPicker()
    raise ValueError(f"the policy {policy!r} is unknown: expected {' or '.join(POLICIES)}")


class Pickers:
    """One for each question that is asked again and again: whose turn it is among those with one tag is
    another matter than among those with another. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[object, ...], Picker] = {}

    def of(
        self, name: str, policy: str, tags: Iterable[str], metadata: Mapping[str, str] | None, zone: str
    ) -> Picker:
        """Raises ValueError for a policy that there is not."""
        question = name, policy, frozenset(each_tag(tags)), frozenset((metadata or {}).items()), zone
        with self._lock:
            if question not in self._made and len(self._made) >= PICKERS_MAX:
                self._made.clear()
            return self._made.setdefault(question, picker_of(policy))


def _among(instances: Sequence[Instance], zone: str) -> list[Instance]:
    among = eligible(instances, zone)
    if not among:
        raise NoInstance("no instance to choose from")
    return among
