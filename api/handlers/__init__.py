"""What answers each path, grouped as etcd groups its services."""

from __future__ import annotations

from api.handlers import cluster, discovery, election, health, kv, lease, lock, maintenance, watch
from api.http import Routes, with_old_paths

ROUTES = with_old_paths(
    Routes(
        unary={**kv.UNARY, **lease.UNARY, **maintenance.UNARY, **cluster.UNARY},
        patient={**lock.PATIENT, **election.PATIENT},
        streams={**watch.STREAMS, **lease.STREAMS, **election.STREAMS},
        pages={**health.PAGES, **discovery.PAGES},
        taskless=frozenset(kv.UNARY),
        watches=frozenset(watch.STREAMS),
        single=lease.SINGLE,
    )
)
