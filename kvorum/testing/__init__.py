"""Real servers for the tests of software that uses Kvorum or etcd, in milliseconds.

    import kvorum.testing

    with kvorum.testing.server() as server:
        ...                                 # it listens on server.endpoint, such as 127.0.0.1:40923

    with kvorum.testing.cluster(size=3) as cluster:
        cluster.leader().kill()             # SIGKILL; the other two go on

With pytest the fixtures ``kvorum_server`` and ``kvorum_cluster`` are just there (``plugin.py``).

How it is fast: one process, started with the first server, has imported the server's packages and is
forked for each (``zygote.py``). The process of the tests imports none of them. Every server has data
of its own and ports that nobody else is given while it is down. When the tests end, by whatever way,
the servers end and their data is removed.

Linux only, as the server is. Not for data that matters: it may be kept in memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvorum.testing.clusters import Cluster, cluster
    from kvorum.testing.launcher import StartFailed
    from kvorum.testing.servers import Server, server

__all__ = ["Cluster", "Server", "StartFailed", "cluster", "server"]

_HOMES = {
    "Cluster": "clusters",
    "Server": "servers",
    "StartFailed": "launcher",
    "cluster": "clusters",
    "server": "servers",
}


def __getattr__(name: str) -> Any:
    # The plugin lies in this package and is loaded in every run of pytest: nothing comes with it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
