"""make-mirror: the keys of one cluster in another one, kept up to date."""

from __future__ import annotations

from typing import Any

import click

from kvorum.cli import mirroring, passwords
from kvorum.cli.completing import files
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.kv import Arguments
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, Settings, current
from kvorum.client import Client
from kvorum.tls import Tls


@click.command(
    cls=GoCommand,
    name="make-mirror",
    epilog=examples(
        "kvorum make-mirror 10.1.0.1:2379",
        "kvorum make-mirror 10.1.0.1:2379 --prefix=/app/ --dest-prefix=/mirror/app/",
        "kvorum make-mirror https://backup:2379 --dest-cacert=ca.pem --dest-user=mirror:secret",
    ),
)
@click.argument("arguments", nargs=-1, metavar="DEST")
@click.option("--prefix", default="", help="Mirror only keys with this prefix.")
@click.option("--rev", type=click.IntRange(min=0), default=0, help="Copy nothing, follow from this revision.")
@click.option("--max-txn-ops", type=click.IntRange(min=1), default=128, help="Keys in one transaction.")
@click.option("--dest-prefix", default="", help="The prefix there, in place of the one here.")
@click.option("--no-dest-prefix", is_flag=True, help="Without the prefix there.")
@click.option("--dest-cert", default="", shell_complete=files, help="Client certificate for the destination.")
@click.option("--dest-key", default="", shell_complete=files, help="Key of that certificate.")
@click.option("--dest-cacert", default="", shell_complete=files, help="CA of the destination's certificate.")
@click.option(
    "--dest-insecure-transport",
    is_flag=True,
    flag_value=True,
    default=True,
    help="With =false: https where DEST does not say.",
)
@click.option(
    "--dest-user", default="", help="NAME[:PASSWORD] there; a password that is missing is asked for."
)
@click.option("--dest-password", default="", help="Password there; --dest-user is then the name alone.")
def make_mirror(arguments: Arguments, **flags: Any) -> None:
    """Copy all keys, or those with a prefix, to the cluster at DEST, and follow their changes.

    It goes on until it is stopped, and survives the loss of members on both sides. Every 30 seconds it prints
    how many keys it has put or deleted. Leases are not mirrored, nor are keys deleted there that nobody has
    deleted here while it runs. Nobody else should write there what it writes.
    """
    if len(arguments) != 1:
        raise Failure("make-mirror takes one destination argument", EXIT_BAD_ARGUMENTS)
    if flags["no_dest_prefix"] and flags["dest_prefix"]:
        raise Failure(
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
            EXIT_BAD_ARGUMENTS,
        )
    prefix = to_bytes(flags["prefix"])
    there = b"" if flags["no_dest_prefix"] else to_bytes(flags["dest_prefix"]) or prefix
    settings = current()
    with settings.client() as source, _destination(settings, arguments[0], flags) as destination:
        copying = mirroring.Mirroring(source, destination, prefix, there, flags["max_txn_ops"])
        with mirroring.reports(copying):
            copying.run(flags["rev"])


def _destination(settings: Settings, address: str, flags: dict[str, Any]) -> Client:
    tls = Tls(flags["dest_cacert"], flags["dest_cert"], flags["dest_key"])
    user, password = flags["dest_user"], flags["dest_password"]
    if user:
        user, password = passwords.of_user(user, password, "Destination Password: ")
    return Client(
        address,
        timeout=settings.command_timeout,
        dial_timeout=settings.dial_timeout,
        tls=None if flags["dest_insecure_transport"] and tls == Tls() else tls,
        user=user,
        password=password,
        keepalive=settings.keepalive,
    )
