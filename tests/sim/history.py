"""What clients did and were told, as they saw it: the evidence a run is judged by.

Times are positions in one total order of everything that happens in a run (``Clock.next``);
only their order means anything. The same records serve the simulator and, later, real processes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kvstate.commands import Compact, DeleteRange, Put, Range, Response, Txn
from kvstate.errors import RequestError
from kvstate.types import Event
from watch.watcher import WatchCreate, WatchResponse

Request = Put | DeleteRange | Txn | Compact | Range


class Outcome(enum.Enum):
    OK = "ok"  # answered, with ``response`` and the store's ``revision`` from its header
    ERROR = "error"  # answered with ``error``, which the state itself decided: nothing was changed
    REFUSED = "refused"  # the server promised that nothing happened, nor ever will
    UNKNOWN = "unknown"  # no answer, or one that promises nothing: happened once, or never


@dataclass(slots=True)
class Operation:
    """One request. Clients never send a request twice, and every value written is unique."""

    client: int
    node: int
    request: Request
    invoked: int
    returned: int | None = None  # None: still unanswered at the end
    outcome: Outcome = Outcome.UNKNOWN
    revision: int = 0
    response: Response | None = None
    error: RequestError | None = None


@dataclass(slots=True)
class WatchLog:
    """One watch and everything that its stream delivered for it, in order, each with its time.

    ``connected``: the stream was still open at the end and its reader had read all there was, so
    nothing may be missing up to the end of the history (unless it was cancelled).
    """

    node: int
    request: WatchCreate
    invoked: int
    responses: list[tuple[int, WatchResponse]] = field(default_factory=list)
    connected: bool = False


@dataclass(slots=True)
class History:
    """``events`` is what the store says happened: every revision from 2 on, in full, with its
    events. In the simulator it is collected as entries are applied; elsewhere from watches."""

    operations: list[Operation] = field(default_factory=list)
    watches: list[WatchLog] = field(default_factory=list)
    events: dict[int, tuple[Event, ...]] = field(default_factory=dict)
