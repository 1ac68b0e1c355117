"""How long each lease must have lived, and how long it may have. Pure.

    client 101 [15..16]  keep 4711 alive → ok, 2 s      moment 15: 100.0 s by the machine's monotonic clock
    a watch is told at 101.3 s of a revision that deletes what hangs on 4711, and nobody revoked it: too early

The sound side. Whoever renews a lease counts from before he sent the request, and the deletion counts from
when the first of all clients had heard of it. Between these two lies whatever the lease really had, so less
than its TTL between them is less than its TTL in truth. A lease that ends too early by less than what the
two take is not seen. The other way round, a lease that is listed was alive when the list had not yet been
asked for; it was not renewed later than when the answer came, or, if none came, LINGER_SECONDS later; and
then it may live for its TTL, and FAIL_OVER_SECONDS: what a new leader adds, and what removing it may take.
"""

from __future__ import annotations

from collections import defaultdict

from kvstate.commands import LeaseGrant, LeaseGrantResponse, LeaseRevoke, Put
from kvstate.errors import LeaseNotFound
from tests.sim.history import Campaign, History, KeepAlive, Lock, Operation, Outcome
from tests.sim.model import BadHistory, Timeline, describe, operations
from tests.soak.call_wire import LEASE_EXISTS, LEASE_NOT_FOUND
from tests.soak.calls import Call, Coordination, Look
from tests.soak.past import Past

TTL_MAX = 4
"""Of those that are asked for here."""
FAIL_OVER_SECONDS = 1.0 + 5.0
"""An election timeout, which a new leader adds; a tick, a write and a list, on a machine that may be busy."""
LINGER_SECONDS = 10.0
"""So long a member may go on with a request that nobody waits for any more."""


