"""alarm list and alarm disarm."""

from __future__ import annotations

from typing import Any

import click

from kvorum.cli import output
from kvorum.cli.absent import named_where_absent
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoGroup
from kvorum.cli.kv import Arguments
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, Settings, current
from kvorum.gateway import Gateway

_PATH = "/v3/maintenance/alarm"
_NUMBERS = {"NONE": 0, "NOSPACE": 1, "CORRUPT": 2}
_arguments = click.argument("arguments", nargs=-1, metavar="")


@click.group(cls=GoGroup, epilog=examples("kvorum alarm list", "kvorum alarm disarm"))
def alarm() -> None:
    """See and end alarms: of members that have no space left, or whose data is corrupt."""


@alarm.command(name="list", epilog=examples("kvorum alarm list", "kvorum alarm list -w json"))
@_arguments
def list_(arguments: Arguments) -> None:
    """Show all alarms. While there is one of NOSPACE, the cluster takes only reads and deletions."""
    settings = _settings("list", arguments)
    with settings.gateway() as gateway:
        _show(_ask(gateway, action="GET"), settings)


@alarm.command(epilog=examples("kvorum alarm disarm"))
@_arguments
def disarm(arguments: Arguments) -> None:
    """End all alarms, and show them. Make space first: compaction and defrag do."""
    settings = _settings("disarm", arguments)
    with settings.gateway() as gateway:
        ended = [
            one
            for raised in _ask(gateway, action="GET").get("alarms", [])
            for one in _ask(gateway, action="DEACTIVATE", **raised).get("alarms", [])
        ]
    _show({"alarms": ended} if ended else {}, settings)


def _settings(name: str, arguments: Arguments) -> Settings:
    if arguments:
        raise Failure(f"alarm {name} command accepts no arguments", EXIT_BAD_ARGUMENTS)
    settings = current()
    output.refuse_table(settings)
    return settings


def _ask(gateway: Gateway, **request: object) -> dict[str, Any]:
    with named_where_absent("alarms"):
        return gateway.call(_PATH, request)


def _show(response: dict[str, Any], settings: Settings) -> None:
    alarms = [(int(one.get("memberID", 0)), one.get("alarm", "NONE")) for one in response.get("alarms", [])]
    if settings.write_out == "json":
        numbered = [{"memberID": member, "alarm": _NUMBERS[kind]} for member, kind in alarms]
        shown = {"alarms": numbered} if alarms else {}
        output.write_json({**{k: output.as_go(v) for k, v in response.items() if k == "header"}, **shown})
    elif settings.write_out == "fields":
        output.write_lines(output.header_fields(response["header"]) if "header" in response else [])
        for member, kind in alarms:
            output.write_lines([f'"MemberID" : {member}', f'"AlarmType" : {kind}', ""])
    else:
        output.write_lines([f"memberID:{member} alarm:{kind} " for member, kind in alarms])
