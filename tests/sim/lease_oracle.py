"""Whether leases end in time: not too early while a run lasts, and not too late in the calm.

A lease may be ended for its age once its TTL has run since the latest grant or keepalive that was *answered*
was *asked* for: nothing less is what the client may count on. The time is that of the leader which found it
run out, by its own clock, which may have stood, raced or jumped. Who asked another leader before, asked it
before this one was elected, so this one's clock has shown the whole TTL as well.

Only where the log brought a checkpoint do the clocks of several leaders add up. Then the TTL must have run by
a clock that is at each moment as fast as the fastest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvstate.codec import decode
from kvstate.commands import LeaseCheckpoint, LeaseGrant, LeaseGrantResponse, LeaseRevoke
from kvstate.machine import ApplyResult
from tests.sim.history import KeepAlive, LeaseLife, Moment, Operation

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.simulation import Simulation

ROUNDING = 1e-6
CALM_SLACK_SECONDS = 1.0
"""What it may take in the calm from the end of a lease to its removal everywhere: a tick, and a write."""


class _Finding(NamedTuple):
    """A leader found that a lease had run out, and what clocks showed then."""

    node: Node
    shown: float  # by the node's
    fastest: float


class LeaseOracle:
    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._lives = sim.history.leases
        self._asked: dict[int, float] = {}  # lease → when its latest answered renewal was asked for
        self._findings: dict[tuple[int, int], _Finding] = {}  # (lease, term) → the first
        self._ends: dict[int, _Finding] = {}
        self._with_checkpoints: set[int] = set()
        self._left: dict[int, int] = {}  # what the log holds now: seconds that the next leader gives

    def proposed(self, node: Node, data: bytes) -> None:
        """By the product itself, as the leader."""
        _, _, command = decode(data)
        if isinstance(command, LeaseRevoke):
            finding = _Finding(node, node.clock.now(), self._sim.fastest_clock.now())
            self._findings.setdefault((command.id, command.expired_in_term), finding)

    def applied(self, data: bytes, result: ApplyResult) -> None:
        """For the first time anywhere, and not refused."""
        now = Moment(self._sim.queue.stamp(), result.revision)
        _, _, command = decode(data)
        if isinstance(command, LeaseGrant):
            assert command.id not in self._lives, f"lease {command.id} is granted twice"
            self._lives[command.id] = LeaseLife(command.id, command.ttl, now)
        elif isinstance(command, LeaseRevoke):
            life = self._lives[command.id]
            life.ended, life.made_revision = now, bool(result.events)
            life.has_run_out = bool(command.expired_in_term)
            if life.has_run_out:
                self._ran_out(life, command.expired_in_term)
        elif isinstance(command, LeaseCheckpoint):
            self._with_checkpoints.update(lease_id for lease_id, left in command.checkpoints if left)
            self._left.update(command.checkpoints)

    def answered(self, operation: Operation, asked_at: float) -> None:
        """A client was told something that it asked for at this virtual time."""
        match operation.request, operation.response:
            case LeaseGrant(), LeaseGrantResponse(lease_id, _):
                self._renewed(lease_id, asked_at)
            case KeepAlive(lease_id), int(ttl) if ttl > 0:
                self._renewed(lease_id, asked_at)

    def _renewed(self, lease_id: int, asked_at: float) -> None:
        self._asked[lease_id] = max(self._asked.get(lease_id, 0.0), asked_at)
        if lease_id in self._ends:
            self._check_age(self._lives[lease_id])
        else:
            self._check_checkpoint(self._lives[lease_id], asked_at)

    def _ran_out(self, life: LeaseLife, term: int) -> None:
        finding = self._findings.get((life.id, term))
        if finding is None:
            self._sim.oracle.fail(
                "who ends a lease has found it run out", f"{life} ended, nobody proposed it"
            )
        self._ends[life.id] = finding
        self._check_age(life)

    def _check_age(self, life: LeaseLife) -> None:
        asked_at, finding = self._asked.get(life.id), self._ends[life.id]
        if asked_at is None:
            return  # nobody counts on it
        clock, shown, whose = finding.node.clock, finding.shown, f"the clock of {finding.node}"
        if life.id in self._with_checkpoints:
            clock, shown, whose = self._sim.fastest_clock, finding.fastest, "the fastest clock"
        self._expect_age(life, shown - clock.at(asked_at), whose)

    def _expect_age(self, life: LeaseLife, age: float, whose: str) -> None:
        self._sim.oracle.expect(
            age >= life.ttl - ROUNDING,
            "a lease lives as long as it was granted for",
            f"lease {life.id} of {life.ttl} s was ended {age:.3f} s by {whose} after the last grant or"
            " keepalive that was answered had been asked for",
        )

    def _check_checkpoint(self, life: LeaseLife, asked_at: float) -> None:
        """Were another leader elected now, it would not cut the lease short."""
        left, clock = self._left.get(life.id, 0), self._sim.fastest_clock
        age = clock.now() - clock.at(asked_at)
        self._sim.oracle.expect(
            not left or age + left >= life.ttl - ROUNDING,
            "a checkpoint leaves a lease what was answered",
            f"lease {life.id} of {life.ttl} s was renewed {age:.3f} s ago, but by the log {left} s are left",
        )

    # The calm.

    def check_ends(self, since: float) -> bool:
        """Whether all leases are gone. Nobody has renewed them ``since`` then, under one leader."""
        living = [life for life in self._lives.values() if life.ended is None]
        options, now = self._sim.options, self._sim.queue.now
        # A leader that was elected just before gives them an election timeout more.
        grace = options.election_ticks * options.tick_interval + CALM_SLACK_SECONDS
        for life in living:
            story = f"{life} is there {now - since:.3f} s after its last keepalive"
            self._sim.oracle.expect(now <= since + life.ttl + grace, "liveness: leases end", story)
        return not living
