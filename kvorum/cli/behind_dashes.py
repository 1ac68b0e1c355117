"""Commands whose arguments end at ``--``: what stands behind it is a command to run."""

from __future__ import annotations

import click

from kvorum.cli.go_switches import GoCommand

_BEHIND = "kvorum.behind_dashes"


class CommandWithCommand(GoCommand):
    """Keeps what stands behind ``--`` from being taken for arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[_BEHIND] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)


def command_behind() -> list[str]:
    """Of the command being run; empty without one."""
    return behind_dashes(click.get_current_context()) or []


def behind_dashes(ctx: click.Context) -> list[str] | None:
    """None where there is no ``--``."""
    command: list[str] | None = ctx.meta.get(_BEHIND)
    return command
