"""auth enable, disable, status: whether the server asks who somebody is."""

from __future__ import annotations

import click

from kvorum.cli import output
from kvorum.cli.auth_calls import Answer, ask, asking, call, exactly, tell
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.kv import Arguments
from kvorum.cli.settings import current
from kvorum.errors import ServerError
from kvorum.gateway import Gateway

ROOT = "root"
_NO_ROOT_ROLE = "etcdserver: root user does not have root role"
_no_arguments = click.argument("arguments", nargs=-1, metavar="")


@click.group(
    cls=GoGroup,
    epilog=examples("kvorum auth enable", "kvorum --user=root auth status"),
)
def auth() -> None:
    """Turn authentication on and off: whether the server asks everybody who he is."""


@auth.command(epilog=examples("kvorum auth enable"))
@_no_arguments
def enable(arguments: Arguments) -> None:
    """From now on, only users may do what their roles permit.

    There must be a user root. It is given the role root, which may do everything, if it has not got it.
    """
    exactly(0, arguments, "auth enable command does not accept any arguments")
    with asking(current()) as gateway:
        try:
            call(gateway, "enable")
        except ServerError as error:
            if error.message != _NO_ROOT_ROLE:
                raise
            _make_root_root(gateway)
            call(gateway, "enable")
    output.write_lines(["Authentication Enabled"])


def _make_root_root(gateway: Gateway) -> None:
    call(gateway, "role/add", name=ROOT)
    call(gateway, "user/grant", user=ROOT, role=ROOT)


@auth.command(epilog=examples("kvorum --user=root auth disable"))
@_no_arguments
def disable(arguments: Arguments) -> None:
    """From now on, everybody may do everything. Users and roles stay."""
    exactly(0, arguments, "auth disable command does not accept any arguments")
    ask("disable")
    output.write_lines(["Authentication Disabled"])


@auth.command(epilog=examples("kvorum --user=root auth status"))
@_no_arguments
def status(arguments: Arguments) -> None:
    """Whether the server asks, and how often users and roles were changed."""
    exactly(0, arguments, "auth status command does not accept any arguments")
    tell("status", _status)


def _status(answer: Answer) -> list[str]:
    enabled, revision = output.go_bool(answer.get("enabled")), answer.get("authRevision", 0)
    return [f"Authentication Status: {enabled}", f"AuthRevision: {revision}"]
