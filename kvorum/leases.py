"""A lease that is kept alive, and until when it is certain to live: plans, without I/O.

A lease lives its TTL from when its leader received the keepalive, by the leader's clock. The keepalive was
sent before that. So until ``sure_until``, which counts from the sending, nobody else can have what hangs on
this lease, as long as both clocks run at the same speed; behind it all is possible.
"""

from __future__ import annotations

from contextlib import suppress

from kvorum.endpoints import FIRST_PAUSE_SECONDS
from kvorum.errors import KvorumError, LeaseExists, LeaseLost, LeaseNotFound, ServerError
from kvorum.plans import Core, Plan, Sleep, is_passing

GRANT = "/v3/lease/grant"
REVOKE = "/v3/lease/revoke"
KEEPALIVE = "/v3/lease/keepalive"
RENEWALS_PER_TTL = 3
_IDS = (1 << 63) - 1


def grant(core: Core, ttl: int, lease_id: int = 0) -> Plan[tuple[int, int]]:
    """Its id and TTL. The id is chosen here where the caller has none, so that to ask twice does no harm."""
    chosen = lease_id or core.rng.randrange(1, _IDS)
    try:
        answer = yield from core.call(GRANT, {"ID": str(chosen), "TTL": str(ttl)}, safe=not lease_id)
    except LeaseExists as error:
        if lease_id or not error.maybe_done:
            raise
        return chosen, ttl  # an earlier try of ours was carried out
    return chosen, int(answer["TTL"])


def revoke(core: Core, lease_id: int) -> Plan[None]:
    """A lease that an earlier try has revoked is no error. Raises LeaseNotFound where there was none."""
    try:
        yield from core.call(REVOKE, {"ID": str(lease_id)}, safe=True)
    except LeaseNotFound as error:
        if not error.maybe_done:
            raise


def keep_alive(core: Core, lease_id: int, timeout: float | None = None) -> Plan[int]:
    """The TTL that it has from now on; 0 if there is no such lease."""
    answer = yield from core.call(KEEPALIVE, {"ID": str(lease_id)}, safe=True, timeout=timeout)
    if "result" not in answer:  # nothing may be concluded from that, least of all that the lease has ended
        error = ServerError(f"no answer to a keepalive: {str(answer)[:200]}")
        error.maybe_done = True
        raise error
    return int(answer["result"].get("TTL", 0))


class LeasePlans:
    """A lease that is held. ``ttl`` in seconds: what was asked for, then what was granted."""

    def __init__(self, core: Core, ttl: int, lease_id: int = 0) -> None:
        self._core = core
        self.id = lease_id
        self.ttl = ttl
        self.sure_until = 0.0
        self.due_at = 0.0
        """When it is to be renewed next."""
        self.lost: str | None = None  # why

    def open(self) -> Plan[None]:
        if self.sure_until:
            raise RuntimeError(f"lease {self.id:x} was opened before: make another")
        begun = self._core.clock()
        self.id, self.ttl = yield from grant(self._core, self.ttl, self.id)
        self._renewed(begun, self.ttl)

    def keep(self) -> Plan[str]:
        """Renew it again and again; ends when it is lost, or nobody knows any more, with the reason."""
        clock = self._core.clock
        while True:
            yield Sleep(max(self.due_at - clock(), 0.0))
            try:
                if not (yield from self.renew(self.sure_until - clock())):
                    yield Sleep(min(FIRST_PAUSE_SECONDS, max(self.sure_until - clock(), 0.0)))
            except LeaseLost as error:
                return str(error)

    def renew(self, timeout: float) -> Plan[bool]:
        """Once; False if nobody could be asked within ``timeout`` seconds. Raises LeaseLost."""
        begun = self._core.clock()
        if begun >= self.sure_until:
            raise self.lose("the lease was not renewed in time")
        try:
            ttl = yield from keep_alive(self._core, self.id, min(timeout, self.sure_until - begun))
        except KvorumError as error:
            tells_nothing = is_passing(error) or error.maybe_done
            if tells_nothing and self._core.clock() < self.sure_until:
                return False
            raise self.lose(f"the lease could not be renewed: {error}") from error
        if not ttl:
            raise self.lose("the lease has ended")
        self._renewed(begun, ttl)
        return True

    def _renewed(self, begun: float, ttl: int) -> None:
        self.sure_until = begun + ttl
        self.due_at = begun + ttl / RENEWALS_PER_TTL

    def lose(self, why: str) -> LeaseLost:
        """Nobody knows any more whether it lives."""
        self.lost = why
        return LeaseLost(why)

    def close(self) -> Plan[None]:
        """Revoke it: what hung on it is free at once. Raises KvorumError where that could not be: then it
        ends by itself."""
        with suppress(LeaseNotFound):
            yield from revoke(self._core, self.id)
