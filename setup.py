"""Builds Kvorum with its busy modules compiled, if KVORUM_COMPILE=1 is set; else there is nothing to build.

    KVORUM_COMPILE=1 pip install --no-build-isolation .     # with requirements/compile.txt and a C compiler

mypyc makes C of the very files that run uncompiled: there is no second source, and a module that
is not on the list below, or could not be built, runs as it is. scripts/compile does this for a checkout.
"""

import os

from setuptools import setup

# Those that the profile of requests shows, and what they call most. What talks to aiohttp or reads
# configuration is not worth it. All of them make one unit, in which they call each other directly.
COMPILED = """
    api/fast_lane api/handlers/kv api/http api/service api/turns
    api/schema/base64_go api/schema/fields api/schema/requests api/schema/responses
    kvstate/backend kvstate/codec kvstate/commands kvstate/compaction kvstate/errors kvstate/lmdb_store
    kvstate/long_keys kvstate/machine kvstate/mvcc kvstate/ranges kvstate/records kvstate/txn kvstate/types
    kvstate/validation
    raft/barriers raft/codec raft/disks raft/driver raft/errors raft/outbox raft/outgoing raft/proposals
    raft/core/config raft/core/consensus raft/core/election raft/core/errors raft/core/log
    raft/core/membership raft/core/messages raft/core/progress raft/core/proposing raft/core/quorum
    raft/core/reads raft/core/ready raft/core/replication raft/core/storage raft/core/types
    raft/wal/record raft/wal/wal
    watch/feed watch/history watch/hub watch/intervals watch/stream watch/watcher
""".split()


def extensions() -> list[object]:
    if os.environ.get("KVORUM_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    return list(mypycify([f"{module}.py" for module in COMPILED], opt_level="2", debug_level="0"))


setup(ext_modules=extensions())
