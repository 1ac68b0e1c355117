"""Carries changes out, in one transaction, and says in a sentence why that was not possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvorum.cli.data import reading
from kvorum.cli.data.changes import MAX_OPERATIONS, Changes
from kvorum.cli.data.keys import shown
from kvorum.cli.settings import Failure
from kvorum.errors import ServerError

if TYPE_CHECKING:
    from kvorum.client import Client

_NAMED = 3


class Conflict(Failure):
    """Somebody else changed what was read; nothing was written."""


def commit(client: Client, changes: Changes) -> int:
    """The revision of the changes. Raises Conflict, and Failure where one transaction cannot hold them."""
    try:
        outcome = client.transact(changes.compares(), changes.operations())
    except ServerError as error:
        raise _refused(error, changes) from None
    if not outcome.succeeded:
        raise Conflict(_who_was_faster(client, changes))
    return outcome.revision


def _refused(error: ServerError, changes: Changes) -> Exception:
    if "too many operations" in error.message:
        size = max(len(changes.compares()), len(changes.operations()))
        return Failure(
            f"{len(changes)} changes are one transaction of {size} operations, more than the server takes"
            f" (--max-txn-ops, {MAX_OPERATIONS} unless set): nothing was written; change less at once, or"
            " raise that limit"
        )
    if "request is too large" in error.message:
        size = sum(len(key) + len(value) for key, value in changes.put.items())
        return Failure(
            f"{len(changes)} changes of {size} bytes are more than the server takes in one transaction"
            " (--max-request-bytes): nothing was written; change less at once, or raise that limit"
        )
    return error


def _who_was_faster(client: Client, changes: Changes) -> str:
    known = [key for prefix in changes.known for key in reading.under(client, prefix, keys_only=True).kvs]
    keys = {*changes.put, *changes.remove, *changes.kept, *known}
    now, before = reading.of(client, keys).kvs, changes.before.kvs
    changed = [
        shown(key)
        for key in sorted(keys)
        if (now[key].mod_revision if key in now else 0) != (before[key].mod_revision if key in before else 0)
    ]
    named = ", ".join(changed[:_NAMED]) or "something"
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return (
        f"{named}{more} changed since it was read (revision {changes.before.revision}): nothing was written"
    )
