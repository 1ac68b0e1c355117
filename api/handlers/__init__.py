"""What answers each path, grouped as etcd groups its services."""

from __future__ import annotations

from api.handlers import cluster, health, kv, maintenance, watch
from api.http import Routes

ROUTES = Routes(
    unary={**kv.UNARY, **maintenance.UNARY, **cluster.UNARY},
    streams={**watch.STREAMS},
    pages={**health.PAGES},
)
