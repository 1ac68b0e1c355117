"""help: the same as --help, in etcdctl's other words."""

from __future__ import annotations

import click

from kvorum.cli.examples import examples


@click.command(name="help", epilog=examples("kvorum help", "kvorum help lease grant"))
@click.argument("words", nargs=-1, metavar="[COMMAND...]")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show what there is, or how a command is used."""
    ctx.find_root().command.main([*words, "--help"], prog_name="kvorum", standalone_mode=False)
