"""user add, delete, get, list, passwd, grant-role, revoke-role."""

from __future__ import annotations

import click

from kvorum.cli import output, passwords, permissions
from kvorum.cli.auth_calls import asking, call, change, exactly, tell
from kvorum.cli.completing import by_position, role_names, user_names
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.kv import Arguments
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, Settings, current

_user = click.argument("arguments", nargs=-1, metavar="USER", shell_complete=by_position(user_names))
_user_and_role = click.argument(
    "arguments", nargs=-1, metavar="USER ROLE", shell_complete=by_position(user_names, role_names)
)
_interactive = click.option(
    "--interactive/--no-interactive",
    default=True,
    help="Ask for the password, twice; otherwise it is the first word on standard input.",
)


@click.group(
    cls=GoGroup,
    epilog=examples("kvorum user add alice", "kvorum user grant-role alice writer", "kvorum user list"),
)
def user() -> None:
    """Make users, and give them roles."""


@user.command(
    epilog=examples(
        "kvorum user add alice",
        "kvorum user add alice --interactive=false < password-file",
        "kvorum user add alice --no-password     # known by its certificate's common name only",
    )
)
@click.argument("arguments", nargs=-1, metavar="USER[:PASSWORD]")
@_interactive
@click.option("--new-user-password", default="", help="The password. Others can see it while this runs.")
@click.option("--no-password", is_flag=True, help="A user who is known by a certificate only.")
def add(arguments: Arguments, interactive: bool, new_user_password: str, no_password: bool) -> None:
    """Make a user. Its password is asked for, if it is not given."""
    exactly(1, arguments, "user add command requires user name as its argument")
    output.refuse_table(current())  # before anybody types a password
    name, password = arguments[0], new_user_password
    if no_password:
        password = ""
    elif not password:
        name, colon, password = arguments[0].partition(":")
        if colon and not name:
            raise Failure("empty user name is not allowed", EXIT_BAD_ARGUMENTS)
        if not colon:
            password = passwords.new(name) if interactive else passwords.from_stdin()
    options = {"no_password": no_password}
    change("user/add", f"User {name} created", name=name, password=password, options=options)


@user.command(epilog=examples("kvorum user delete alice"))
@_user
def delete(arguments: Arguments) -> None:
    """Delete a user."""
    exactly(1, arguments, "user delete command requires user name as its argument")
    name = arguments[0]
    change("user/delete", f"User {name} deleted", name=name)


@user.command(epilog=examples("kvorum user get alice", "kvorum user get alice --detail"))
@_user
@click.option("--detail", is_flag=True, help="Also what each of the roles permits.")
def get(arguments: Arguments, detail: bool) -> None:
    """The roles of a user."""
    exactly(1, arguments, "user get command requires user name as its argument")
    name = arguments[0]
    if detail:
        _show_in_detail(name, current())
    else:
        tell(
            "user/get", lambda got: [f"User: {name}", " ".join(["Roles:", *got.get("roles", [])])], name=name
        )


def _show_in_detail(name: str, settings: Settings) -> None:
    """In all formats the name comes first, as it is, and in front of each role an empty line."""
    with asking(settings) as gateway:
        roles = call(gateway, "user/get", name=name).get("roles", [])
        output.write_lines([f"User: {name}"])
        for role in roles:
            output.write("\n")
            permissions.show(role, call(gateway, "role/get", role=role), settings)


@user.command(name="list", epilog=examples("kvorum user list"))
@click.argument("arguments", nargs=-1, metavar="")
def list_(arguments: Arguments) -> None:
    """All users."""
    exactly(0, arguments, "user list command requires no arguments")
    tell("user/list", lambda got: got.get("users", []))


@user.command(
    epilog=examples(
        "kvorum user passwd alice", "kvorum user passwd alice --interactive=false < password-file"
    )
)
@_user
@_interactive
def passwd(arguments: Arguments, interactive: bool) -> None:
    """Change the password of a user."""
    exactly(1, arguments, "user passwd command requires user name as its argument")
    output.refuse_table(current())
    name = arguments[0]
    password = passwords.new(name) if interactive else passwords.from_stdin()
    change("user/changepw", "Password updated", name=name, password=password)


@user.command(name="grant-role", epilog=examples("kvorum user grant-role alice writer"))
@_user_and_role
def grant_role(arguments: Arguments) -> None:
    """Let a user do what a role permits."""
    exactly(2, arguments, "user grant command requires user name and role name as its argument")
    name, role = arguments
    change("user/grant", f"Role {role} is granted to user {name}", user=name, role=role)


@user.command(name="revoke-role", epilog=examples("kvorum user revoke-role alice writer"))
@_user_and_role
def revoke_role(arguments: Arguments) -> None:
    """Take a role from a user."""
    exactly(2, arguments, "user revoke-role requires user name and role name as its argument")
    name, role = arguments
    change("user/revoke", f"Role {role} is revoked from user {name}", name=name, role=role)
