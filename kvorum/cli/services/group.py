"""The commands of ``kvorum service``."""

from __future__ import annotations

import click

from kvorum.cli.examples import examples
from kvorum.cli.lazy import LazyGroup

_TABLE = {
    "register": ("kvorum.cli.services.registering:register", "Keep a service on the list while it is well."),
    "list": ("kvorum.cli.services.listing:list_", "All services."),
    "show": ("kvorum.cli.services.listing:show", "All that is known of a service's instances."),
    "resolve": ("kvorum.cli.services.listing:resolve", "The addresses of a service, or one of them."),
    "watch": ("kvorum.cli.services.listing:watch", "Who comes, who goes and who changes."),
    "deregister": ("kvorum.cli.services.listing:deregister", "Take an instance off the list."),
}


@click.group(
    cls=LazyGroup,
    table=_TABLE,
    topics={"Commands": list(_TABLE)},
    epilog=examples(
        "kvorum service register web --addr 10.0.0.1:8080 -- ./web", "kvorum service resolve web --one"
    ),
)
def service() -> None:
    """Register services, find them, follow who comes and goes."""
