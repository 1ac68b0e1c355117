"""What only some servers have: Kvorum's own lacks some of etcd's maintenance, and says 404."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvorum.errors import KvorumError, ServerError, is_unknown_path

UNIMPLEMENTED = 12


class Absent(KvorumError):
    """The server cannot do that at all."""


@contextmanager
def named_where_absent(what: str) -> Iterator[None]:
    """Raises Absent with a sentence that names ``what``, where a call in the block met a server that does not
    know its path."""
    try:
        yield
    except ServerError as error:
        if is_unknown_path(error) or error.code == UNIMPLEMENTED:
            raise Absent(f"this server has no {what}: etcd's has, Kvorum's has not yet") from None
        raise
