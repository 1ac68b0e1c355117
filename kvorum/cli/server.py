"""``kvorum serve``: hands over to the server, once it is sure that it is ours."""

from __future__ import annotations

import sys

import click

from kvorum.server_packages import Shadowed, command_line


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run a server (see kvorum serve --help)."""
    try:
        server = command_line()
    except Shadowed as error:
        raise click.ClickException(
            f"{error}: run kvorum from another folder, or by its console command."
        ) from None
    sys.exit(server.main(list(arguments)))
