"""What answers each path, grouped as etcd groups its services."""

from __future__ import annotations

from api.handlers import cluster, health, kv, maintenance, watch
from api.http import Routes, with_old_paths

ROUTES = with_old_paths(
    Routes(
        unary={**kv.UNARY, **maintenance.UNARY, **cluster.UNARY},
        streams=watch.STREAMS,
        pages=health.PAGES,
        taskless=frozenset(kv.UNARY),
    )
)
