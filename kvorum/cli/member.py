"""member add, remove, update, promote, list; and move-leader."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import click

from kvorum.cli import output
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.kv import Arguments
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import (
    EXIT_BAD_ARGUMENTS,
    EXIT_BAD_FEATURE,
    EXIT_ERROR,
    Failure,
    Settings,
    current,
)
from kvorum.errors import ConnectionFailed

_PATH = "/v3/cluster/member/"
_HEX = re.compile(r"[0-9a-fA-F]+")
_SCHEMES = ("http", "https", "unix", "unixs")
_arguments = click.argument("arguments", nargs=-1, metavar="ID")
_peer_urls = click.option("--peer-urls", default="", help="The member's peer URLs, separated by commas.")


@click.group(
    cls=GoGroup,
    epilog=examples("kvorum member list -w table", "kvorum member add n4 --peer-urls=http://10.0.0.4:2380"),
)
def member() -> None:
    """See and change who belongs to the cluster."""


@member.command(
    epilog=examples(
        "kvorum member add n4 --peer-urls=http://10.0.0.4:2380",
        "kvorum member add n4 --peer-urls=http://10.0.0.4:2380 --learner",
    )
)
@click.argument("arguments", nargs=-1, metavar="NAME")
@_peer_urls
@click.option("--learner", is_flag=True, help="As a learner, which gets all data but does not vote.")
def add(arguments: Arguments, peer_urls: str, learner: bool) -> None:
    """Add a member, and print what to start it with."""
    settings = current()
    if not arguments:
        raise Failure("member name not provided", EXIT_BAD_ARGUMENTS)
    if len(arguments) > 1:
        raise Failure("too many arguments", EXIT_BAD_ARGUMENTS)
    urls = _urls(peer_urls)
    _refuse_unsupported(settings)
    with settings.gateway() as gateway:
        response = gateway.call(f"{_PATH}add", {"peerURLs": urls, "isLearner": learner})
    _show(response, settings, f"Member {_hex(response['member']['ID'])} added to cluster")
    if settings.write_out == "simple":
        _show_how_to_start(response, arguments[0])


def _show_how_to_start(response: dict[str, Any], name: str) -> None:
    new = response["member"]
    cluster = [
        f"{name if one['ID'] == new['ID'] else one.get('name', '')}={url}"
        for one in response["members"]
        for url in one.get("peerURLs", [])
    ]
    variables = {
        "NAME": name,
        "INITIAL_CLUSTER": ",".join(cluster),
        "INITIAL_ADVERTISE_PEER_URLS": ",".join(new.get("peerURLs", [])),
        "INITIAL_CLUSTER_STATE": "existing",
    }
    lines = [f"ETCD_{name}={output.go_quoted(to_bytes(value))}" for name, value in variables.items()]
    output.write_lines(["", *lines])


@member.command(epilog=examples("kvorum member remove 8e9e05c52164694d"))
@_arguments
def remove(arguments: Arguments) -> None:
    """Remove a member; its server then stops."""
    _change("remove", "removed from", _id(arguments))


@member.command(epilog=examples("kvorum member update 8e9e05c52164694d --peer-urls=http://10.0.0.5:2380"))
@_arguments
@_peer_urls
def update(arguments: Arguments, peer_urls: str) -> None:
    """Change where the others reach a member."""
    named = _id(arguments)
    _change("update", "updated in", named, peerURLs=_urls(peer_urls))


@member.command(epilog=examples("kvorum member promote 8e9e05c52164694d"))
@_arguments
def promote(arguments: Arguments) -> None:
    """Let a learner vote, once it has caught up with the leader."""
    _change("promote", "promoted in", _id(arguments))


def _change(operation: str, done: str, named: int, **more: object) -> None:
    settings = current()
    _refuse_unsupported(settings)
    with settings.gateway() as gateway:
        response = gateway.call(_PATH + operation, {"ID": str(named), **more})
    _show(response, settings, f"Member {_hex(named)} {done} cluster")


def _show(response: dict[str, Any], settings: Settings, sentence: str) -> None:
    if settings.write_out == "json":
        output.write_json(output.as_go(response))
    else:
        output.write_lines([f"{sentence} {_hex(response['header']['cluster_id'])}"])


@member.command(name="list", epilog=examples("kvorum member list -w table"))
@click.argument("ignored", nargs=-1, metavar="")
@click.option(
    "--consistency",
    default="l",
    help="Ask the leader (l), or what the endpoint itself knows (s).",
    show_default=True,
)
def list_(ignored: Arguments, consistency: str) -> None:
    """Show all members.

    The columns are ID, status, name, peer URLs, client URLs and whether it is a learner. A member
    is unstarted until it has reported its name.
    """
    settings = current()
    if consistency not in ("l", "s"):
        raise Failure(f"unknown consistency flag {output.go_quoted(to_bytes(consistency))}", EXIT_BAD_FEATURE)
    with settings.gateway() as gateway:
        response = gateway.call(f"{_PATH}list", {"linearizable": consistency == "l"})
    members = response.get("members", [])
    if settings.write_out == "json":
        output.write_json(_in_hex(response) if settings.hex else output.as_go(response))
    elif settings.write_out == "fields":
        output.write_lines(output.header_fields(response["header"]))
        for one in members:
            output.write_lines(_fields(one))
    elif settings.write_out == "table":
        output.write(output.table(_COLUMNS, [_row(one) for one in members]))
    else:
        output.write_lines([", ".join(_row(one)) for one in members])


_COLUMNS = ("ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{int(one['ID']):x}",
        "started" if one.get("name") else "unstarted",
        one.get("name", ""),
        ",".join(one.get("peerURLs", [])),
        ",".join(one.get("clientURLs", [])),
        output.go_bool(one.get("isLearner")),
    )


def _fields(one: dict[str, Any]) -> list[str]:
    return [
        f'"ID" : {one["ID"]}',
        f'"Name" : {output.go_quoted(to_bytes(one.get("name", "")))}',
        *(f'"PeerURL" : {output.go_quoted(to_bytes(url))}' for url in one.get("peerURLs", [])),
        *(f'"ClientURL" : {output.go_quoted(to_bytes(url))}' for url in one.get("clientURLs", [])),
        f'"IsLearner" : {output.go_bool(one.get("isLearner"))}',
        "",
    ]


def _in_hex(response: dict[str, Any]) -> dict[str, Any]:
    """etcdctl's other JSON: ids in hexadecimal, no learners, and a name of its own for the client URLs."""
    header = response["header"]
    ids = {name: f"{int(header[name]):x}" for name in ("cluster_id", "member_id")}
    return {
        "header": {**ids, "raft_term": int(header.get("raft_term", 0))},
        "members": [
            {
                "ID": f"{int(one['ID']):x}",
                "name": one.get("name", ""),
                "peerURLs": one.get("peerURLs"),
                "clientURLS": one.get("clientURLs"),
            }
            for one in response.get("members", [])
        ],
    }


