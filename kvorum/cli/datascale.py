"""check datascale: etcdctl's test of how much memory a server needs for so much data, with its words."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import click

from kvorum.cli import loading, output, signals
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.kv import to_bytes
from kvorum.cli.progress import bar
from kvorum.cli.settings import EXIT_ERROR, Settings, current
from kvorum.client import Client
from kvorum.errors import KvorumError
from kvorum.load.measuring import Measured, figures
from kvorum.load.requests import Request, put
from kvorum.load.running import Extent, Load

KEY_BYTES, VALUE_BYTES = 512, 512
METRIC = "process_resident_memory_bytes"
METRICS_SECONDS = 10.0


@dataclass(frozen=True)
class Model:
    keys: int
    clients: int


MODELS = {
    "s": Model(10_000, 50),
    "m": Model(100_000, 200),
    "l": Model(1_000_000, 500),
    "xl": Model(3_000_000, 1000),
}


@click.command(
    cls=GoCommand,
    epilog=examples("kvorum check datascale", "kvorum check datascale --load=m --auto-compact --auto-defrag"),
)
@click.option(
    "--load",
    default="s",
    show_default=True,
    help="s(mall), m(edium), l(arge) or xl(arge): 10 thousand, 100 thousand, 1 or 3 million keys.",
)
@click.option(
    "--prefix",
    default="/etcdctl-check-datascale/",
    show_default=True,
    help="Where the keys are written; they are deleted afterwards.",
)
@click.option("--auto-compact", is_flag=True, help="Forget the history up to the end of the test.")
@click.option("--auto-defrag", is_flag=True, help="Defragment the endpoints after the test.")
@click.option("--keys", type=click.IntRange(min=1), help="Another number of keys; etcdctl has only its own.")
def datascale(load: str, prefix: str, auto_compact: bool, auto_defrag: bool, keys: int | None) -> None:
    """Write many keys of 1 KiB, and say how much more memory the server has then.

    It is the first endpoint's memory, by its /metrics. Where a server does not tell it, the writes are made
    and measured all the same, and the exit code is 1.
    """
    model = MODELS[loading.size_named(load)]
    model = Model(keys or model.keys, model.clients)
    settings = current()
    with signals.as_exceptions(), settings.client() as client:
        loading.refuse_used(client, to_bytes(prefix))
        before = _memory(client, settings, "before")
        try:
            measured = _write(settings, client, model, to_bytes(prefix))
            after = _memory(client, settings, "after") if before is not None else None
        finally:
            revision = loading.clean_up(client, to_bytes(prefix))
        if auto_compact and revision:
            loading.compact(client, revision)
        if auto_defrag:
            loading.defragment(client, settings)
    if not _judge(measured, before, after):
        click.get_current_context().exit(EXIT_ERROR)


def _write(settings: Settings, client: Client, model: Model, prefix: bytes) -> Measured:
    size = KEY_BYTES + VALUE_BYTES
    output.write(
        f"Start data scale check for work load [{model.keys} key-value pairs, {size} bytes per key-value,"
        f" {model.clients} concurrent clients].\n"
    )
    targets = loading.targets(settings, client)
    run = Load(targets, model.clients, _puts(prefix), Extent(total=model.keys), settings.dial_timeout)
    with bar("check datascale") as progress:
        return asyncio.run(run.run(progress))


def _puts(prefix: bytes) -> Iterator[Request]:
    """Ten random bytes and zeros, as etcdctl's keys are, and values of zeros."""
    rest, value = bytes(KEY_BYTES - 10), bytes(VALUE_BYTES)
    while True:
        yield put(prefix + os.urandom(10) + rest, value)


def _memory(client: Client, settings: Settings, when: str) -> float | None:
    """Of the first endpoint, in bytes; None, and a sentence is printed, where it does not tell."""
    first = next(iter(client.core.endpoints))
    try:
        return _metric(first, settings)
    except KvorumError as error:
        output.write(f"{error}\nFAIL: Could not read {METRIC} {when} the put operations.\n")
        return None


def _metric(endpoint: str, settings: Settings) -> float:
    """Raises KvorumError."""
    parts = urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=METRICS_SECONDS, context=settings.tls.context())
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=METRICS_SECONDS)
    )
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise KvorumError(f"{endpoint}/metrics cannot be read: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise KvorumError(
            f"{endpoint}/metrics: {answer.status} {answer.reason}: this server tells no metrics there"
        )
    found = re.search(rf"^{METRIC} ([-+.\deE]+)$", text, re.MULTILINE)
    if found is None:
        raise KvorumError(f"could not find: {METRIC} in {endpoint}/metrics")
    return float(found[1])


def _judge(measured: Measured, before: float | None, after: float | None) -> bool:
    """Print the verdict in etcdctl's words; whether it is PASS."""
    if measured.errors:
        reasons = [f"FAIL: ERROR({reason}) -> {count}" for reason, count in measured.errors.items()]
        output.write_lines(["FAIL: too many errors", *reasons])
        return False
    if before is None or after is None:
        output.write(f"Throughput is {int(figures(measured).per_second) + 1} writes/s\n")
        return False
    used = (after - before) / (1024 * 1024)
    output.write(f"PASS: Approximate system memory used : {used:.2f} MB.\n")
    return True
