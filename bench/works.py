"""What is measured: the rows, and the stages in which clusters stand for them.

A stage has clusters of its own, filled with so many keys; its rows are measured one after another.
Where each round needs clusters of its own, the stage says ``anew``.
"""

from __future__ import annotations

import base64
import http.client
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.clusters import Side
from bench.figures import ANONYMOUS, P50, P99, PER_SECOND, RESIDENT, SECONDS, Figure, Run
from bench.filling import PUTS_PER_TXN
from bench.load import Load, under_one_leader, wrk
from bench.restart import restart
from bench.watchers import watch

FEW = 10_000
RANGE = 10_000
WATCHERS = 1000
PUTS_FOR_MEMORY = 100
SETTLE_SECONDS = 3.0


@dataclass(frozen=True)
class Conditions:
    nodes: int
    spread: bool
    rounds: int
    seconds: int
    keys: int  # of the stage with many
    heartbeat_ms: int
    election_ms: int


@dataclass(frozen=True)
class Work:
    name: str  # for --only, and for its goals
    title: str
    figures: tuple[Figure, ...]  # those that are reported
    measure: Callable[[Side, Conditions], Run]


@dataclass(frozen=True)
class Stage:
    keys: int
    works: Sequence[Work]
    anew: bool = False


def stages(many: int) -> list[Stage]:
    """All that there is to measure, in its order."""
    return [
        Stage(
            FEW,
            [
                *(requests("put", n, "put") for n in (1, 64, 256)),
                *(requests("get", n, "get, linearizable") for n in (1, 64, 256)),
                *(requests("serializable", n, "get, serializable") for n in (1, 64, 256)),
                *(requests("txn", n, "puts in txns of 100", per_answer=PUTS_PER_TXN) for n in (1, 16)),
                ranges("range", FEW),
                Work(
                    f"watch {WATCHERS}",
                    f"events to {WATCHERS:,} watchers of one prefix",
                    (PER_SECOND, P50, P99),
                    measure_watch,
                ),
            ],
        ),
        Stage(
            0,
            [
                Work(
                    "memory", f"{WATCHERS:,} watchers, memory", (RESIDENT, ANONYMOUS), measure_watchers_memory
                )
            ],
            anew=True,
        ),
        # Clusters of their own: what the puts above left in the logs is not to be replayed.
        Stage(FEW, [restarts("restart", FEW)]),
        Stage(
            many,
            [
                Work("many memory", f"{many:,} keys, memory", (RESIDENT, ANONYMOUS), measure_memory),
                ranges("many range", many),
                restarts("many restart", many),
                mixed(many),
            ],
        ),
    ]


def pick(all_stages: Sequence[Stage], only: str) -> list[Stage]:
    """Those works in whose names ``only`` is, and the stages that have any."""
    picked = [
        replace(stage, works=[work for work in stage.works if only in work.name]) for stage in all_stages
    ]
    if not any(stage.works for stage in picked):
        names = ", ".join(work.name for stage in all_stages for work in stage.works)
        raise SystemExit(f"{only!r} is in none of the rows' names: {names}")
    return [stage for stage in picked if stage.works]


def requests(kind: str, connections: int, title: str, per_answer: int = 1) -> Work:
    load = Load(kind, connections, FEW, per_answer=per_answer)
    many = f"{connections} connection{'s' if connections > 1 else ''}"
    figures = (PER_SECOND, P50, P99) if connections == 1 else (PER_SECOND, P99)
    return Work(
        f"{kind} {connections}",
        f"{title}, {many}",
        figures,
        lambda side, conditions: wrk(side, load, conditions.seconds, conditions.spread),
    )


def mixed(keys: int) -> Work:
    load = Load("mixed", 64, keys)
    return Work(
        "many mixed",
        f"90 % gets and 10 % puts, over all of {keys:,} keys, 64 connections",
        (PER_SECOND, P99),
        lambda side, conditions: wrk(side, load, conditions.seconds, conditions.spread),
    )


def ranges(name: str, keys: int) -> Work:
    load = Load("range", 1, keys)

    def measure(side: Side, conditions: Conditions) -> Run:
        check_range(side)
        return wrk(side, load, conditions.seconds, conditions.spread)

    return Work(name, f"range of {RANGE:,} keys out of {keys:,}, 1 connection", (PER_SECOND, P50), measure)


def check_range(side: Side) -> None:
    """That the range which is measured has as many keys as is said of it."""
    connection = http.client.HTTPConnection("127.0.0.1", side.leader.port, timeout=60)
    first, last = (base64.b64encode(b"bench/key%04d" % number) for number in (0, 1))
    connection.request("POST", "/v3/kv/range", b'{"key":"%s","range_end":"%s"}' % (first, last))
    found = connection.getresponse().read().count(b'"mod_revision"')
    connection.close()
    if found != RANGE:
        raise SystemExit(f"{side.name} has {found} keys where {RANGE} were put")


def restarts(name: str, keys: int) -> Work:
    return Work(
        name,
        f"restart to the first linearizable read, {keys:,} keys",
        (SECONDS,),
        lambda side, _: restart(side),
    )


def measure_memory(side: Side, _: Conditions) -> Run:
    time.sleep(SETTLE_SECONDS)
    resident, anonymous = side.memory()
    return {RESIDENT: resident, ANONYMOUS: anonymous}


def measure_watch(side: Side, conditions: Conditions) -> Run:
    def run() -> Run:
        result = watch(side, WATCHERS, lambda seconds, _: seconds >= conditions.seconds)
        print(
            f"{side.name}: the watchers' load generator used {result.client_cpu:.0%} of a core",
            file=sys.stderr,
        )
        return {PER_SECOND: result.per_second, P50: result.p50_ms, P99: result.p99_ms}

    return under_one_leader(side, "watch", run)


def measure_watchers_memory(side: Side, _: Conditions) -> Run:
    """While all are connected and have seen some events."""
    result = watch(side, WATCHERS, lambda _, puts: puts >= PUTS_FOR_MEMORY)
    return {RESIDENT: result.memory.resident_mib, ANONYMOUS: result.memory.anonymous_mib}
