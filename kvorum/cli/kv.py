"""put, get, del, compaction: etcdctl's flags, each command's request, and its output."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from kvorum.cli import output
from kvorum.cli.completing import keys
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import (
    EXIT_BAD_ARGUMENTS,
    EXIT_BAD_FEATURE,
    Failure,
    Settings,
    current,
)
from kvorum.messages import b64, prefix_end

_SORT_TARGETS = {
    "": "KEY",
    "CREATE": "CREATE",
    "KEY": "KEY",
    "MODIFY": "MOD",
    "VALUE": "VALUE",
    "VERSION": "VERSION",
}
Arguments = tuple[str, ...]


def go_parse_error(text: str) -> str:
    """Go's words for an integer that is none."""
    return f"strconv.ParseInt: parsing {output.go_quoted(to_bytes(text))}: invalid syntax"


def go_integer(text: str, base: int) -> int:
    """An int64 as Go parses it. Raises ValueError in its words."""
    digits = "[0-9a-fA-F]+" if base == 16 else "[0-9]+"
    if not re.fullmatch(f"[+-]?{digits}", text):
        raise ValueError(go_parse_error(text))
    value = int(text, base)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(go_parse_error(text).replace("invalid syntax", "value out of range"))
    return value


def key_range(arguments: Arguments, *, prefix: bool, from_key: bool) -> dict[str, str]:
    """key and range_end for a command's arguments."""
    if prefix and from_key:
        raise Failure(
            "`--prefix` and `--from-key` cannot be set at the same time, choose one", EXIT_BAD_ARGUMENTS
        )
    key = to_bytes(arguments[0])
    if len(arguments) > 1:
        if prefix or from_key:
            raise Failure(
                "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
                EXIT_BAD_ARGUMENTS,
            )
        return {"key": b64(key), "range_end": b64(to_bytes(arguments[1]))}
    if prefix:
        return {"key": b64(key or b"\0"), "range_end": b64(prefix_end(key))}
    if from_key:
        return {"key": b64(key or b"\0"), "range_end": b64(b"\0")}
    return {"key": b64(key)}


# put


@click.command(
    cls=GoCommand,
    epilog=examples(
        "kvorum put greeting hello",
        "kvorum put /app/config < config.yaml",
        "kvorum put /app/owner me --lease=32695410dcc0ca06",
        "kvorum put greeting hi --prev-kv",
    ),
)
@click.argument("arguments", nargs=-1, metavar="KEY [VALUE]", shell_complete=keys())
@click.option("--lease", default="0", help="Lease ID (in hexadecimal) to attach to the key.")
@click.option("--prev-kv", is_flag=True, help="Return the previous key-value pair.")
@click.option("--ignore-value", is_flag=True, help="Keep the key's current value.")
@click.option("--ignore-lease", is_flag=True, help="Keep the key's current lease.")
def put(**options: Any) -> None:
    """Put a key into the store; VALUE comes from standard input when it is not given."""
    settings = current()
    output.refuse_table(settings)
    with settings.gateway() as gateway:
        show_put(gateway.call("/v3/kv/put", put_request(**options)), settings)


def put_request(
    arguments: Arguments, lease: str, prev_kv: bool, ignore_value: bool, ignore_lease: bool
) -> dict[str, Any]:
    if not arguments:
        raise Failure("put command needs 1 argument and input from stdin or 2 arguments", EXIT_BAD_ARGUMENTS)
    if ignore_value and len(arguments) > 1:
        raise Failure("put command needs only 1 argument when 'ignore-value' is set", EXIT_BAD_ARGUMENTS)
    value = b""
    if not ignore_value:
        value = to_bytes(arguments[1]) if len(arguments) > 1 else sys.stdin.buffer.read()
        if len(arguments) == 1 and not value:
            raise Failure(
                "put command needs 1 argument and input from stdin or 2 arguments", EXIT_BAD_ARGUMENTS
            )
    try:
        lease_id = go_integer(lease, 16)
    except ValueError as problem:
        raise Failure(f"bad lease ID ({problem}), expecting ID in Hex", EXIT_BAD_ARGUMENTS) from None
    return {
        "key": b64(to_bytes(arguments[0])),
        "value": b64(value),
        "lease": str(lease_id),
        "prev_kv": prev_kv,
        "ignore_value": ignore_value,
        "ignore_lease": ignore_lease,
    }


