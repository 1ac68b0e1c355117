"""endpoint health, endpoint status and endpoint hashkv."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import click

from kvorum.cli import output
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.settings import Failure, Settings, current
from kvorum.errors import AuthenticationFailed, KvorumError, PermissionDenied
from kvorum.messages import b64


@click.group(
    cls=GoGroup,
    epilog=examples("kvorum endpoint health --cluster", "kvorum endpoint status --cluster -w table"),
)
@click.option("--cluster", is_flag=True, help="Ask every member of the cluster.")
def endpoint(cluster: bool) -> None:
    """Ask endpoints how they are."""
    if cluster:
        click.get_current_context().obj = of_whole_cluster(current())


def of_whole_cluster(settings: Settings) -> Settings:
    """With the client URLs of all members for endpoints."""
    with settings.gateway() as gateway:
        members = gateway.call("/v3/cluster/member/list", {})["members"]
    return settings.with_endpoints(tuple(url for member in members for url in member.get("clientURLs", [])))


def _cluster_flag(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """etcdctl takes --cluster behind the sub-command as well."""
    if value and ctx.parent is not None:
        with ctx.parent:
            endpoint.callback(True)  # type: ignore[misc]
        ctx.obj = ctx.parent.obj


_cluster = click.option(
    "--cluster",
    is_flag=True,
    expose_value=False,
    callback=_cluster_flag,
    help="Ask every member of the cluster.",
)


@endpoint.command(epilog=examples("kvorum endpoint health --cluster"))
@_cluster
def health() -> None:
    """Whether each endpoint can serve a linearizable read."""
    settings = current()
    results = [_health(settings, one) for one in settings.endpoints]
    _show_health(results, settings)
    if any(result["error"] for result in results):
        raise Failure("unhealthy cluster")


def _health(settings: Settings, address: str) -> dict[str, Any]:
    started = time.perf_counter()
    error = ""
    try:
        with settings.gateway(address) as gateway:
            gateway.call("/v3/kv/range", {"key": b64(b"health")})
    except PermissionDenied:
        pass  # it has made sure that it is up to date, and only then looked at who asks
    except KvorumError as failure:
        error = str(failure)
    took = (time.perf_counter() - started) * 1000
    return {"endpoint": address, "health": not error, "took": f"{took:.6f}ms", "error": error}


def _show_health(results: list[dict[str, Any]], settings: Settings) -> None:
    if settings.write_out == "json":
        output.write_json(
            [
                {name: value for name, value in one.items() if value != "" or name != "error"}
                for one in results
            ]
        )
    elif settings.write_out == "table":
        rows = [
            (one["endpoint"], output.go_bool(one["health"]), one["took"], one["error"]) for one in results
        ]
        output.write(output.table(("ENDPOINT", "HEALTH", "TOOK", "ERROR"), rows))
    elif settings.write_out == "fields":
        for one in results:
            output.write_lines(
                [
                    f'"Endpoint" : {output.go_quoted(one["endpoint"].encode())}',
                    f'"Health" : {output.go_bool(one["health"])}',
                    f'"Took" : {one["took"]}',
                    f'"Error" : {one["error"]}',
                    "",
                ]
            )
    else:
        for one in results:
            if one["error"]:
                print(
                    f"{one['endpoint']} is unhealthy: failed to commit proposal: {one['error']}",
                    file=sys.stderr,
                )
            else:
                output.write(
                    f"{one['endpoint']} is healthy: successfully committed proposal: took = {one['took']}\n"
                )


@endpoint.command(epilog=examples("kvorum endpoint status --cluster -w table"))
@_cluster
def status() -> None:
    """What each endpoint knows of itself and the cluster."""
    settings = current()
    found, failed = [], False
    for address in settings.endpoints:
        try:
            with settings.gateway(address) as gateway:
                found.append((address, gateway.call("/v3/maintenance/status", {})))
        except AuthenticationFailed:
            raise  # the others would not let him in either
        except KvorumError as error:
            print(f"Failed to get the status of endpoint {address} ({error})", file=sys.stderr)
            failed = True
    _show_status(found, settings)
    if failed:
        click.get_current_context().exit(1)


_COLUMNS = (
    "ENDPOINT",
    "ID",
    "VERSION",
    "DB SIZE",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
)


def _show_status(found: list[tuple[str, dict[str, Any]]], settings: Settings) -> None:
    if settings.write_out == "json":
        shown = [{"Endpoint": address, "Status": output.as_go(one)} for address, one in found]
        output.write_json(shown)
    elif settings.write_out == "fields":
        for address, one in found:
            output.write_lines(_status_fields(address, one))
    elif settings.write_out == "table":
        output.write(output.table(_COLUMNS, [_row(address, one) for address, one in found]))
    else:
        for address, one in found:
            output.write(", ".join(_row(address, one)) + "\n")


def _row(address: str, status: dict[str, Any]) -> tuple[str, ...]:
    member = status["header"]["member_id"]
    return (
        address,
        f"{int(member):x}",
        status["version"],
        human_bytes(int(status.get("dbSize", 0))),
        output.go_bool(status.get("leader") == member),
        output.go_bool(status.get("isLearner")),
        str(status.get("raftTerm", 0)),
        str(status.get("raftIndex", 0)),
        str(status.get("raftAppliedIndex", 0)),
        ", ".join(status.get("errors", [])),
    )


def _status_fields(address: str, status: dict[str, Any]) -> list[str]:
    return [
        *output.header_fields(status["header"]),
        f'"Version" : {output.go_quoted(status["version"].encode())}',
        f'"DBSize" : {status.get("dbSize", 0)}',
        f'"Leader" : {status.get("leader", 0)}',
        f'"IsLearner" : {output.go_bool(status.get("isLearner"))}',
        f'"RaftIndex" : {status.get("raftIndex", 0)}',
        f'"RaftTerm" : {status.get("raftTerm", 0)}',
        f'"RaftAppliedIndex" : {status.get("raftAppliedIndex", 0)}',
        f'"Errors" : [{" ".join(status.get("errors", []))}]',
        f'"Endpoint" : {output.go_quoted(address.encode())}',
        "",
    ]


@endpoint.command(epilog=examples("kvorum endpoint hashkv --cluster --rev=42"))
@_cluster
@click.option("--rev", default=0, help="The revision up to which history is hashed; 0 is the latest.")
def hashkv(rev: int) -> None:
    """The hash of each endpoint's history: members that have the same data have the same.

    Only at a revision that all have reached, and with the same compact revision, does it compare.
    """
    settings = current()
    found, last_error = [], ""
    for address in settings.endpoints:
        try:
            with settings.gateway(address) as gateway:
                found.append((address, gateway.call("/v3/maintenance/hashkv", {"revision": str(rev)})))
        except AuthenticationFailed:
            raise  # the others would not let him in either
        except KvorumError as error:
            print(f"Failed to get the hash of endpoint {address} ({error})", file=sys.stderr)
            last_error = str(error)
    _show_hashes(found, settings)
    if last_error:
        raise Failure(last_error)


def _show_hashes(found: list[tuple[str, dict[str, Any]]], settings: Settings) -> None:
    if settings.write_out == "json":
        output.write_json([{"Endpoint": address, "HashKV": output.as_go(one)} for address, one in found])
    elif settings.write_out == "fields":
        for address, one in found:
            shown = [f'"Endpoint" : {output.go_quoted(address.encode())}', f'"Hash" : {one.get("hash", 0)}']
            output.write_lines([*output.header_fields(one["header"]), *shown, ""])
    elif settings.write_out == "table":
        rows = [(address, str(one.get("hash", 0))) for address, one in found]
        output.write(output.table(("ENDPOINT", "HASH"), rows))
    else:
        output.write_lines([f"{address}, {one.get('hash', 0)}" for address, one in found])


def human_bytes(count: int) -> str:
    """A size as etcdctl shows it: 20 kB, 1.5 MB."""
    if count < 10:
        return f"{count} B"
    power = int(math.log(count, 1000))
    value = math.floor(count / 1000**power * 10 + 0.5) / 10
    unit = ["B", "kB", "MB", "GB", "TB", "PB"][power]
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