@click.command(name="move-leader", epilog=examples("kvorum move-leader 8e9e05c52164694d"))
@_arguments
def move_leader(arguments: Arguments) -> None:
    """Make another member the leader. The endpoints must include the present leader."""
    settings = current()
    if len(arguments) != 1:
        raise Failure("move-leader command needs 1 argument", EXIT_BAD_ARGUMENTS)
    try:
        target = _parse_id(arguments[0])
    except ValueError as error:
        raise Failure(str(error), EXIT_BAD_ARGUMENTS) from None
    _refuse_unsupported(settings)
    address, leader = _find_leader(settings)
    with settings.gateway(address) as gateway:
        response = gateway.call("/v3/maintenance/transfer-leadership", {"targetID": str(target)})
    if settings.write_out == "json":
        output.write_json(response)
    else:
        output.write_lines([f"Leadership transferred from {leader:x} to {target:x}"])


def _find_leader(settings: Settings) -> tuple[str, int]:
    """The endpoint that leads, and its member's id. Endpoints that do not answer do not lead."""
    silent: ConnectionFailed | None = None
    for address in settings.endpoints:
        try:
            with settings.gateway(address) as gateway:
                status = gateway.call("/v3/maintenance/status", {})
        except ConnectionFailed as error:
            silent = error
            continue
        if status.get("leader") == status["header"]["member_id"]:
            return address, int(status["leader"])
    if silent is not None:
        raise silent
    raise Failure(f"no leader endpoint given at [{' '.join(settings.endpoints)}]", EXIT_BAD_ARGUMENTS)


# Arguments.


def _id(arguments: Arguments) -> int:
    if len(arguments) != 1:
        raise Failure("member ID is not provided", EXIT_BAD_ARGUMENTS)
    try:
        return _parse_id(arguments[0])
    except ValueError as error:
        raise Failure(f"bad member ID arg ({error}), expecting ID in Hex", EXIT_BAD_ARGUMENTS) from None


def _parse_id(text: str) -> int:
    """Raises ValueError in Go's words."""
    start = f"strconv.ParseUint: parsing {output.go_quoted(to_bytes(text))}"
    if not _HEX.fullmatch(text):
        raise ValueError(f"{start}: invalid syntax")
    value = int(text, 16)
    if value >= 1 << 64:
        raise ValueError(f"{start}: value out of range")
    return value


def _hex(value: int | str) -> str:
    return f"{int(value):16x}"


def _urls(text: str) -> list[str]:
    """Peer URLs as they are sent. The server checks them when a member is added, but etcd's does not
    when one is updated, so a slip is caught here, as etcdctl does."""
    if not text:
        raise Failure("member peer urls not provided", EXIT_BAD_ARGUMENTS)
    urls = [url.strip() for url in text.split(",")]
    for url in urls:
        _check_url(url)
    return urls


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Failure(f"{url}: {error}", EXIT_ERROR) from None
    if parts.scheme not in _SCHEMES:
        raise Failure(f"URL scheme must be http, https, unix, or unixs: {url}")
    if port is None and not parts.netloc.endswith(":"):
        raise Failure(f'URL address does not have the form "host:port": {url}')
    if parts.path:
        raise Failure(f"URL must not contain a path: {url}")


def _refuse_unsupported(settings: Settings) -> None:
    """Before anything is changed, unlike etcdctl, which says so when all is done."""
    if settings.write_out in ("table", "fields"):
        raise Failure(f"{settings.write_out} not supported as output format", EXIT_BAD_FEATURE)
