"""Leases: who is granted one may attach keys to it, and they go when it goes (API.md 4.6).

    LEASES      id        → seconds granted, seconds left at the last checkpoint
    LEASE_KEYS  id, key   → empty: what hangs on a lease; exactly the living keys whose record names it

    grant 7, 60 s        LEASES 7
    put a, lease 7       LEASE_KEYS 7 a
    put a, lease 8       LEASE_KEYS 8 a, and 7 a is gone
    revoke 8             a is deleted, with all else that hangs on 8, and 8 is gone

When a lease ends is not known here: the leader's clock finds out and proposes LeaseRevoke. Ids are
signed, and go into keys so that they sort.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from kvstate.backend import Backend, Table
from kvstate.types import Lease

_ID: Final = struct.Struct(">Q")
_TTLS: Final = struct.Struct(">qq")
_ID_BYTES: Final = 8
_BIAS: Final = 1 << 63  # makes of a signed id an unsigned number, in the same order
_LAST_ID: Final = _BIAS - 1


def find_lease(backend: Backend, lease_id: int) -> Lease | None:
    packed = _pack_id(lease_id)
    ttls = backend.get(Table.LEASES, packed)
    return None if ttls is None else _lease(packed, ttls)


def all_leases(backend: Backend) -> Iterator[Lease]:
    """In order of their ids. No write may come between two steps of the iterator."""
    for packed, ttls in backend.scan(Table.LEASES):
        yield _lease(packed, ttls)


def lease_page(backend: Backend, place: bytes, limit: int) -> tuple[list[Lease], bytes | None]:
    """Some ``limit`` leases from a place on, b"" for the first, and the place to go on from; None there means
    that these were the last. Anything may happen between two pages."""
    entries, end = backend.page(Table.LEASES, place, None, limit)
    return [_lease(packed, ttls) for packed, ttls in entries], end


def keys_of_lease(backend: Backend, lease_id: int) -> list[bytes]:
    """The keys that are attached to it, in order."""
    high = None if lease_id == _LAST_ID else _pack_id(lease_id + 1)
    return [entry[_ID_BYTES:] for entry, _ in backend.scan(Table.LEASE_KEYS, _pack_id(lease_id), high)]


def write_lease(backend: Backend, lease: Lease) -> None:
    """Add it, or replace what it was."""
    backend.put(Table.LEASES, _pack_id(lease.id), _TTLS.pack(lease.granted_ttl, lease.remaining_ttl))


def remove_lease(backend: Backend, lease_id: int) -> None:
    """Nothing may be attached to it any more."""
    backend.delete(Table.LEASES, _pack_id(lease_id))


def attach(backend: Backend, lease_id: int, key: bytes) -> None:
    backend.put(Table.LEASE_KEYS, _pack_id(lease_id) + key, b"")


def detach(backend: Backend, lease_id: int, key: bytes) -> None:
    backend.delete(Table.LEASE_KEYS, _pack_id(lease_id) + key)


def _pack_id(lease_id: int) -> bytes:
    return _ID.pack(lease_id + _BIAS)


def _lease(packed: bytes, ttls: bytes) -> Lease:
    (biased,) = _ID.unpack(packed)
    granted, remaining = _TTLS.unpack(ttls)
    return Lease(biased - _BIAS, granted, remaining)
