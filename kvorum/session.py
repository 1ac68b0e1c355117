"""A lease that a thread keeps alive, and until when it is certain to live.

    session = Session(make_ask, ttl=10)
    session.open(until)
    session.keep(on_lost)       # calls on_lost(why), once, when the lease is gone or nobody knows any more
    ...
    session.close(until)        # revoked: what hung on it is free at once

A lease lives its TTL from when its leader received the keepalive, by the leader's clock. The keepalive was
sent before that. So until ``sure_until``, which counts from the sending, nobody else can have what hangs on
this lease, as long as both clocks run at the same speed; behind it all is possible.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import closing

from kvorum.clock import now
from kvorum.errors import KvorumError, ServerError
from kvorum.persistence import Persistence

RENEWALS_PER_TTL = 3
NOT_FOUND = "etcdserver: requested lease not found"
_ALREADY_EXISTS = "etcdserver: lease already exists"


class Session:
    def __init__(self, make_ask: Callable[[], Persistence], ttl: int) -> None:
        self._make_ask = make_ask
        self._is_open = False
        self._ended = threading.Event()
        self.lease = secrets.randbelow((1 << 63) - 1) + 1
        self.ttl = ttl
        self.sure_until = now()

    def open(self, until: float) -> None:
        """Have the lease granted. The id is ours, so to ask twice does no harm."""
        begun = now()
        with closing(self._make_ask()) as ask:
            try:
                message = {"ID": str(self.lease), "TTL": str(self.ttl)}
                self.ttl = int(ask.call("/v3/lease/grant", message, until=until)["TTL"])
            except ServerError as error:
                if error.message != _ALREADY_EXISTS:
                    raise
        self._is_open = True
        self.sure_until = begun + self.ttl

    def keep(self, on_lost: Callable[[str], None]) -> None:
        """Renew the lease from now on."""
        threading.Thread(target=self._keep, args=(on_lost,), daemon=True).start()

    def close(self, until: float) -> None:
        """Raises KvorumError where the lease could not be revoked: then it ends by itself, when its time has
        come."""
        self._ended.set()
        if not self._is_open:
            return
        with closing(self._make_ask()) as ask:
            try:
                ask.call("/v3/lease/revoke", {"ID": str(self.lease)}, until=until)
            except ServerError as error:
                if error.message != NOT_FOUND:
                    raise

    def _keep(self, on_lost: Callable[[str], None]) -> None:
        message = {"ID": str(self.lease)}
        with closing(self._make_ask()) as ask:
            while not self._ended.wait(self.ttl / RENEWALS_PER_TTL):
                begun = now()
                try:
                    answer = ask.call("/v3/lease/keepalive", message, until=self.sure_until)
                except KvorumError as error:
                    on_lost(f"its lease could not be renewed: {error}")
                    return
                ttl = int(answer["result"].get("TTL", 0))
                if not ttl:
                    on_lost("its lease has ended")
                    return
                self.sure_until = begun + ttl
