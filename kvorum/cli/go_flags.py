"""Switches as Go's flags are written: ``--prefix=true``, ``--prefix=false``, beside ``--prefix``."""

from __future__ import annotations

from collections.abc import Sequence

import click

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def plain(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, which may be a group, with its switches and those of the commands named in
    them in click's notation. What is no truth value is left to click, which refuses it."""
    switches = _switches(command)
    found: list[str] = []
    for at, word in enumerate(arguments):
        if word == "--":
            return [*found, *arguments[at:]]
        name, equals, value = word.partition("=")
        if equals and name in switches and value in _TRUE | _FALSE:
            # The last one counts, so an earlier one is taken back.
            spellings = {*switches[name].opts, *switches[name].secondary_opts}
            found = [earlier for earlier in found if earlier not in spellings]
            found += [name] if value in _TRUE else switches[name].secondary_opts[:1]
            continue
        found.append(word)
        if isinstance(command, click.Group) and not word.startswith("-"):
            named = command.get_command(click.Context(command), word)
            if named is not None:
                command = named
                switches.update(_switches(command))
    return found


def _switches(command: click.Command) -> dict[str, click.Option]:
    options = [param for param in command.params if isinstance(param, click.Option) and param.is_flag]
    return {name: option for option in options for name in option.opts}
