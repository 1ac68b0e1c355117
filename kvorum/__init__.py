"""Kvorum: a strongly consistent store for configuration and service discovery that speaks etcd v3.

    from kvorum import Client, AsyncClient

Importing this imports nothing of the server (``raft``, ``kvstate``, ``watch``, ``api``): an application may
have packages of those names itself. Names are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kvorum.async_client import AsyncClient as AsyncClient
    from kvorum.cache import AsyncCache as AsyncCache
    from kvorum.cache import Cache as Cache
    from kvorum.client import Client as Client
    from kvorum.config import AsyncConfig as AsyncConfig
    from kvorum.config import Config as Config
    from kvorum.errors import AuthenticationFailed as AuthenticationFailed
    from kvorum.errors import Compacted as Compacted
    from kvorum.errors import ConnectionFailed as ConnectionFailed
    from kvorum.errors import FutureRevision as FutureRevision
    from kvorum.errors import KvorumError as KvorumError
    from kvorum.errors import LeaseExists as LeaseExists
    from kvorum.errors import LeaseLost as LeaseLost
    from kvorum.errors import LeaseNotFound as LeaseNotFound
    from kvorum.errors import PermissionDenied as PermissionDenied
    from kvorum.errors import ServerError as ServerError
    from kvorum.errors import Unavailable as Unavailable
    from kvorum.keepalive import Keepalive as Keepalive
    from kvorum.mirror import Change as Change
    from kvorum.recipes.asynchronous import AsyncBarrier as AsyncBarrier
    from kvorum.recipes.asynchronous import AsyncCounter as AsyncCounter
    from kvorum.recipes.asynchronous import AsyncDoubleBarrier as AsyncDoubleBarrier
    from kvorum.recipes.asynchronous import AsyncElection as AsyncElection
    from kvorum.recipes.asynchronous import AsyncLock as AsyncLock
    from kvorum.recipes.blocking import Barrier as Barrier
    from kvorum.recipes.blocking import Counter as Counter
    from kvorum.recipes.blocking import DoubleBarrier as DoubleBarrier
    from kvorum.recipes.blocking import Election as Election
    from kvorum.recipes.blocking import Lock as Lock
    from kvorum.records import InvalidConfig as InvalidConfig
    from kvorum.services.choice import NoInstance as NoInstance
    from kvorum.services.records import Instance as Instance
    from kvorum.tls import Tls as Tls
    from kvorum.txn import Compare as Compare
    from kvorum.txn import Delete as Delete
    from kvorum.txn import Get as Get
    from kvorum.txn import Operation as Operation
    from kvorum.txn import Put as Put
    from kvorum.txn import create_revision as create_revision
    from kvorum.txn import exists as exists
    from kvorum.txn import lease_of as lease_of
    from kvorum.txn import missing as missing
    from kvorum.txn import mod_revision as mod_revision
    from kvorum.txn import value as value
    from kvorum.txn import version as version
    from kvorum.types import DeleteResult as DeleteResult
    from kvorum.types import Event as Event
    from kvorum.types import KeyValue as KeyValue
    from kvorum.types import LeaseInfo as LeaseInfo
    from kvorum.types import PutResult as PutResult
    from kvorum.types import RangeResult as RangeResult
    from kvorum.types import TxnResult as TxnResult

_ERRORS = (
    *("AuthenticationFailed", "Compacted", "ConnectionFailed", "FutureRevision", "KvorumError"),
    *("LeaseExists", "LeaseLost", "LeaseNotFound", "PermissionDenied", "ServerError", "Unavailable"),
)
_ASYNC_RECIPES = ("AsyncBarrier", "AsyncCounter", "AsyncDoubleBarrier", "AsyncElection", "AsyncLock")
_TXN = (
    *("Compare", "Delete", "Get", "Operation", "Put", "create_revision", "exists", "lease_of", "missing"),
    *("mod_revision", "value", "version"),
)
_TYPES = ("DeleteResult", "Event", "KeyValue", "LeaseInfo", "PutResult", "RangeResult", "TxnResult")
_HOMES = {
    "AsyncCache": "kvorum.cache",
    "AsyncClient": "kvorum.async_client",
    "AsyncConfig": "kvorum.config",
    "Cache": "kvorum.cache",
    "Change": "kvorum.mirror",
    "Client": "kvorum.client",
    "Config": "kvorum.config",
    "Instance": "kvorum.services.records",
    "InvalidConfig": "kvorum.records",
    "Keepalive": "kvorum.keepalive",
    "NoInstance": "kvorum.services.choice",
    "Tls": "kvorum.tls",
    **dict.fromkeys(_ERRORS, "kvorum.errors"),
    **dict.fromkeys(("Barrier", "Counter", "DoubleBarrier", "Election", "Lock"), "kvorum.recipes.blocking"),
    **dict.fromkeys(_ASYNC_RECIPES, "kvorum.recipes.asynchronous"),
    **dict.fromkeys(_TXN, "kvorum.txn"),
    **dict.fromkeys(_TYPES, "kvorum.types"),
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'kvorum' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
