"""Whether those who were told that they hold a lock, or lead, did; and whether only they wrote. Pure.

Who is first in a line follows from the history alone (``past``), so there is one at each revision at most.

  1. Who was told that he holds a lock held it at the revision of the answer. The answer of a campaign has the
     revision at which it began, as etcd's: he led at some revision not after the answer.
  2. Who was told that his place is gone had none at the revision of the answer.
  3. A guarded key is written only by a transaction that compares the writer's fencing token, which stands in
     the value: whose it is was first when it was written. (That the compare was done right, and that who was
     refused had to be, is for ``tests.sim.linearizability``.)
  4. No answer is of a revision that was past when it was asked for.
"""

from __future__ import annotations

from api.concurrency import LeaderKey
from kvstate.commands import LeaseGrant, LeaseRevoke
from kvstate.types import EventType
from tests.sim.history import Campaign, Lock, Outcome, Resign, Unlock
from tests.sim.model import BadHistory, Events, Timeline, tell
from tests.soak.calls import GUARDED, Call, key_of
from tests.soak.ceiling import Ceiling
from tests.soak.past import Past, Place

_ORDERED = (LeaseGrant, LeaseRevoke, Lock, Unlock, Campaign, Resign)


def check_call(call: Call, past: Past, told: Timeline, ceiling: Ceiling, top: int) -> None:
    """Raises BadHistory."""
    if call.outcome is not Outcome.OK:
        return
    if call.revision > top:
        raise BadHistory(f"{call}, but the store ends at revision {top}")
    if isinstance(call.request, _ORDERED) and call.revision < told.before(call.invoked):
        raise BadHistory(f"stale: {call}, before which revision {told.before(call.invoked)} had been told")
    match call.request:
        case Lock(name):
            _check_key(call, call.told, key_of(call.request))
            first = past.first(name, call.revision)
            if first is None or first.key != call.told:
                raise BadHistory(f"not the holder: {call}, but at revision {call.revision} that is {first}")
        case Campaign(name):
            assert isinstance(call.told, LeaderKey)
            _check_key(call, call.told.key, key_of(call.request))
            latest = ceiling.after(call.returned)
            place = Place(call.told.key, call.told.rev)
            firsts = past.firsts(name, call.told.rev, latest)
            if place not in firsts:
                raise BadHistory(f"not the leader: {call}, but up to revision {latest} these were: {firsts}")
        case Unlock() | Resign():
            _check_gone(call, past, key_of(call.request))


def _check_key(call: Call, told: object, key: bytes) -> None:
    if told != key:
        raise BadHistory(f"wrong answer: {call} is not about {tell([key])}")


def _check_gone(call: Call, past: Past, key: bytes) -> None:
    first = past.first(key.rpartition(b"/")[0], call.revision)
    if first is not None and first.key == key:
        raise BadHistory(f"not given up: {call}, but it is first at revision {call.revision}: {first}")


def guarded_value(place: Place, mark: bytes) -> bytes:
    """What a holder writes: ``mark`` is his own, and unique."""
    return b"%b@%d %b" % (place.key, place.token, mark)


def check_guards(events: Events, past: Past) -> None:
    for revision in sorted(events):
        for kind, kv in events[revision]:
            if kind == EventType.PUT and kv.key.startswith(GUARDED):
                key, _, token = kv.value.split()[0].rpartition(b"@")
                writer, first = Place(key, int(token)), past.first(kv.key.removeprefix(GUARDED), revision - 1)
                if writer != first:
                    raise BadHistory(
                        f"two holders: revision {revision} is written by {writer}, but the first is {first}"
                    )
