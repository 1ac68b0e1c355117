"""What a watch is of: its keys, from the command line or the environment, and its request."""

from __future__ import annotations

import os
from typing import Any

from kvorum.cli import output
from kvorum.cli.kv import Arguments, key_range
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure


class BadRange(Failure):
    """Keys that cannot be watched together."""


def from_environment() -> Arguments:
    """Key and end of KVORUM_WATCH_KEY and KVORUM_WATCH_RANGE_END, or as etcdctl has them; empty without.
    Raises Failure for an end alone."""
    for tool in ("KVORUM", "ETCDCTL"):
        key, end = (os.environ.get(f"{tool}_WATCH_{name}", "") for name in ("KEY", "RANGE_END"))
        if end and not key:
            shown = output.go_quoted(to_bytes(end))
            raise Failure(
                f"{tool}_WATCH_KEY is empty but got {tool}_WATCH_RANGE_END={shown}", EXIT_BAD_ARGUMENTS
            )
        if key:
            return (key, end) if end else (key,)
    return ()


def chosen(arguments: Arguments, environment: Arguments, behind_dashes: list[str] | None) -> Arguments:
    """The arguments, or what the environment says. Raises Failure where that is not one or two keys."""
    if behind_dashes == []:
        raise Failure("bad number of arguments (found separator --, but no commands)", EXIT_BAD_ARGUMENTS)
    if arguments and environment:
        raise Failure("bad number of arguments (found conflicting environment key)", EXIT_BAD_ARGUMENTS)
    keys = arguments or environment
    if not 1 <= len(keys) <= 2:
        raise Failure("bad number of arguments", EXIT_BAD_ARGUMENTS)
    return keys


def create_request(
    keys: Arguments, *, prefix: bool, rev: int, prev_kv: bool, progress_notify: bool
) -> dict[str, Any]:
    """Raises BadRange."""
    if prefix and len(keys) == 2:
        raise BadRange("`range_end` and `--prefix` are mutually exclusive", EXIT_BAD_ARGUMENTS)
    return {
        **key_range(keys, prefix=prefix, from_key=False),
        "start_revision": str(rev),
        "prev_kv": prev_kv,
        "progress_notify": progress_notify,
    }
