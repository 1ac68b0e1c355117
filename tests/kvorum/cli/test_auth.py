"""auth … against etcdctl, on real etcd; and all of it on a server that has no users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kvorum.cli.conftest import CommandLine
from tests.kvorum.cli.twins import Twins, twins

AS_ROOT = "--user=root:secret"


@pytest.fixture
def etcds(tmp_path: Path) -> Iterator[Twins]:
    with twins(tmp_path) as both:
        yield both


def test_it_is_turned_on_and_off_as_by_etcdctl(etcds: Twins) -> None:
    """With a user root, who is given the role root; whoever has no name is turned away from then on."""
    etcds.same_lines(f"""
    auth status
    auth status -w json
    auth status -w fields
    auth status -w table
    auth status more
    auth enable more
    auth disable more
    auth enable
    auth disable
    role list
    user add root:secret
    auth enable -w json
    auth status
    user list
    role add nobody
    {AS_ROOT} auth status
    {AS_ROOT} auth status -w json
    {AS_ROOT} auth enable
    {AS_ROOT} user get root --detail
    {AS_ROOT} role list
    --user=root:wrong auth disable
    auth disable
    {AS_ROOT} auth disable -w fields
    auth status
    """)
    enabled = etcds.same("auth", "enable")
    assert enabled == (0, "Authentication Enabled\n", "")
    assert etcds.same(AS_ROOT, "auth", "status").out.startswith("Authentication Status: true\n")


def test_a_role_root_that_root_does_not_have_is_not_made_again(etcds: Twins) -> None:
    """etcdctl says so, and stops; so do we."""
    etcds.same_lines("user add root:secret\nrole add root")
    assert etcds.same("auth", "enable") == (1, "", "Error: etcdserver: role name already exists")
    etcds.same("user", "grant-role", "root", "root")
    assert etcds.same("auth", "enable").code == 0


@pytest.mark.parametrize(
    "line",
    [
        "auth enable",
        "auth disable",
        "auth status",
        "user add a:b",
        "user delete a",
        "user get a",
        "user get a --detail",
        "user list",
        "user passwd a --interactive=false",
        "user grant-role a b",
        "user revoke-role a b",
        "role add a",
        "role delete a",
        "role get a",
        "role list",
        "role grant-permission a read k",
        "role revoke-permission a k",
    ],
)
def test_a_server_without_users_is_said_to_have_none(line: str, kvorum: CommandLine) -> None:
    """Ours, as yet."""
    said = "this server has no users and roles: etcd's has, Kvorum's has not yet"
    assert kvorum.fails(*line.split(), given="x") == said
