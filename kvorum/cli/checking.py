"""What etcdctl's checks have in common: their flags, the load of puts, and how they leave a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from kvorum.cli import loading, output, signals
from kvorum.cli.defrag import defragment
from kvorum.cli.progress import bar
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_FEATURE, Failure, Settings
from kvorum.client import Client
from kvorum.errors import KvorumError
from kvorum.load.measuring import Measured
from kvorum.load.requests import Request, put
from kvorum.load.running import Extent, Load

SIZES = {"s": "s", "m": "m", "l": "l", "xl": "xl", "small": "s", "medium": "m", "large": "l", "xLarge": "xl"}
"""How etcdctl calls the loads."""
RANDOM_BYTES = 10
F = TypeVar("F", bound=Callable[..., Any])


def flags(name: str, loads: str) -> Callable[[F], F]:
    """Those that all checks have: ``load``, ``prefix``, ``auto_compact`` and ``auto_defrag``."""

    def add(command: F) -> F:
        for option in (
            click.option("--auto-defrag", is_flag=True, help="Defragment the endpoints after the test."),
            click.option(
                "--auto-compact", is_flag=True, help="Forget the history up to the end of the test."
            ),
            click.option(
                "--prefix",
                default=f"/etcdctl-check-{name}/",
                show_default=True,
                help="Where the keys are written; they are deleted afterwards.",
            ),
            click.option(
                "--load",
                default="s",
                show_default=True,
                help=f"s(mall), m(edium), l(arge) or xl(arge): {loads}.",
            ),
        ):
            command = option(command)
        return command

    return add


def size_named(load: str) -> str:
    """Raises Failure for what is none, in etcdctl's words."""
    if load not in SIZES:
        raise Failure(f"unknown load option {load}", EXIT_BAD_FEATURE)
    return SIZES[load]


@contextmanager
def client_of(settings: Settings, prefix: str, *, auto_compact: bool, auto_defrag: bool) -> Iterator[Client]:
    """Inside, the prefix is the check's own. Behind, it is empty again, however the block ended; and if it
    ended well, what the check has left in the history and on the disk is gone, where that is wanted."""
    data = to_bytes(prefix)
    with signals.as_exceptions(), settings.client() as client:
        loading.refuse_used(client, data)
        try:
            yield client
        finally:
            revision = loading.clean_up(client, data)
        if auto_compact and revision:
            _compact(client, revision)
        if auto_defrag:
            _defragment(settings)


def write(
    settings: Settings, client: Client, clients: int, requests: Iterator[Request], extent: Extent, title: str
) -> Measured:
    targets = loading.targets(settings, client)
    load = Load(targets, clients, requests, extent, settings.dial_timeout)
    with bar(title) as progress:
        return asyncio.run(load.run(progress))


def puts(prefix: str, key_bytes: int, value_bytes: int) -> Iterator[Request]:
    """Some random bytes and zeros, as etcdctl's keys are, and values of zeros."""
    begin, rest, value = to_bytes(prefix), bytes(key_bytes - RANDOM_BYTES), bytes(value_bytes)
    while True:
        yield put(begin + os.urandom(RANDOM_BYTES) + rest, value)


def errors_told(measured: Measured) -> list[str]:
    """In etcdctl's words; nothing where there were none."""
    if not measured.errors:
        return []
    reasons = [f"FAIL: ERROR({reason}) -> {count}" for reason, count in measured.errors.items()]
    return ["FAIL: too many errors", *reasons]


def _compact(client: Client, revision: int) -> None:
    """In etcdctl's words. Returns when the space is free."""
    output.write(f"Compacting with revision {revision}\n")
    request = {"revision": str(revision), "physical": True}
    client.call("/v3/kv/compaction", request, timeout=loading.CLEANUP_SECONDS)
    output.write(f"Compacted with revision {revision}\n")


def _defragment(settings: Settings) -> None:
    """All endpoints, in etcdctl's words. Raises Failure at the first that cannot."""
    for endpoint in settings.endpoints:
        output.write(f'Defragmenting "{endpoint}"\n')
        try:
            defragment(settings, endpoint)
        except KvorumError as error:
            raise Failure(f"Failed to defragment etcd member[{endpoint}] ({error})") from None
        output.write(f'Defragmented "{endpoint}"\n')
