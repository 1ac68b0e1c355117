"""What answers each path, grouped as etcd groups its services."""

from __future__ import annotations

from api.handlers import cluster, health, kv, lease, maintenance, watch
from api.http import Routes, with_old_paths

ROUTES = with_old_paths(
    Routes(
        unary={**kv.UNARY, **lease.UNARY, **maintenance.UNARY, **cluster.UNARY},
        streams={**watch.STREAMS, **lease.STREAMS},
        pages=health.PAGES,
        taskless=frozenset(kv.UNARY),
        watches=frozenset(watch.STREAMS),
        single=lease.SINGLE,
    )
)
