"""Who this member is: ids computed as etcd computes them.

The same name, peer URLs and token give the same ids as in etcd, so that dashboards and
scripts that know a member by its id find it again.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence


def member_id(peer_urls: Sequence[str], cluster_token: str) -> int:
    """The first eight bytes of SHA-1 over the sorted peer URLs and the cluster token."""
    return _id("".join(sorted(peer_urls)).encode() + cluster_token.encode())


def cluster_id(member_ids: Iterable[int]) -> int:
    """The first eight bytes of SHA-1 over the founding members' ids, ascending."""
    return _id(b"".join(struct.pack(">Q", one) for one in sorted(member_ids)))


def _id(data: bytes) -> int:
    (first,) = struct.unpack_from(">Q", hashlib.sha1(data, usedforsecurity=False).digest())
    return int(first)