def show_put(response: dict[str, Any], settings: Settings) -> None:
    if settings.write_out == "json":
        output.write_json(output.as_go(response))
    elif settings.write_out == "fields":
        output.write_lines(output.put_fields(response))
    else:
        previous = [response["prev_kv"]] if "prev_kv" in response else []
        output.write(b"OK\n" + output.simple_kvs(previous, settings))


# get


@click.command(
    cls=GoCommand,
    epilog=examples(
        "kvorum get greeting",
        "kvorum get greeting --print-value-only",
        "kvorum get --prefix /app/ -o json",
        "kvorum get /app/a /app/m --limit=10",
        "kvorum get greeting --rev=42",
    ),
)
@click.argument("arguments", nargs=-1, metavar="KEY [RANGE_END]", shell_complete=keys(2))
@click.option("--consistency", default="l", help="Linearizable (l) or serializable (s).", show_default=True)
@click.option("--order", default="", help="Order of results: ASCEND or DESCEND.")
@click.option("--sort-by", default="", help="Sort target: CREATE, KEY, MODIFY, VALUE or VERSION.")
@click.option("--limit", default=0, help="Maximum number of results.")
@click.option("--prefix", is_flag=True, help="Get all keys with this prefix.")
@click.option("--from-key", is_flag=True, help="Get all keys at or after this key.")
@click.option("--rev", default=0, help="Read at this revision.")
@click.option("--keys-only", is_flag=True, help="Get only the keys.")
@click.option("--count-only", is_flag=True, help="Get only the count (with -w fields).")
@click.option("--print-value-only", is_flag=True, help="Print only values (with -w simple).")
@click.option("--min-create-rev", default=0, help="Least create revision.")
@click.option("--max-create-rev", default=0, help="Greatest create revision.")
@click.option("--min-mod-rev", default=0, help="Least modification revision.")
@click.option("--max-mod-rev", default=0, help="Greatest modification revision.")
def get(print_value_only: bool, **options: Any) -> None:
    """Get a key or a range of keys."""
    settings = current()
    request = get_request(**options)
    if options["count_only"] and settings.write_out != "fields":
        raise Failure("--count-only is only for `--write-out=fields`", EXIT_BAD_ARGUMENTS)
    if print_value_only and settings.write_out != "simple":
        raise Failure("print-value-only is only for `--write-out=simple`", EXIT_BAD_ARGUMENTS)
    output.refuse_table(settings)
    with settings.gateway() as gateway:
        show_get(gateway.call("/v3/kv/range", request), settings, value_only=print_value_only)


