"""check datascale: etcdctl's test of how much memory a server needs for so much data, with its words."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click

from kvorum.cli import checking, output
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.settings import EXIT_ERROR, Settings, current
from kvorum.client import Client
from kvorum.errors import KvorumError
from kvorum.load.measuring import Measured, figures
from kvorum.load.running import Extent

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
@checking.flags("datascale", "10 thousand, 100 thousand, 1 or 3 million keys")
@click.option("--keys", type=click.IntRange(min=1), help="Another number of keys; etcdctl has only its own.")
def datascale(load: str, keys: int | None, **flags: Any) -> None:
    """Write many keys of 1 KiB, and say how much more memory the server has then.

    It is the first endpoint's memory, by its /metrics. Where a server does not tell it, the writes are made
    and measured all the same, and the exit code is 1.
    """
    model, settings = MODELS[checking.size_named(load)], current()
    model = Model(keys or model.keys, model.clients)
    with checking.client_of(settings, **flags) as client:
        before = _memory(client, settings, "before")
        output.write(
            f"Start data scale check for work load [{model.keys} key-value pairs, {KEY_BYTES + VALUE_BYTES}"
            f" bytes per key-value, {model.clients} concurrent clients].\n"
        )
        requests = checking.puts(flags["prefix"], KEY_BYTES, VALUE_BYTES)
        extent = Extent(total=model.keys)
        measured = checking.write(settings, client, model.clients, requests, extent, "check datascale")
        after = _memory(client, settings, "after") if before is not None else None
    if not _judge(measured, before, after):
        click.get_current_context().exit(EXIT_ERROR)


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
        output.write_lines(checking.errors_told(measured))
        return False
    if before is None or after is None:
        output.write(f"Throughput is {int(figures(measured).per_second) + 1} writes/s\n")
        return False
    used = (after - before) / (1024 * 1024)
    output.write(f"PASS: Approximate system memory used : {used:.2f} MB.\n")
    return True
