"""What ``bench`` and the checks have in common: members as targets, and a prefix of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvorum.cli import output
from kvorum.cli.settings import EXIT_INVALID_INPUT, Failure, Settings
from kvorum.client import Client
from kvorum.errors import KvorumError
from kvorum.load.connection import Target
from kvorum.messages import key_range, revision_of

CLEANUP_SECONDS = 30.0


def targets(settings: Settings, client: Client) -> list[Target]:
    """One for each endpoint, with a token where there are users. Raises KvorumError."""
    token = client.run(client.core.token(client.core.clock() + settings.command_timeout))
    return [Target(endpoint, settings.tls, token) for endpoint in client.core.endpoints]


def refuse_used(client: Client, prefix: bytes) -> None:
    """What is there is not ours to delete."""
    if client.range(prefix, prefix=True, limit=1, keys_only=True).kvs:
        shown = prefix.decode(errors="surrogateescape")
        raise Failure(
            f"prefix {output.go_quoted(prefix)} has keys. Delete with 'etcdctl del --prefix {shown}' first",
            EXIT_INVALID_INPUT,
        )


@contextmanager
def own_prefix(client: Client, prefix: bytes, *, is_kept: bool = False) -> Iterator[None]:
    """Inside, the prefix is ours; behind, it is empty again, however the block ended."""
    refuse_used(client, prefix)
    try:
        yield
    finally:
        if not is_kept:
            clean_up(client, prefix)


def clean_up(client: Client, prefix: bytes) -> int:
    """Returns the revision as of which nothing is left, 0 where that could not be done."""
    try:
        selected = key_range(prefix, prefix=True)
        while True:
            # What was under way when the load was interrupted may be carried out behind a deletion.
            answer = client.call("/v3/kv/deleterange", selected, safe=True, timeout=CLEANUP_SECONDS)
            if not int(answer.get("deleted", 0)):
                return revision_of(answer)
    except KvorumError as error:
        output.write(f"FAIL: Cleanup failed during key deletion: ERROR({error})\n")
        return 0
