"""``kvorum serve``: hands over to the server, once it is sure that it is ours."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

import kvorum

HOME = Path(kvorum.__file__).resolve().parent.parent


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run a server (see kvorum serve --help)."""
    sys.exit(_server_module().main(list(arguments)))


def _server_module() -> Any:
    # `python -m kvorum` in a folder with an `api` of its own would find that one first.
    sys.path.insert(0, str(HOME))
    module = importlib.import_module("api.flags")
    found = Path(str(module.__file__)).resolve().parent.parent
    if found != HOME:
        raise click.ClickException(
            f"the folder {found} has a package named api that hides Kvorum's own in {HOME}:"
            " run kvorum from another folder, or by its console command."
        )
    return module
