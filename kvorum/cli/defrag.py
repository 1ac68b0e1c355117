"""defrag: give the space of a database back that deleted and compacted keys have left in it."""

from __future__ import annotations

import sys

import click

from kvorum.cli import output
from kvorum.cli.absent import named_where_absent
from kvorum.cli.endpoint import of_whole_cluster
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.kv import Arguments
from kvorum.cli.settings import EXIT_ERROR, Settings, current
from kvorum.errors import KvorumError


@click.command(
    cls=GoCommand,
    epilog=examples("kvorum defrag", "kvorum defrag --cluster", "kvorum defrag --command-timeout=1m"),
)
@click.argument("ignored", nargs=-1, metavar="")
@click.option("--cluster", is_flag=True, help="Defragment every member of the cluster.")
def defrag(ignored: Arguments, cluster: bool) -> None:
    """Give unused space of the endpoints' databases back, one after the other.

    A member does nothing else while it does that: give a large one time with --command-timeout.
    """
    settings = of_whole_cluster(current()) if cluster else current()
    done = [_is_done(settings, address) for address in settings.endpoints]
    if not all(done):
        click.get_current_context().exit(EXIT_ERROR)


def defragment(settings: Settings, address: str) -> None:
    """Returns when it is done. Raises KvorumError."""
    with settings.gateway(address) as gateway, named_where_absent("defragmentation"):
        gateway.call("/v3/maintenance/defragment", {})


def _is_done(settings: Settings, address: str) -> bool:
    try:
        defragment(settings, address)
    except KvorumError as error:
        print(f"Failed to defragment etcd member[{address}] ({error})", file=sys.stderr)
        return False
    output.write(f"Finished defragmenting etcd member[{address}]\n")
    return True
