"""What a watch prints for each response, and the command that it may run for each change."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from kvorum.cli import output
from kvorum.cli.settings import EXIT_INTERRUPTED, Failure, Settings

COMPACTED = "etcdserver: mvcc: required revision has been compacted"


class Cancelled(Failure):
    """The server ends the watch."""

    def __init__(self) -> None:
        super().__init__("watch is canceled by the server", EXIT_INTERRUPTED)


def show(response: dict[str, Any], settings: Settings) -> None:
    """Raises Cancelled where that is what the response says."""
    if response.get("canceled"):
        _show_cancelled(response, settings)
        raise Cancelled
    if response.get("created"):
        return
    events = response.get("events", [])
    if settings.write_out == "json":
        _show_json(response)
    elif settings.write_out == "fields":
        _show_fields(response, events)
    elif not events:
        output.write(f"progress notify: {response['header'].get('revision', 0)}\n")
    if settings.write_out == "simple":
        for event in events:
            _show_simple(event, settings)


def run(response: dict[str, Any], command: list[str]) -> None:
    """The command, if there is one, for each change; as in etcdctl when the whole response has been shown.
    Raises Failure where it fails."""
    for event in response.get("events", []) if command else ():
        _run(command, event)


def _show_cancelled(response: dict[str, Any], settings: Settings) -> None:
    reason = response.get("cancel_reason") or (COMPACTED if "compact_revision" in response else "")
    print(f"watch was canceled ({reason})", file=sys.stderr)
    if settings.write_out == "json":
        _show_json(response)
    elif settings.write_out == "fields":
        _show_fields(response, [])


def _show_simple(event: dict[str, Any], settings: Settings) -> None:
    kind = event.get("type", "PUT").encode() + b"\n"
    previous = [event["prev_kv"]] if "prev_kv" in event else []
    output.write(kind + output.simple_kvs([*previous, event["kv"]], settings))


def _show_json(response: dict[str, Any]) -> None:
    shown = {
        "Header": output.as_go(response["header"]),
        "Events": output.as_go(response.get("events", [])),
        "CompactRevision": int(response.get("compact_revision", 0)),
        "Canceled": bool(response.get("canceled")),
        "Created": False,
    }
    output.write_json(shown)


def _show_fields(response: dict[str, Any], events: list[dict[str, Any]]) -> None:
    lines = output.header_fields(response["header"])
    for event in events:
        lines.append(f'"Type" : {event.get("type", "PUT")}')
        if "prev_kv" in event:
            lines += output.kv_fields(event["prev_kv"], "Prev")
        lines += output.kv_fields(event["kv"])
    output.write_lines(lines)


def variables(revision: int | str, type_: str, key: bytes, value: bytes) -> dict[str, str]:
    """A change, as etcdctl has it in the environment of a command."""
    return {
        "ETCD_WATCH_REVISION": str(revision),
        "ETCD_WATCH_EVENT_TYPE": output.go_quoted(type_.encode()),
        "ETCD_WATCH_KEY": output.go_quoted(key),
        "ETCD_WATCH_VALUE": output.go_quoted(value),
    }


def _run(command: list[str], event: dict[str, Any]) -> None:
    kv = event["kv"]
    key, value = output.raw(kv, "key"), output.raw(kv, "value")
    change = variables(kv["mod_revision"], event.get("type", "PUT"), key, value)
    try:
        ran = subprocess.run(command, env={**os.environ, **change}, check=False)
    except OSError as error:
        raise Failure(f"command {command[0]!r} cannot be run: {error}") from None
    if ran.returncode:
        print(f"command {command!r} error (exit status {ran.returncode})", file=sys.stderr)
        raise Failure(f"exit status {ran.returncode}")
