"""help: the same as --help, in etcdctl's other words."""

from __future__ import annotations

import click

from kvorum.cli.examples import examples
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure


@click.command(name="help", epilog=examples("kvorum help", "kvorum help lease grant"))
@click.argument("words", nargs=-1, metavar="[COMMAND...]")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show what there is, or how a command is used."""
    assert ctx.parent is not None
    shown, command = ctx.parent, ctx.parent.command
    for word in words:
        named = command.get_command(shown, word) if isinstance(command, click.Group) else None
        if named is None:
            raise Failure(f"there is no command {' '.join(words)!r}", EXIT_BAD_ARGUMENTS)
        command, shown = named, click.Context(named, info_name=word, parent=shown)
    click.echo(command.get_help(shown))
