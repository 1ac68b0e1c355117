"""The root command: global flags, and commands that are imported only when they are used."""

from __future__ import annotations

import importlib

import click

_COMMANDS = {"serve": "kvorum.cli.server:serve"}


class LazyGroup(click.Group):
    """``kvorum --help`` must not import what only one command needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup)
def main() -> None:
    """A client of Kvorum and etcd, and Kvorum's server."""
