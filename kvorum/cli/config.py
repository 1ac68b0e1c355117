"""config: see and change the contexts of ``kvorum.cli.contexts``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kvorum.cli import contexts, output
from kvorum.cli.completing import context_names
from kvorum.cli.examples import examples
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, current

_REDACTED = "REDACTED"


_name = click.argument("name", shell_complete=context_names)


@click.group(
    epilog=examples(
        "kvorum config set-context prod --endpoints=10.0.0.1:2379,10.0.0.2:2379 --user=alice",
        "kvorum config use-context prod",
        "kvorum --context=staging get --prefix /app/",
    )
)
def config() -> None:
    """Contexts: clusters and users under a name.

    A context says what neither a flag nor the environment says. They stand in $KVORUM_CONFIG or
    ~/.config/kvorum/config.yaml, which only its owner may read.
    """


@config.command(
    name="set-context",
    epilog=examples(
        "kvorum config set-context prod --endpoints=10.0.0.1:2379,10.0.0.2:2379 --cacert=ca.pem",
        "kvorum config set-context prod --user=alice:secret",
        "kvorum config set-context prod --user=",
    ),
)
@_name
def set_context(name: str) -> None:
    """Make a context, or change what it says, by the global flags given with this command.

    An empty flag takes it out again. Paths are kept as absolute ones.
    """
    if not name:
        raise Failure("a context's name is empty", EXIT_BAD_ARGUMENTS)
    given = _given_flags()
    if not given:
        flags = ", ".join(f"--{flag}" for flag in contexts.FIELDS)
        raise Failure(f"nothing to set: expected one or more of {flags}", EXIT_BAD_ARGUMENTS)
    with contexts.changing() as known:
        done = "modified" if name in known.by_name else "created"
        changed = {**known.by_name.get(name, {}), **given}
        if "user" in given and "password" not in given:
            changed.pop("password", None)  # it was the old user's
        known.by_name[name] = {flag: value for flag, value in changed.items() if value not in ("", False)}
    output.write_lines([f'Context "{name}" {done}.'])


def _given_flags() -> dict[str, Any]:
    """The global flags of this command line that a context may say."""
    root = click.get_current_context().find_root()

    def is_given(flag: str) -> bool:
        return root.get_parameter_source(flag.replace("-", "_")) is ParameterSource.COMMANDLINE

    for flag in filter(is_given, contexts.NOT_KEPT):
        raise Failure(f"a context does not keep --{flag}", EXIT_BAD_ARGUMENTS)
    given = {}
    for flag in filter(is_given, contexts.FIELDS):
        value = root.params[flag.replace("-", "_")]
        given[flag] = str(Path(value).absolute()) if flag in contexts.PATHS and value else value
    return given


@config.command(name="use-context", epilog=examples("kvorum config use-context prod"))
@_name
def use_context(name: str) -> None:
    """Have all commands use a context that are not told another."""
    with contexts.changing() as known:
        known[name]  # refuses one that is not there
        known.current = name
    output.write_lines([f'Switched to context "{name}".'])


@config.command(
    name="get-contexts", epilog=examples("kvorum config get-contexts", "kvorum config get-contexts -o json")
)
def get_contexts() -> None:
    """Show all contexts; the one in use is marked."""
    known, settings = contexts.load(), current()
    found = [
        {
            "current": name == known.current,
            "name": name,
            "endpoints": context.get("endpoints", ""),
            "user": context.get("user", "").partition(":")[0],
        }
        for name, context in sorted(known.by_name.items())
    ]
    if settings.write_out == "json":
        output.write_json(found)
        return
    headers = ("CURRENT", "NAME", "ENDPOINTS", "USER")
    rows = [("*" if one["current"] else "", one["name"], one["endpoints"], one["user"]) for one in found]
    if settings.write_out == "table":
        output.write(output.table(headers, rows))
    else:
        output.write_lines(_columns([headers, *rows]))


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


@config.command(name="current-context", epilog=examples("kvorum config current-context"))
def current_context() -> None:
    """Print the name of the context in use."""
    name = contexts.load().current
    if not name:
        raise Failure("no context is in use: choose one with kvorum config use-context")
    output.write_lines([name])


@config.command(name="delete-context", epilog=examples("kvorum config delete-context staging"))
@_name
def delete_context(name: str) -> None:
    """Forget a context. If it is in use, none is from then on."""
    with contexts.changing() as known:
        known[name]  # refuses one that is not there
        del known.by_name[name]
        if known.current == name:
            known.current = ""
    output.write_lines([f'Context "{name}" deleted.'])


@config.command(epilog=examples("kvorum config view", "kvorum config view --raw -o json"))
@click.option("--raw", is_flag=True, help="Show passwords too.")
def view(raw: bool) -> None:
    """Show the whole file, without passwords."""
    known = contexts.load()
    shown = {name: context if raw else _without_passwords(context) for name, context in known.by_name.items()}
    content = {"current-context": known.current, "contexts": shown}
    if current().write_out == "json":
        output.write_json(content)
    else:
        output.write_yaml(content)


def _without_passwords(context: contexts.Context) -> contexts.Context:
    shown = dict(context)
    if "password" in shown:
        shown["password"] = _REDACTED
    name, colon, _ = shown.get("user", "").partition(":")
    if colon:  # also beside a password: it may be one that was given before
        shown["user"] = f"{name}:{_REDACTED}"
    return shown
