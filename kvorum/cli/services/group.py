"""The commands of ``kvorum service``."""

from __future__ import annotations

import click

from kvorum.cli.services import listing, registering


@click.group()
def service() -> None:
    """Register services, find them, follow who comes and goes."""


for command in (
    registering.register,
    listing.list_,
    listing.show,
    listing.resolve,
    listing.watch,
    listing.deregister,
):
    service.add_command(command)
