"""An instance on the list, for as long as it is to be there: plans, without I/O.

    plans = RegistrationPlans(core, instance, ttl=10)
    yield from plans.open()                 # now it is on the list
    yield from plans.keep()                 # for ever; puts it back where the lease was lost
    yield from plans.close()                # now it is not

All hangs on one lease, whose id is chosen beforehand. So to withdraw is to revoke that lease, whatever else
of us is still under way: a put that comes later is refused, since its lease is gone. Unlike a lock, an
entry excludes nobody: it does no harm that the lease may have ended without our knowing, so we do not give
up, but ask until we know.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from kvorum.errors import KvorumError, LeaseExists, LeaseNotFound
from kvorum.leases import GRANT, RENEWALS_PER_TTL, keep_alive, revoke
from kvorum.messages import put_request
from kvorum.operations import PUT
from kvorum.plans import SHORTEST_TRY_SECONDS, Core, Plan, Sleep
from kvorum.services.records import Instance, encode

TTL_SECONDS: Final = 10
RETRY_SECONDS: Final = 1.0


class RegistrationPlans:
    """``ttl`` in seconds: what was asked for, then what was granted. ``problem`` is what keeps us from
    knowing that the instance is on the list; ``on_problem`` is told of it, and None when that is over."""

    def __init__(
        self, core: Core, instance: Instance, ttl: int, on_problem: Callable[[str | None], None] | None = None
    ) -> None:
        if ttl < 1:
            raise ValueError(f"a time to live of {ttl} s: expected at least 1")
        self.instance = instance
        self.ttl = ttl
        self.problem: str | None = None
        self._core = core
        self._on_problem = on_problem
        self._lease_id = core.rng.randrange(1, 1 << 63)
        self._is_missing = False  # its lease was lost, and it was not put back yet

    def open(self) -> Plan[None]:
        """Raises KvorumError; then nothing of it remains."""
        try:
            yield from self._register()
        except KvorumError:
            with suppress(KvorumError):
                yield from self.close()
            raise

    def keep(self) -> Plan[NoReturn]:
        pause = self.ttl / RENEWALS_PER_TTL
        while True:
            yield Sleep(pause)
            # One who hangs must leave time to ask another.
            patience = min(self._core.timeout, max(self.ttl / RENEWALS_PER_TTL, SHORTEST_TRY_SECONDS))
            try:
                if not (yield from keep_alive(self._core, self._lease_id, patience)):
                    self._is_missing = True
                if self._is_missing:
                    yield from self._register(patience)
            except KvorumError as error:
                self._told(str(error))
                pause = min(self.ttl / RENEWALS_PER_TTL, RETRY_SECONDS) * self._core.rng.uniform(0.5, 1.0)
            else:
                self._told(None)
                pause = self.ttl / RENEWALS_PER_TTL

    def close(self) -> Plan[None]:
        """Raises KvorumError where the lease could not be revoked: then the entry goes when its time has
        come."""
        with suppress(LeaseNotFound):
            yield from revoke(self._core, self._lease_id)

    def _register(self, timeout: float | None = None) -> Plan[None]:
        lease = {"ID": str(self._lease_id), "TTL": str(self.ttl)}
        with suppress(LeaseExists):  # it is ours: nobody else hits upon its id
            granted = yield from self._core.call(GRANT, lease, safe=True, timeout=timeout)
            self.ttl = int(granted.get("TTL", self.ttl))
        one = self.instance
        put = put_request(one.key, encode(one), lease=self._lease_id)
        yield from self._core.call(PUT, put, safe=True, timeout=timeout)
        self._is_missing = False

    def _told(self, problem: str | None) -> None:
        before, self.problem = self.problem, problem
        if self._on_problem is not None and (problem is None) != (before is None):
            self._on_problem(problem)
