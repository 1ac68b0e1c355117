"""env: a command with its environment from keys."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence

import click

from kvorum.cli import completing
from kvorum.cli.behind_dashes import CommandWithCommand, command_behind
from kvorum.cli.data import reading, records
from kvorum.cli.data.environment import variables
from kvorum.cli.data.keys import directory, shown
from kvorum.cli.data.nesting import BadContent
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_text
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, current

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # what shells end with


@click.command(
    cls=CommandWithCommand,
    epilog=examples(
        "kvorum env /app -- ./server --port 8080",
        'eval "$(kvorum env /app)"',
    ),
)
@click.argument("prefix", metavar="PREFIX [-- COMMAND...]", shell_complete=completing.keys())
@click.option("--name-prefix", default="", help="Begin each variable's name with this.")
@click.option("--rev", default=0, help="As of this revision.")
def env(prefix: str, name_prefix: str, rev: int) -> None:
    """Run a command with the keys under PREFIX in its environment, or print them for a shell.

    /app/db/host under /app is DB_HOST: letters become capitals, and all but letters, digits and underscores
    become underscores. Two keys of one name are refused. Keys win over variables that are set already. The
    command takes the place of kvorum, so its exit code is its own; 127 says that there is none of that name,
    126 that it cannot be run.
    """
    settings = current()
    if not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", name_prefix):
        raise Failure(
            f"--name-prefix is {name_prefix!r}: expected letters, digits and underscores, and no digit at the"
            " beginning",
            EXIT_BAD_ARGUMENTS,
        )
    command = command_behind()
    under = directory(prefix)
    with settings.client() as client:
        found = reading.under(client, under, revision=rev).values()
    if not found:
        click.echo(f"Warning: there is no key under {shown(under) or 'any prefix'}", err=True)
    values = environment_of({key.removeprefix(under): value for key, value in found.items()}, name_prefix)
    if command:
        _become(command, values)
    rows = [{"name": name, "value": value} for name, value in values.items()]
    if settings.write_out == "json":
        records.write_document(values)
    else:
        records.show(settings, rows, ("name", "value"), lambda: _exports(values))


def environment_of(found: dict[bytes, bytes], name_prefix: str) -> dict[str, bytes]:
    """Variables and values. Raises Failure for what no environment can hold."""
    keys = {to_text(key): key for key in found}
    try:
        names = variables(keys, name_prefix)
    except BadContent as problem:
        raise Failure(str(problem)) from None
    for name, key in names.items():
        if b"\0" in found[keys[key]]:
            raise Failure(f"the value of {shown(keys[key])} has a NUL in it, which {name} cannot hold")
    return {name: found[keys[key]] for name, key in names.items()}


def _become(command: Sequence[str], values: dict[str, bytes]) -> None:
    """The command takes this process; returns only by raising."""
    environment = {**os.environb, **{name.encode(): value for name, value in values.items()}}
    sys.stdout.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), environment)
    except FileNotFoundError:
        raise Failure(f"{command[0]}: there is no such command", _NOT_FOUND) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Failure(f"{command[0]} cannot be run: {reason}", _NOT_EXECUTABLE) from None


def _exports(values: dict[str, bytes]) -> str:
    lines = []
    for name, value in values.items():
        lines.append(f"export {name}={shlex.quote(value.decode('utf-8', 'surrogateescape'))}\n")
    return "".join(lines)
