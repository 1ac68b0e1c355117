"""Builds Kvorum with its busy modules compiled, if KVORUM_COMPILE=1 is set; else there is nothing to build.

    KVORUM_COMPILE=1 pip install --no-build-isolation .     # with requirements/compile.txt and a C compiler

mypyc makes C of the very files that run uncompiled: there is no second source, and a module that
is not on the list below, or could not be built, runs as it is. scripts/compile does this for a checkout.
"""

import os

from setuptools import setup

# Those that the profile of requests shows, and what they call most. What talks to aiohttp or reads
# configuration is not worth it. All of them make one unit, in which they call each other directly.
COMPILED = {
    "api": "fast_lane http service turns",
    "api/handlers": "kv",
    "api/schema": "base64_go fields requests responses",
    "kvstate": "backend codec commands compaction errors leases lmdb_store long_keys machine mvcc ranges "
    "records txn types validation",
    "raft": "barriers codec disks driver errors outbox outgoing proposals",
    "raft/core": "config consensus election errors log membership messages progress proposing quorum reads "
    "ready replication storage types",
    "raft/wal": "record wal",
    "watch": "feed history hub intervals stream watcher",
}


def extensions() -> list[object]:
    if os.environ.get("KVORUM_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    files = [f"{package}/{name}.py" for package, names in COMPILED.items() for name in names.split()]
    return list(mypycify(files, opt_level="2", debug_level="0"))


setup(ext_modules=extensions())