class Leases:
    def __init__(self, history: History, coordination: Coordination, past: Past, told: Timeline) -> None:
        self._past = past
        self._told = told
        self._moments = coordination.moments
        self._operations = history.operations
        self.granted: dict[int, Call] = {}
        self._asked_ttl: dict[int, int] = {}
        self._renewals: dict[int, list[Call]] = defaultdict(list)  # those that were promised something
        self._alive_until: dict[int, float] = {}  # the latest of what was promised
        self._revocations: dict[int, list[Call]] = defaultdict(list)  # that may have happened
        self._gone: dict[int, tuple[int, str]] = {}  # first heard when, by what
        self._last_touch: dict[int, float] = {}  # no renewal came later
        self._last_unnamed = 0.0  # nor a grant whose id nobody was told
        for call in coordination.calls:
            self._sort(call)
        for operation in history.operations:
            self._sort_operation(operation)

    def _sort(self, call: Call) -> None:
        match call.request:
            case LeaseGrant(lease, ttl):
                self._sort_grant(call, lease, ttl)
            case KeepAlive(lease):
                self._touch(lease, call)
                if call.outcome is Outcome.OK and call.told:
                    self._promise(lease, call, call.told)
                elif call.outcome is Outcome.OK:
                    self._heard_gone(lease, call.returned, str(call))
            case LeaseRevoke(lease):
                if call.outcome in (Outcome.OK, Outcome.UNKNOWN):
                    self._revocations[lease].append(call)
                if call.outcome is Outcome.OK or call.error == LEASE_NOT_FOUND:
                    self._heard_gone(lease, call.returned, str(call))
            case Lock(_, lease) | Campaign(_, lease, _):
                if call.error == LEASE_NOT_FOUND:
                    self._heard_gone(lease, call.returned, str(call))

    def _sort_grant(self, call: Call, lease: int, ttl: int) -> None:
        if call.error == LEASE_EXISTS:
            raise BadHistory(f"{call} was sent once, with an id of its own")
        if isinstance(call.told, LeaseGrantResponse):
            lease = lease or call.told.id
            if call.told != (lease, ttl):
                raise BadHistory(f"wrong answer: {call} is not about lease {lease} of {ttl} s")
            if lease in self.granted:
                raise BadHistory(f"two leases of one id: {self.granted[lease]} and {call}")
            self.granted[lease] = call
            self._promise(lease, call, ttl)
        if lease:
            self._asked_ttl[lease] = ttl
            self._touch(lease, call)
        elif call.outcome is Outcome.UNKNOWN:
            self._last_unnamed = max(self._last_unnamed, self._moments[call.returned] + LINGER_SECONDS)

    def _sort_operation(self, op: Operation) -> None:
        if isinstance(op.error, LeaseNotFound) and op.returned is not None:
            leases = {one.lease for one in operations(op.request) if isinstance(one, Put)} - {0}
            if len(leases) == 1:
                self._heard_gone(leases.pop(), op.returned, describe(op))

    def _promise(self, lease: int, call: Call, ttl: object) -> None:
        assert isinstance(ttl, int)
        if ttl != self._asked_ttl.get(lease, ttl):
            raise BadHistory(f"wrong answer: {call}, but the lease is of {self._asked_ttl[lease]} s")
        self._renewals[lease].append(call)
        until = self._moments[call.invoked] + ttl
        self._alive_until[lease] = max(self._alive_until.get(lease, 0.0), until)

    def _touch(self, lease: int, call: Call) -> None:
        if call.outcome in (Outcome.OK, Outcome.UNKNOWN):
            lingers = 0.0 if call.outcome is Outcome.OK else LINGER_SECONDS
            last = self._moments[call.returned] + lingers
            self._last_touch[lease] = max(self._last_touch.get(lease, 0.0), last)

    def _heard_gone(self, lease: int, time: int, source: str) -> None:
        if lease not in self._gone or time < self._gone[lease][0]:
            self._gone[lease] = time, source

    # Too early.

    def may_have_ended_at(self, lease: int, revision: int) -> bool:
        """Whether this revision, which deletes all that hung on the lease, may be its end."""
        return self._why_not(lease, revision) is None

    def why_not(self, lease: int, revision: int) -> str:
        return f"revision {revision} deletes what hung on lease {lease}, but {self._why_not(lease, revision)}"

    def _why_not(self, lease: int, revision: int) -> str | None:
        if self._past.last_attached[lease] > revision:
            return f"revision {self._past.last_attached[lease]} attaches something to it again"
        time = self._told.reached(revision)
        assert time is not None, f"nobody was told of revision {revision}"
        for call in self._revocations[lease]:
            if call.outcome is Outcome.OK:
                return None if call.revision == revision else f"it was there still for {call}"
            if self._told.before(call.invoked) < revision:
                return None
        return self._too_early(lease, time)

    def _too_early(self, lease: int, time: int) -> str | None:
        """If it had run out when somebody had just heard that it had ended."""
        left = self._alive_until.get(lease, 0.0) - self._moments[time]
        if left <= 0:
            return None
        last = max(self._renewals[lease], key=lambda call: self._moments[call.invoked])
        return f"nobody had asked for its end, and it had to live {left:.3f} s longer, because of {last}"

    def check(self) -> None:
        for lease in self.granted:
            if lease in self._gone:
                self._check_gone(lease, *self._gone[lease])
        self._check_attached()
        for call in (call for calls in self._revocations.values() for call in calls):
            self._check_revocation(call)
        for lease in self.granted:
            if lease in self._gone:
                self._check_left(lease, self._gone[lease][1])

    def _check_gone(self, lease: int, time: int, source: str) -> None:
        for call in self._renewals[lease]:
            if call.invoked > time:
                raise BadHistory(f"lease {lease} came back: it was gone for {source}, but then {call}")
        if not any(call.invoked < time for call in self._revocations[lease]):
            early = self._too_early(lease, time)
            if early:
                raise BadHistory(f"too early: lease {lease} was gone for {source}, but {early}")

    def _check_left(self, lease: int, source: str) -> None:
        left = self._past.hung(lease, self._past.top)
        if left:
            raise BadHistory(
                f"outlived: lease {lease} was gone for {source}, but {sorted(left)} are there still"
            )

    def _check_attached(self) -> None:
        """Nothing is hung on a lease that is known to be gone."""
        writers = {
            one.value: op
            for op in self._operations
            for one in operations(op.request)
            if isinstance(one, Put) and one.lease
        }
        for kv in self._past.attached:
            op = writers.get(kv.value)
            time, source = self._gone.get(kv.lease, (0, ""))
            if op is not None and kv.lease in self.granted and 0 < time < op.invoked:
                raise BadHistory(
                    f"lease {kv.lease} came back: it was gone for {source}, but then {describe(op)}"
                )

    def _check_revocation(self, call: Call) -> None:
        assert isinstance(call.request, LeaseRevoke)
        left = self._past.hung(call.request.id, call.revision)
        if call.outcome is Outcome.OK and left:
            raise BadHistory(f"only in part: after {call} these keys still hang on it: {sorted(left)}")

    # Too late.

    def check_look(self, look: Look) -> None:
        listing = look.listing
        if listing.outcome is not Outcome.OK:
            return
        assert isinstance(listing.told, list)
        if not listing.told:
            for lease in self._past.last_attached:
                self._check_left(lease, str(listing))
        now = self._moments[listing.invoked]
        for lease in listing.told:
            since = max(look.calm_since, self._last_touch.get(lease, self._last_unnamed))
            late = now - since - self._asked_ttl.get(lease, TTL_MAX) - FAIL_OVER_SECONDS
            if late > 0:
                raise BadHistory(
                    f"too late: lease {lease} is there {now - since:.1f} s after its last keepalive, in calm:"
                    f" its TTL is {self._asked_ttl.get(lease)} s, and {FAIL_OVER_SECONDS} s may be added"
                )
