"""watch: prints each change as it comes, and may run a command for it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import click

from kvorum.cli import kv, output
from kvorum.cli.behind_dashes import CommandWithCommand, command_behind
from kvorum.cli.completing import keys
from kvorum.cli.examples import examples
from kvorum.cli.settings import (
    EXIT_BAD_ARGUMENTS,
    EXIT_INTERRUPTED,
    Failure,
    Settings,
    current,
)

COMPACTED = "etcdserver: mvcc: required revision has been compacted"


@click.command(
    cls=CommandWithCommand,
    epilog=examples(
        "kvorum watch greeting",
        "kvorum watch --prefix /app/ --prev-kv --rev=42",
        "kvorum watch --prefix /app/ -- sh -c 'echo $ETCD_WATCH_KEY changed'",
        "kvorum watch /app/ --exec 'systemctl reload app'",
        "kvorum watch /app/ --batch --exec 'jq -r .kv.key >> changes'",
    ),
)
@click.argument("arguments", nargs=-1, metavar="KEY [RANGE_END] [-- COMMAND...]", shell_complete=keys(2))
@click.option("--prefix", is_flag=True, help="Watch all keys with this prefix.")
@click.option("--rev", default=0, help="Revision to start watching at.")
@click.option("--prev-kv", is_flag=True, help="Show the value before each change.")
@click.option("--progress-notify", is_flag=True, help="Show progress notifications of the server.")
@click.option("--exec", "exec_", metavar="CMD", help="Run a shell command for each change below KEY.")
@click.option("--batch", is_flag=True, help="With --exec: once for all changes of a revision.")
@click.option("--exact", is_flag=True, help="With --exec: KEY is one key, and no prefix.")
@click.option("--stop-on-failure", is_flag=True, help="With --exec: end when the command fails.")
def watch(
    arguments: kv.Arguments,
    prefix: bool,
    rev: int,
    prev_kv: bool,
    progress_notify: bool,
    exec_: str | None,
    **how: bool,
) -> None:
    """Watch a key, a range or a prefix, and print its changes.

    Behind -- may stand a command that is run for each change, with the change in ETCD_WATCH_KEY,
    ETCD_WATCH_VALUE, ETCD_WATCH_EVENT_TYPE and ETCD_WATCH_REVISION.

    With --exec nothing is printed, and KEY is a prefix. The command is run for one change after the other,
    and none is left out when a connection is lost or a member ends. It has what stands above,
    KVORUM_WATCH_KEY and KVORUM_WATCH_VALUE without quotes, and the value on its standard input; with --batch
    a line of JSON for each change there, and ETCD_WATCH_REVISION.
    """
    settings = current()
    command = command_behind()
    arguments = arguments or _arguments_from_environment()
    if not 1 <= len(arguments) <= 2:
        raise Failure("bad number of arguments", EXIT_BAD_ARGUMENTS)
    if exec_ is None and any(how.values()):
        raise Failure("--batch, --exact and --stop-on-failure are for --exec", EXIT_BAD_ARGUMENTS)
    if exec_ is not None:
        if command:
            raise Failure("--exec and a command behind -- exclude one another", EXIT_BAD_ARGUMENTS)
        from kvorum.cli import watch_exec

        key, *end = map(kv.to_bytes, arguments)
        exact, batch, stop = how["exact"] and not prefix, how["batch"], how["stop_on_failure"]
        watch_exec.run(
            settings,
            watch_exec.Wanted(key, end[0] if end else None, exact, rev, prev_kv, exec_, batch, stop),
        )
    output.refuse_table(settings)
    create = {
        **kv.key_range(arguments, prefix=prefix, from_key=False),
        "start_revision": str(rev),
        "prev_kv": prev_kv,
        "progress_notify": progress_notify,
    }
    with settings.gateway() as gateway:
        for response in gateway.stream("/v3/watch", {"create_request": create}):
            _handle(response, settings, command)
    raise Failure("watch is canceled by the server", EXIT_INTERRUPTED)


def _arguments_from_environment() -> kv.Arguments:
    for prefix in ("KVORUM", "ETCDCTL"):
        if key := os.environ.get(f"{prefix}_WATCH_KEY"):
            end = os.environ.get(f"{prefix}_WATCH_RANGE_END")
            return (key, end) if end else (key,)
    return ()


def _handle(response: dict[str, Any], settings: Settings, command: list[str]) -> None:
    if response.get("canceled"):
        reason = response.get("cancel_reason") or (COMPACTED if "compact_revision" in response else "")
        print(f"watch was canceled ({reason})", file=sys.stderr)
        raise Failure("watch is canceled by the server", EXIT_INTERRUPTED)
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
    # As in etcdctl, the whole response is shown before any command is run for it.
    for event in events if command else ():
        _run(command, event)


def _show_simple(event: dict[str, Any], settings: Settings) -> None:
    kind = event.get("type", "PUT").encode() + b"\n"
    previous = [event["prev_kv"]] if "prev_kv" in event else []
    output.write(kind + output.simple_kvs([*previous, event["kv"]], settings))


def _show_json(response: dict[str, Any]) -> None:
    shown = {
        "Header": output.as_go(response["header"]),
        "Events": output.as_go(response.get("events", [])),
        "CompactRevision": int(response.get("compact_revision", 0)),
        "Canceled": False,
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


def _run(command: list[str], event: dict[str, Any]) -> None:
    change = {
        "ETCD_WATCH_REVISION": str(event["kv"]["mod_revision"]),
        "ETCD_WATCH_EVENT_TYPE": output.go_quoted(event.get("type", "PUT").encode()),
        "ETCD_WATCH_KEY": output.go_quoted(output.raw(event["kv"], "key")),
        "ETCD_WATCH_VALUE": output.go_quoted(output.raw(event["kv"], "value")),
    }
    try:
        ran = subprocess.run(command, env={**os.environ, **change}, check=False)
    except OSError as error:
        raise Failure(f"command {command[0]!r} cannot be run: {error}") from None
    if ran.returncode:
        print(f"command {command!r} error (exit status {ran.returncode})", file=sys.stderr)
        raise Failure(f"exit status {ran.returncode}")
