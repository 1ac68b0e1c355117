"""The leader's clock of leases: when they run out, what a keepalive does, what a new leader makes of them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api.lessor import CHECKPOINT_SECONDS, EXPIRIES_PER_SECOND, NOT_PROMOTED, Lessor
from kvstate.types import Lease

EXTENSION = 1.0


def lessor(now: float = 0.0, *leases: Lease) -> Lessor:
    one = Lessor(EXTENSION)
    one.promote(now, 5, leases)
    return one


def test_a_lease_runs_out_after_its_ttl() -> None:
    """Not a moment sooner, and it is named once."""
    clock = lessor()
    clock.granted(7, 60, 10.0)
    assert clock.run_out(69.99, 100) == []
    assert clock.run_out(70.0, 100) == [7]
    assert clock.run_out(99.0, 100) == []


def test_a_keepalive_counts_from_when_it_arrived() -> None:
    """However long its answer took."""
    clock = lessor()
    clock.granted(7, 60, 0.0)
    assert clock.renew(7, 20.0) == 60
    assert clock.time_left(7, 50.0) == (30.0, 60)
    assert clock.run_out(79.9, 100) == []
    assert clock.run_out(80.0, 100) == [7]


def test_keepalives_that_overtake_each_other_take_nothing_away() -> None:
    """The later one was answered first."""
    clock = lessor()
    clock.granted(7, 60, 0.0)
    clock.renew(7, 30.0)
    clock.renew(7, 20.0)
    assert clock.time_left(7, 30.0) == (60.0, 60)


def test_what_has_run_out_is_not_renewed() -> None:
    """Nor what is to be revoked, by a keepalive that arrived before that."""
    clock = lessor()
    clock.granted(7, 60, 0.0)
    assert clock.has_run_out(7, 60.0)
    assert clock.renew(7, 60.0) is None
    assert not clock.has_run_out(7, 59.0)
    assert clock.run_out(61.0, 100) == [7]
    assert clock.has_run_out(7, 59.0)
    assert clock.renew(7, 59.0) is None
    assert clock.time_left(7, 65.0) == (0.0, 60)


def test_what_is_not_there_is_not_renewed() -> None:
    """And has not run out either."""
    clock = lessor()
    assert clock.renew(7, 0.0) is None
    assert clock.time_left(7, 0.0) is None
    assert not clock.has_run_out(7, 0.0)
    clock.granted(7, 60, 0.0)
    clock.revoked(7)
    assert clock.renew(7, 0.0) is None
    assert clock.run_out(1000.0, 100) == []


def test_a_revocation_that_failed_is_due_again() -> None:
    """But the lease cannot be renewed any more: what was proposed may be applied yet."""
    clock = lessor()
    clock.granted(7, 60, 0.0)
    clock.run_out(60.0, 100)
    clock.not_revoked(7)
    assert clock.renew(7, 30.0) is None
    assert clock.run_out(60.0, 100) == [7]
    clock.revoked(7)
    clock.not_revoked(7)
    assert clock.run_out(60.0, 100) == []


def test_an_id_that_is_granted_again_is_another_lease() -> None:
    """The end of the first is nothing to the second."""
    clock = lessor()
    clock.granted(7, 60, 0.0)
    clock.revoked(7)
    clock.granted(7, 100, 10.0)
    assert clock.run_out(60.0, 100) == []
    assert clock.run_out(110.0, 100) == [7]


def test_no_more_than_the_limit_at_once_and_the_earliest_first() -> None:
    """The rest stays due."""
    clock = lessor()
    for number in range(1, 11):
        clock.granted(number, 100 - number, 0.0)
    assert clock.run_out(200.0, 4) == [10, 9, 8, 7]
    assert clock.run_out(200.0, 4) == [6, 5, 4, 3]
    assert clock.run_out(200.0, 4) == [2, 1]


def test_a_new_leader_gives_all_leases_their_full_ttl_and_an_election_timeout() -> None:
    """But for those that have a checkpoint, which get what was left."""
    clock = lessor(100.0, Lease(1, 60, 0), Lease(2, 600, 30))
    assert clock.time_left(1, 100.0) == (61.0, 60)
    assert clock.time_left(2, 100.0) == (31.0, 600)
    assert clock.run_out(131.0, 100) == [2]
    assert clock.run_out(161.0, 100) == [1]


def test_a_new_leader_spreads_out_those_that_would_run_out_together() -> None:
    """No second sees more than so many, none is sooner than without, and those before and behind stay."""
    many = [Lease(number, 10, 0) for number in range(1, 4 * EXPIRIES_PER_SECOND + 1)]
    clock = lessor(0.25, Lease(99_998, 5, 0), *many, Lease(99_999, 500, 0), Lease(100_000, 11, 0))
    assert clock.time_left(99_998, 0.25) == (6.0, 5)
    assert clock.time_left(99_999, 0.25) == (501.0, 500)
    assert clock.time_left(100_000, 0.25) == (15.0, 11)
    ends = Counter(clock.time_left(one.id, 0.25)[0] for one in many)
    assert ends == {float(end): EXPIRIES_PER_SECOND for end in (11, 12, 13, 14)}


def test_an_office_can_be_taken_in_steps() -> None:
    """What is granted and revoked meanwhile counts, before and behind the place that was come to."""
    clock = Lessor(EXTENSION)
    clock.begin(5)
    clock.adopt([Lease(1, 60, 0), Lease(2, 60, 0)], 0.0)
    assert clock.term == NOT_PROMOTED
    clock.revoked(1)
    clock.revoked(3)
    clock.granted(0, 30, 0.5)
    clock.granted(4, 30, 0.5)
    clock.adopt([Lease(4, 30, 0), Lease(5, 60, 0)], 1.0)
    clock.complete()
    assert clock.term == 5
    left = {number: clock.time_left(number, 1.0) for number in range(6)}
    assert left == {0: (29.5, 30), 1: None, 2: (60.0, 60), 3: None, 4: (29.5, 30), 5: (61.0, 60)}
    assert [clock.run_out(now, 9) for now in (30.5, 61.0, 62.0)] == [[0, 4], [2], [5]]


def test_without_an_office_it_knows_nothing() -> None:
    """And what was known in an earlier one is forgotten."""
    clock = lessor(0.0, Lease(1, 60, 0))
    clock.demote()
    assert clock.term == NOT_PROMOTED
    clock.granted(2, 60, 0.0)
    assert len(clock) == 0
    assert clock.run_out(1000.0, 100) == []
    clock.promote(0.0, 6, [Lease(3, 60, 0)])
    assert clock.term == 6
    assert 3 in clock
    assert 1 not in clock


def test_a_long_lease_gets_a_checkpoint_now_and_then() -> None:
    """Of what is left of it, in whole seconds, rounded up; a shorter one never."""
    clock = lessor(0.0)
    clock.granted(1, 1000, 0.0)
    clock.granted(2, CHECKPOINT_SECONDS, 0.0)
    assert clock.checkpoints_due(299.9, 100) == []
    assert clock.checkpoints_due(300.5, 100) == [(1, 700)]
    assert clock.checkpoints_due(600.0, 100) == []
    assert clock.checkpoints_due(600.5, 100) == [(1, 400)]


def test_a_lease_that_is_kept_alive_needs_no_checkpoint() -> None:
    """As a new leader gives it no more than its keepalives did."""
    clock = lessor(0.0)
    clock.granted(1, 1000, 0.0)
    for now in range(200, 2000, 200):
        assert clock.checkpoints_due(float(now), 100) == []
        assert clock.renew(1, float(now)) == 1000
    assert clock.checkpoints_due(2099.0, 100) == []
    assert clock.checkpoints_due(2100.0, 100) == [(1, 700)]


def test_a_checkpoint_is_taken_back_before_the_lease_is_renewed() -> None:
    """A leader that followed would else go on from it, and end the lease too soon."""
    clock = lessor(0.0)
    clock.granted(1, 1000, 0.0)
    clock.granted(2, 60, 290.0)
    assert clock.checkpoints_in_the_way([1, 2, 3], 290.0) == {}
    clock.checkpoints_due(300.0, 100)
    assert clock.renew(1, 310.0) is None
    in_the_way = clock.checkpoints_in_the_way([1, 2, 3], 310.0)
    assert in_the_way.keys() == {1}
    clock.checkpoint_taken_back(1, in_the_way[1])
    assert clock.renew(1, 310.0) == 1000


def test_a_checkpoint_made_meanwhile_is_not_taken_back() -> None:
    """It stands behind what takes back the one before."""
    clock = lessor(0.0)
    clock.granted(1, 1000, 0.0)
    clock.checkpoints_due(300.0, 100)
    first = clock.checkpoints_in_the_way([1], 310.0)
    clock.checkpoints_due(600.0, 100)
    clock.checkpoint_taken_back(1, first[1])
    assert clock.renew(1, 610.0) is None
    assert clock.checkpoints_in_the_way([1], 610.0)


def test_a_new_leader_knows_of_the_checkpoints_of_the_old_one() -> None:
    """They are in the way of its keepalives too."""
    clock = lessor(0.0, Lease(1, 1000, 500))
    assert clock.renew(1, 10.0) is None
    clock.checkpoint_taken_back(1, clock.checkpoints_in_the_way([1], 10.0)[1])
    assert clock.renew(1, 10.0) == 1000


def test_what_has_run_out_gets_no_checkpoint_and_none_is_in_its_way() -> None:
    """It waits for its revocation only."""
    clock = lessor(0.0)
    clock.granted(1, 500, 0.0)
    clock.checkpoints_due(300.0, 100)
    assert clock.checkpoints_in_the_way([1], 500.0) == {}
    assert clock.checkpoints_due(700.0, 100) == []


@given(st.integers(1, 400), st.floats(0, 1e6))
def test_no_checkpoint_says_less_than_is_left(ttl: int, left: float) -> None:
    """Nor more than was granted."""
    ttl += CHECKPOINT_SECONDS
    clock = lessor(0.0)
    clock.granted(1, ttl, left)
    now = left + CHECKPOINT_SECONDS + 0.125
    for lease_id, seconds in clock.checkpoints_due(now, 1):
        assert clock.time_left(lease_id, now)[0] <= seconds <= ttl


def test_leases_that_come_and_go_leave_nothing_behind() -> None:
    """Ends that were never reached do not pile up."""
    clock = lessor(0.0)
    for number in range(1, 20_000):
        clock.granted(number, 100_000, 0.0)
        clock.revoked(number)
    assert len(clock._ends) < 2000
    assert len(clock._checkpoints) < 2000


class AgainstATable(RuleBasedStateMachine):
    """A lessor and a table of ends, which is looked through from one side to the other."""

    ids = st.integers(1, 6)

    @initialize(leases=st.dictionaries(ids, st.tuples(st.integers(2, 40), st.sampled_from([0, 0, 3]))))
    def begin(self, leases: dict[int, tuple[int, int]]) -> None:
        self.now = 0.0
        self.lessor = Lessor(EXTENSION)
        self.promote_with(leases)

    def promote_with(self, leases: dict[int, tuple[int, int]]) -> None:
        self.lessor.promote(self.now, 5, [Lease(one, *ttls) for one, ttls in sorted(leases.items())])
        for lease_id in list(leases):
            for taken in self.lessor.checkpoints_in_the_way([lease_id], self.now).items():
                self.lessor.checkpoint_taken_back(*taken)
        self.ttls = {lease_id: ttl for lease_id, (ttl, _) in leases.items()}
        self.ends = {
            lease_id: self.now + (left or ttl) + EXTENSION for lease_id, (ttl, left) in leases.items()
        }
        self.named: set[int] = set()

    @rule(leases=st.dictionaries(ids, st.tuples(st.integers(2, 40), st.just(0))))
    def lead_anew(self, leases: dict[int, tuple[int, int]]) -> None:
        self.promote_with(leases)

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(lease_id=ids, ttl=st.integers(2, 40))
    def grant(self, lease_id: int, ttl: int) -> None:
        if lease_id not in self.ttls:
            self.lessor.granted(lease_id, ttl, self.now)
            self.ttls[lease_id], self.ends[lease_id] = ttl, self.now + ttl

    @rule(lease_id=ids)
    def revoke(self, lease_id: int) -> None:
        self.lessor.revoked(lease_id)
        self.ttls.pop(lease_id, None)
        self.named.discard(lease_id)

    @rule(lease_id=ids, ago=st.floats(0, 3))
    def keep_alive(self, lease_id: int, ago: float) -> None:
        arrived = self.now - ago
        ttl = self.lessor.renew(lease_id, arrived)
        if lease_id in self.ttls and lease_id not in self.named and arrived < self.ends[lease_id] - 0.01:
            assert ttl == self.ttls[lease_id]
        if ttl is not None:
            self.ends[lease_id] = max(self.ends[lease_id], arrived + ttl)

    @rule(limit=st.integers(1, 7), fails=st.booleans())
    def tick(self, limit: int, fails: bool) -> None:
        ripe = {one for one in self.ttls if one not in self.named}
        found = self.lessor.run_out(self.now, limit)
        # Spread-out ends are later by milliseconds.
        assert all(one in ripe and self.ends[one] <= self.now for one in found)
        surely = {one for one in ripe if self.ends[one] + 0.01 <= self.now}
        assert len(found) >= min(limit, len(surely))
        self.named |= set(found)
        if fails:
            for one in found:
                self.lessor.not_revoked(one)
            self.named -= set(found)
            self.ends |= dict.fromkeys(found, float("-inf"))  # no keepalive came before that

    @invariant()
    def knows_what_is_left(self) -> None:
        for lease_id, ttl in self.ttls.items():
            left = self.lessor.time_left(lease_id, self.now)
            assert left is not None
            assert left[1] == ttl
            if lease_id not in self.named:
                assert -0.01 <= left[0] - max(0.0, self.ends[lease_id] - self.now) <= 0.01


TestAgainstATable = AgainstATable.TestCase
