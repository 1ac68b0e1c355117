"""Carries changes out, in one transaction, and says in a sentence why that was not possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvorum.cli.data import reading
from kvorum.cli.data.changes import MAX_OPERATIONS, Changes
from kvorum.cli.data.keys import shown
from kvorum.cli.settings import Failure
from kvorum.errors import KvorumError, ServerError

if TYPE_CHECKING:
    from kvorum.client import Client

_NAMED = 3


class Conflict(Failure):
    """Somebody else changed what was read; nothing was written."""


def commit(client: Client, changes: Changes) -> int:
    """The revision of the changes. Raises Conflict, and Failure where one transaction cannot hold them."""
    compares, operations = changes.compares(), changes.operations()
    try:
        outcome = client.transact(compares, operations)
    except KvorumError as error:
        if error.maybe_done:
            return _commit_again(client, changes, error)
        raise _refused(error, changes) from None
    if not outcome.succeeded:
        raise Conflict(_who_was_faster(client, changes))
    return outcome.revision


def _commit_again(client: Client, changes: Changes, error: KvorumError) -> int:
    """After an answer was lost. Once more does no harm: where the changes were carried out, the compares hold
    no more. Raises the error where it stays unknown whether they were."""
    outcome = client.transact(changes.compares(), changes.operations(), idempotent=True)
    if outcome.succeeded:
        return outcome.revision
    now = reading.of(client, {*changes.put, *changes.remove}).kvs
    revisions = {kv.mod_revision for kv in now.values()}
    is_done = {key: kv.value for key, kv in now.items()} == dict(changes.put) and len(revisions) == 1
    if is_done and (revision := revisions.pop()) > changes.before.revision:
        return revision
    raise error


def _refused(error: KvorumError, changes: Changes) -> Exception:
    if not isinstance(error, ServerError):
        return error
    if "too many operations" in error.message:
        size = max(len(changes.compares()), len(changes.operations()))
        return Failure(
            f"{len(changes)} changes are one transaction of {size} operations, more than the server takes"
            f" (--max-txn-ops, {MAX_OPERATIONS} unless set): nothing was written; change less at once, or"
            " raise that limit"
        )
    # The second is gRPC's, for what is larger still.
    if "request is too large" in error.message or "message larger than max" in error.message:
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
