"""What a seed chooses: sizes, limits, rates. Small limits, so that rare paths run often; and a
different mix of faults for each seed, because a run with all of them finds less (swarm testing)."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

SIZES = (1, 2, 3, 3, 3, 5, 5, 7)


@dataclass(frozen=True, slots=True)
class Options:
    """Times in virtual seconds; probabilities per message unless said otherwise."""

    size: int
    clients: int
    watchers: int
    keys: int
    think_time: float
    # The servers.
    tick_interval: float
    election_ticks: int
    heartbeat_ticks: int
    pre_vote: bool
    request_timeout: float
    append_bytes_max: int
    inflight_max: int
    inflight_bytes_max: int
    uncommitted_bytes_max: int
    segment_bytes: int
    flush_interval: float
    snapshot_count: int
    catchup_entries: int
    watch_queue_max: int
    watch_revisions_per_read: int
    disk_latency: float
    # The network.
    loss: float
    doubling: float
    straying: float  # delayed far beyond the rest, so that others overtake it,
    straying_max: float  # by up to this long
    replay: float  # an old message comes once more
    delay_min: float
    delay_max: float
    # How often each kind of fault comes, relative to the others; 0 is never.
    fault_count: int
    crash: float
    crash_all: float
    crash_in_install: float
    partition: float
    one_way: float
    bridge: float
    isolate_leader: float
    usurp: float
    reborn: float
    leave: float
    flapping: float
    pause: float
    clock: float
    disk_fails: float
    disk_slow: float
    member: float
    transfer: float
    rumour: float
    # How often a crash is noticed by the others at once, as the end of their connections.
    notices: float
    inline_writes: bool  # the log of who does not lead is written on the loop
    clock_jump: float
    doze: float
    # Leases, locks and elections.
    tenants: int
    contenders: int
    checkpoint_interval: float

    def __str__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(f"{n}={v:.3g}" if isinstance(v, float) else f"{n}={v}" for n, v in values)


def choose(seed: int) -> Options:
    rng = random.Random(f"{seed}/options")

    def often(likely: float, low: float, high: float) -> float:
        """0, or with this likelihood something within the range."""
        return rng.uniform(low, high) if rng.random() < likely else 0.0

    size = rng.choice(SIZES)
    election_ticks = rng.choice([3, 5, 10])
    delay_min = rng.choice([0.0005, 0.002, 0.01])
    return Options(
        size=size,
        clients=rng.choice([2, 3, 5]),
        watchers=rng.choice([1, 2, 4]),
        keys=rng.choice([2, 5, 10]),
        think_time=rng.choice([0.005, 0.02, 0.08]),
        tick_interval=0.1,
        election_ticks=election_ticks,
        heartbeat_ticks=rng.choice([1, 1, 1, 2]) if election_ticks > 3 else 1,
        pre_vote=rng.random() < 0.75,
        request_timeout=rng.choice([1.0, 3.0]),
        append_bytes_max=rng.choice([1, 100, 1000, 1 << 20]),
        inflight_max=rng.choice([1, 2, 8, 256]),
        inflight_bytes_max=rng.choice([1, 500, 1 << 20]),
        uncommitted_bytes_max=rng.choice([200, 2000, 1 << 20, 1 << 20]),
        segment_bytes=rng.choice([256, 1024, 8192]),
        flush_interval=rng.choice([0.02, 0.1, 0.5]),
        snapshot_count=rng.choice([1, 5, 20, 10_000]),
        catchup_entries=rng.choice([0, 0, 3, 20]),
        watch_queue_max=rng.choice([1, 3, 1000]),
        watch_revisions_per_read=rng.choice([1, 3, 1000]),
        disk_latency=rng.choice([0.0001, 0.001, 0.01]),
        loss=often(0.6, 0.005, 0.2),
        doubling=often(0.5, 0.01, 0.2),
        straying=often(0.5, 0.01, 0.2),
        straying_max=rng.choice([0.05, 0.3, 2.0]),
        replay=often(0.4, 0.01, 0.15),
        delay_min=delay_min,
        delay_max=delay_min * rng.choice([1.5, 5, 20]),
        fault_count=rng.choice([0, 8, 16, 32, 48]),
        crash=often(0.8, 1, 6),
        crash_all=often(0.4, 0.5, 2),
        crash_in_install=often(0.4, 1, 3),
        partition=often(0.5, 1, 3),
        one_way=often(0.4, 1, 3),
        bridge=often(0.3, 1, 2),
        isolate_leader=often(0.5, 1, 4),
        usurp=often(0.5, 1, 4),
        reborn=often(0.4, 1, 4),
        leave=often(0.3, 1, 4),
        flapping=often(0.3, 1, 2),
        pause=often(0.5, 1, 4),
        clock=often(0.5, 1, 3),
        disk_fails=often(0.4, 0.5, 2),
        disk_slow=often(0.4, 1, 3),
        member=often(0.6, 1, 6),
        transfer=often(0.5, 1, 4),
        rumour=often(0.3, 1, 3),
        notices=rng.choice([0.0, 0.5, 1.0]),
        inline_writes=rng.random() < 0.5,
        clock_jump=often(0.4, 1, 3),
        doze=often(0.5, 1, 4),
        tenants=rng.choice([0, 1, 2, 3]),
        contenders=rng.choice([0, 0, 2, 3]),
        checkpoint_interval=rng.choice([300, 300, 0.5, 1.0]),
    )
