"""``watch --exec``: a shell command for each change, one after the other, none left out over reconnects.

The command finds the change in its environment, as etcdctl has it (ETCD_WATCH_KEY and ETCD_WATCH_VALUE in
quotes), and as it is: KVORUM_WATCH_KEY, KVORUM_WATCH_VALUE, and the value once more on its standard input,
which has room for all of it. With ``--batch`` it is run once per revision, and reads a line of JSON for each
change.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from kvorum import process_group
from kvorum.cli import watch_output
from kvorum.cli.settings import EXIT_INTERRUPTED, Failure, Settings
from kvorum.errors import Compacted
from kvorum.messages import b64
from kvorum.types import Event, KeyValue
from kvorum.watching import Batch

VARIABLE_BYTES_MAX = 100_000
"""Linux takes no variable of 128 KiB or more."""
STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Wanted:
    """What to watch, and what to run. A key without an end is a prefix, unless ``is_exact``."""

    key: bytes
    range_end: bytes | None
    is_exact: bool
    start_revision: int
    prev_kv: bool
    command: str
    is_batch: bool
    stops_on_failure: bool


def run(settings: Settings, wanted: Wanted) -> NoReturn:
    """Until a signal comes, or the server cannot go on."""
    ending = _Ending()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ending)
    watching = settings.client()
    with (
        watching as client,
        client.watch(
            wanted.key,
            wanted.range_end,
            prefix=wanted.range_end is None and not wanted.is_exact,
            start_revision=wanted.start_revision,
            prev_kv=wanted.prev_kv,
        ) as watch,
    ):
        try:
            for batch in watch.batches():
                for environment, given in _runs(batch, wanted.is_batch):
                    _run(wanted, batch.revision, environment, given, ending)
        except Compacted as error:
            print(f"watch was canceled ({error})", file=sys.stderr)
    raise Failure("watch is canceled by the server", EXIT_INTERRUPTED)


class _Ending:
    """A signal ends us by an exception, so that the command is ended too. While the command is being started,
    the exception waits until we know which process it is."""

    def __init__(self) -> None:
        self._number = 0
        self._is_starting = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self._number:
            self._number = number
            self._end()

    @contextmanager
    def starting(self) -> Iterator[None]:
        self._is_starting = True
        try:
            yield
        finally:
            self._is_starting = False
            self._end()

    def _end(self) -> None:
        if self._number and not self._is_starting:
            raise SystemExit(128 + self._number)


def _runs(batch: Batch, is_batch: bool) -> Iterator[tuple[dict[str, str], bytes]]:
    """The environment and the input of each run."""
    if is_batch:
        lines = [json.dumps(_as_json(event), separators=(",", ":")) + "\n" for event in batch.events]
        told = {"ETCD_WATCH_REVISION": str(batch.revision), "KVORUM_WATCH_COUNT": str(len(batch.events))}
        yield told, "".join(lines).encode()
    else:
        for event in batch.events:
            yield environment_of(event), event.value


def environment_of(event: Event) -> dict[str, str]:
    """What fits into variables: nothing with a zero byte, and nothing that is too long."""
    told = watch_output.variables(event.revision, event.type, event.key, event.value)
    raw = {"KVORUM_WATCH_TYPE": event.type.encode(), "KVORUM_WATCH_KEY": event.key}
    raw["KVORUM_WATCH_VALUE"] = event.value
    if event.prev_kv is not None:
        raw["KVORUM_WATCH_PREV_VALUE"] = event.prev_kv.value
    told |= {name: os.fsdecode(value) for name, value in raw.items() if b"\0" not in value}
    return {name: value for name, value in told.items() if len(os.fsencode(value)) < VARIABLE_BYTES_MAX}


def _as_json(event: Event) -> dict[str, Any]:
    """As ``watch -w json`` shows it, but for the type, which is a word."""
    shown = {"type": event.type, "kv": _kv_as_json(event.kv)}
    if event.prev_kv is not None:
        shown["prev_kv"] = _kv_as_json(event.prev_kv)
    return shown


def _kv_as_json(kv: KeyValue) -> dict[str, Any]:
    return {
        "key": b64(kv.key),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "value": b64(kv.value),
        "lease": kv.lease,
    }


def _run(wanted: Wanted, revision: int, environment: dict[str, str], given: bytes, ending: _Ending) -> None:
    process: subprocess.Popen[bytes] | None = None
    try:
        with ending.starting():
            process = subprocess.Popen(
                wanted.command,
                shell=True,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                process_group=0,  # so that what it has started can be ended with it
            )
        process.communicate(given)
    finally:
        if process is not None and process.returncode is None:  # we are told to end
            _stop(process)
    code = process.returncode
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        told = f"revision {revision}: the command ended with {how}: {wanted.command}"
        if wanted.stops_on_failure:
            raise Failure(f"{told}; go on with --rev={revision}")
        print(f"Error: {told}", file=sys.stderr)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    process_group.end(process, STOP_SECONDS)
