"""role add, delete, get, list, grant-permission, revoke-permission."""

from __future__ import annotations

from typing import Any

import click

from kvorum.cli import output, permissions
from kvorum.cli.auth_calls import ask, change, exactly
from kvorum.cli.completing import by_position, keys, role_names, words
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.kv import Arguments
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, current
from kvorum.messages import b64

_role = click.argument("arguments", nargs=-1, metavar="ROLE", shell_complete=by_position(role_names))
_prefix = click.option("--prefix", is_flag=True, help="For all keys that begin with KEY.")
_from_key = click.option("--from-key", is_flag=True, help="For KEY and all keys behind it, by their bytes.")


@click.group(
    cls=GoGroup,
    epilog=examples(
        "kvorum role add writer",
        "kvorum role grant-permission writer readwrite /app/ --prefix",
        "kvorum role get writer",
    ),
)
def role() -> None:
    """Make roles: who has one may read or write certain keys."""


@role.command(epilog=examples("kvorum role add writer"))
@click.argument("arguments", nargs=-1, metavar="ROLE")
def add(arguments: Arguments) -> None:
    """Make a role, which permits nothing yet."""
    exactly(1, arguments, "role add command requires role name as its argument")
    name = arguments[0]
    change("role/add", f"Role {name} created", name=name)


@role.command(epilog=examples("kvorum role delete writer"))
@_role
def delete(arguments: Arguments) -> None:
    """Delete a role, and take it from all users."""
    exactly(1, arguments, "role delete command requires role name as its argument")
    name = arguments[0]
    change("role/delete", f"Role {name} deleted", role=name)


@role.command(epilog=examples("kvorum role get writer"))
@_role
def get(arguments: Arguments) -> None:
    """What a role permits."""
    exactly(1, arguments, "role get command requires role name as its argument")
    name, settings = arguments[0], current()
    output.refuse_table(settings)
    permissions.show(name, ask("role/get", role=name), settings)


@role.command(name="list", epilog=examples("kvorum role list"))
@click.argument("arguments", nargs=-1, metavar="")
def list_(arguments: Arguments) -> None:
    """All roles."""
    exactly(0, arguments, "role list command requires no arguments")
    settings = current()
    output.refuse_table(settings)
    answer = ask("role/list")
    roles = answer.get("roles", [])
    if settings.write_out == "json":
        output.write_json(output.as_go(answer))
    elif settings.write_out == "fields":
        quoted = "".join(f" {output.go_quoted(to_bytes(name))}" for name in roles)
        output.write_lines([*output.header_fields(answer["header"]), f'"Roles" :{quoted}'])
    else:
        output.write_lines(roles)


@role.command(
    name="grant-permission",
    epilog=examples(
        "kvorum role grant-permission writer readwrite /app/ --prefix",
        "kvorum role grant-permission reader read /a /b     # from /a to just before /b",
        "kvorum role grant-permission reader read '' --prefix     # everything",
    ),
)
@click.argument(
    "arguments",
    nargs=-1,
    metavar="ROLE read|write|readwrite KEY [RANGE_END]",
    shell_complete=by_position(role_names, words("read", "write", "readwrite"), keys(4), keys(4)),
)
@_prefix
@_from_key
def grant_permission(arguments: Arguments, prefix: bool, from_key: bool) -> None:
    """Permit a role to read or write a key, or a range of keys."""
    if len(arguments) < 3:
        raise Failure(
            "role grant command requires role name, permission type, and key [endkey] as its argument",
            EXIT_BAD_ARGUMENTS,
        )
    name, wanted = arguments[:2]
    if wanted.upper() not in permissions.KINDS:
        raise Failure(f"invalid permission type: {wanted}", EXIT_BAD_ARGUMENTS)
    key, end = permissions.key_range(arguments[2:], prefix=prefix, from_key=from_key)
    granted: dict[str, Any] = {"permType": wanted.upper(), "key": b64(key), "range_end": b64(end)}
    change("role/grant", f"Role {name} updated", name=name, perm=granted)


@role.command(
    name="revoke-permission",
    epilog=examples(
        "kvorum role revoke-permission writer /app/ --prefix",
        "kvorum role revoke-permission reader /a /b",
    ),
)
@click.argument(
    "arguments",
    nargs=-1,
    metavar="ROLE KEY [RANGE_END]",
    shell_complete=by_position(role_names, keys(3), keys(3)),
)
@_prefix
@_from_key
def revoke_permission(arguments: Arguments, prefix: bool, from_key: bool) -> None:
    """Take a permission from a role: one that it was granted with just this key or range."""
    if len(arguments) < 2:
        raise Failure(
            "role revoke-permission command requires role name and key [endkey] as its argument",
            EXIT_BAD_ARGUMENTS,
        )
    name = arguments[0]
    key, end = permissions.key_range(arguments[1:], prefix=prefix, from_key=from_key)
    what = permissions.revoked(to_bytes(arguments[1]), end)
    done = b"Permission of %b is revoked from role %b" % (what, to_bytes(name))
    change("role/revoke", done, role=name, key=b64(key), range_end=b64(end))