def get_request(
    arguments: Arguments,
    consistency: str,
    order: str,
    sort_by: str,
    limit: int,
    prefix: bool,
    from_key: bool,
    rev: int,
    keys_only: bool,
    count_only: bool,
    **bounds: int,
) -> dict[str, Any]:
    if not arguments:
        raise Failure(
            "get command needs one argument as key and an optional argument as range_end", EXIT_BAD_ARGUMENTS
        )
    if prefix and from_key:
        key_range(arguments, prefix=prefix, from_key=from_key)  # says what is wrong with that
    if keys_only and count_only:
        raise Failure(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one", EXIT_BAD_ARGUMENTS
        )
    if consistency not in ("l", "s"):
        raise Failure(f"unknown consistency flag {output.go_quoted(consistency.encode())}", EXIT_BAD_FEATURE)
    selected = key_range(arguments, prefix=prefix, from_key=from_key)
    if order.upper() not in ("", "ASCEND", "DESCEND"):
        raise Failure(f"bad sort order {order}", EXIT_BAD_FEATURE)
    if sort_by.upper() not in _SORT_TARGETS:
        raise Failure(f"bad sort target {sort_by}", EXIT_BAD_FEATURE)
    request = {
        **selected,
        "limit": limit,
        "revision": rev,
        "sort_order": order.upper() or "NONE",
        "sort_target": _SORT_TARGETS[sort_by.upper()],
        "serializable": consistency == "s",
        "keys_only": keys_only,
        "count_only": count_only,
    }
    if order.upper() == "ASCEND" and request["sort_target"] == "KEY":
        request["sort_order"] = "NONE"  # the natural order, as Go's client knows
    for name, value in bounds.items():
        bound, kind, _ = name.split("_")
        request[f"{bound}_{kind}_revision"] = value
    return request


def show_get(response: dict[str, Any], settings: Settings, *, value_only: bool = False) -> None:
    if settings.write_out == "json":
        output.write_json(output.as_go(response))
    elif settings.write_out == "fields":
        output.write_lines(output.range_fields(response))
    else:
        output.write(output.simple_kvs(response.get("kvs", []), settings, value_only=value_only))


# del


@click.command(
    cls=GoCommand,
    name="del",
    epilog=examples("kvorum del greeting", "kvorum del --prefix /app/old/ --prev-kv"),
)
@click.argument("arguments", nargs=-1, metavar="KEY [RANGE_END]", shell_complete=keys(2))
@click.option("--prefix", is_flag=True, help="Delete all keys with this prefix.")
@click.option("--from-key", is_flag=True, help="Delete all keys at or after this key.")
@click.option("--prev-kv", is_flag=True, help="Return the deleted key-value pairs.")
@click.option("--range", "range_", is_flag=True, help="Say that a range is meant (as etcd 3.6 asks).")
def delete(**options: Any) -> None:
    """Delete a key or a range of keys."""
    settings = current()
    request = delete_request(**options)
    output.refuse_table(settings)
    with settings.gateway() as gateway:
        show_delete(gateway.call("/v3/kv/deleterange", request), settings)


def delete_request(
    arguments: Arguments, prefix: bool, from_key: bool, prev_kv: bool, range_: bool
) -> dict[str, Any]:
    if not 1 <= len(arguments) <= 2:
        raise Failure(
            "del command needs one argument as key and an optional argument as range_end", EXIT_BAD_ARGUMENTS
        )
    return {**key_range(arguments, prefix=prefix, from_key=from_key), "prev_kv": prev_kv}


def show_delete(response: dict[str, Any], settings: Settings) -> None:
    if settings.write_out == "json":
        output.write_json(output.as_go(response))
    elif settings.write_out == "fields":
        output.write_lines(output.delete_fields(response))
    else:
        deleted = f"{response.get('deleted', 0)}\n".encode()
        output.write(deleted + output.simple_kvs(response.get("prev_kvs", []), settings))


# compaction


@click.command(
    cls=GoCommand,
    context_settings={"ignore_unknown_options": True},
    epilog=examples("kvorum compaction 1200", "kvorum compaction 1200 --physical"),
)
@click.argument("arguments", nargs=-1, metavar="REVISION")
@click.option("--physical", is_flag=True, help="Wait until the old revisions are physically removed.")
def compaction(arguments: Arguments, physical: bool) -> None:
    """Forget all history before a revision."""
    if len(arguments) != 1:
        raise Failure("compaction command needs 1 argument", EXIT_BAD_ARGUMENTS)
    try:
        revision = int(arguments[0])
    except ValueError:
        raise Failure(go_parse_error(arguments[0])) from None
    with current().gateway() as gateway:
        gateway.call("/v3/kv/compaction", {"revision": str(revision), "physical": physical})
    output.write(f"compacted revision {revision}\n")
