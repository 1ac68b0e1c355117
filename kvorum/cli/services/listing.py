"""service list, show, resolve, watch and deregister."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from kvorum.cli import output
from kvorum.cli.examples import examples
from kvorum.cli.services import turns
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, Settings, current
from kvorum.services.choice import POLICIES, NoInstance, picker_of
from kvorum.services.directory import Change
from kvorum.services.records import Instance, check_name

F = TypeVar("F", bound=Callable[..., Any])
_COLUMNS = ("ID", "ADDRESS", "WEIGHT", "ZONE", "TAGS", "METADATA", "SINCE")


def name_argument(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return checked(check_name, value) if value else value


def pairs(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """What is given as k=v, again and again."""
    found = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Failure(f"--meta {text!r} is wrong: expected NAME=VALUE", EXIT_BAD_ARGUMENTS)
        found[name] = value
    return found


T = TypeVar("T")


def checked(check: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """What the library finds wrong with the arguments is said as a mistake of the command line."""
    try:
        return check(*arguments, **keywords)
    except ValueError as error:
        raise Failure(str(error), EXIT_BAD_ARGUMENTS) from None


def filters(command: F) -> F:
    for option in (
        click.option(
            "--meta", "metadata", multiple=True, callback=pairs, metavar="K=V", help="With this metadata."
        ),
        click.option(
            "--tag", "tags", multiple=True, help="With this tag; given several times, with all of them."
        ),
    ):
        command = option(command)
    return command


@click.command(name="list", epilog=examples("kvorum service list", "kvorum service list --tag v2 -o json"))
@filters
def list_(tags: Sequence[str], metadata: dict[str, str]) -> None:
    """All services, with how many instances each has and what tags they have."""
    from kvorum.services.choice import matching

    settings = current()
    with settings.client() as client:
        listed = client.services.list()
    found = {name: matching(instances, tags, metadata) for name, instances in listed.items()}
    found = {name: instances for name, instances in found.items() if instances}
    rows = [
        (name, str(len(instances)), " ".join(sorted({tag for one in instances for tag in one.tags})))
        for name, instances in found.items()
    ]
    if settings.write_out == "json":
        output.write_json({name: [shown(one) for one in instances] for name, instances in found.items()})
    elif settings.write_out == "table":
        output.write(
            output.table(("SERVICE", "INSTANCES", "TAGS"), [list(map(one_line, row)) for row in rows])
        )
    elif settings.write_out == "fields":
        for name, count, names in rows:
            lines = [f'"Service" : {quoted(name)}', f'"Instances" : {count}', f'"Tags" : {quoted(names)}', ""]
            output.write_lines(lines)
    else:
        output.write_lines([", ".join(map(one_line, row)) for row in rows])


@click.command(
    epilog=examples("kvorum service show web", "kvorum service show web --meta version=1.4 -o table")
)
@click.argument("name", callback=name_argument)
@filters
def show(name: str, tags: Sequence[str], metadata: dict[str, str]) -> None:
    """All that is known of each instance of the service NAME."""
    settings = current()
    with settings.client() as client:
        found = client.services.resolve(name, tags=tags, metadata=metadata)
    show_instances(_there(name, found), settings)


@click.command(
    epilog=examples(
        "kvorum service resolve web --zone eu/1a", "kvorum service resolve web --one --policy round-robin"
    )
)
@click.argument("name", callback=name_argument)
@filters
@click.option("--zone", default="", help="The nearest to this zone first.")
@click.option("--one", is_flag=True, help="One of them, the nearest and by weight, rather than all.")
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    default="random",
    show_default=True,
    help="Which one, with --one.",
)
def resolve(
    name: str, tags: Sequence[str], metadata: dict[str, str], zone: str, one: bool, policy: str
) -> None:
    """The addresses of the service NAME; if there is none, the exit code is 1."""
    settings = current()
    with settings.client() as client:
        found = _there(name, client.services.resolve(name, tags=tags, metadata=metadata, zone=zone))
    if one:
        found = [_one(name, tags, metadata, zone, policy, found)]
    if settings.write_out == "simple":
        output.write_lines([each.addr for each in found])
    else:
        show_instances(found, settings)


def _one(
    name: str, tags: Sequence[str], metadata: dict[str, str], zone: str, policy: str, found: list[Instance]
) -> Instance:
    if policy == "round-robin":
        try:
            return turns.pick(name, tags, metadata, zone, found)
        except OSError as error:
            raise Failure(
                f"whose turn it is cannot be kept: {error}; --policy random does not need to"
            ) from None
    return picker_of(policy).pick(found, zone)


@click.command(epilog=examples("kvorum service watch web", "kvorum service watch -o json"))
@click.argument("name", callback=name_argument, required=False, default="")
@filters
def watch(name: str, tags: Sequence[str], metadata: dict[str, str]) -> None:
    """Who comes, who goes and who changes: of the service NAME, or of all. First who is there, as added."""
    settings = current()
    output.refuse_table(settings)
    with settings.client() as client, client.services.watch(name, tags=tags, metadata=metadata) as changes:
        for change in changes:
            _show_change(change, settings)


def _show_change(change: Change, settings: Settings) -> None:
    one = change.instance
    if settings.write_out == "json":
        output.write_json({"type": change.kind, "instance": shown(one)})
    elif settings.write_out == "fields":
        output.write_lines([f'"Type" : {quoted(change.kind)}', *_fields(one), ""])
    else:
        at = "" if one.id == one.addr else f" at {one.addr}"
        output.write_lines([one_line(f"{change.kind} {one.name} {one.id}{at}")])


@click.command(epilog=examples("kvorum service deregister web 10.0.0.1:8080"))
@click.argument("name", callback=name_argument)
@click.argument("id")
def deregister(name: str, id: str) -> None:  # noqa: A002
    """Take the instance ID of the service NAME off the list.

    For entries that nobody keeps up any more. Who keeps this one up does not notice, and comes back with
    his next registration. Who is to come off the list and stay off is to be stopped.
    """
    settings = current()
    with settings.client() as client:
        if not client.services.deregister(name, id):
            raise Failure(f"there is no instance {id!r} of {name}")
    output.write_lines([f"deregistered {name} {id}"])


# How they are shown.


def show_instances(instances: Sequence[Instance], settings: Settings) -> None:
    if settings.write_out == "json":
        output.write_json([shown(one) for one in instances])
    elif settings.write_out == "table":
        output.write(output.table(_COLUMNS, [_row(one) for one in instances]))
    elif settings.write_out == "fields":
        for one in instances:
            output.write_lines([*_fields(one), ""])
    else:
        output.write_lines([", ".join(_row(one)) for one in instances])


def shown(one: Instance) -> dict[str, Any]:
    return {
        "name": one.name,
        "id": one.id,
        "addr": one.addr,
        "weight": one.weight,
        "zone": one.zone,
        "tags": list(one.tags),
        "metadata": dict(one.metadata),
        "since": one.since,
    }


def _row(one: Instance) -> tuple[str, ...]:
    metadata = " ".join(f"{name}={value}" for name, value in sorted(one.metadata.items()))
    cells = (one.id, one.addr, str(one.weight), one.zone, " ".join(one.tags), metadata, one.since)
    return tuple(map(one_line, cells))


def _fields(one: Instance) -> list[str]:
    return [
        f'"Name" : {quoted(one.name)}',
        f'"ID" : {quoted(one.id)}',
        f'"Address" : {quoted(one.addr)}',
        f'"Weight" : {one.weight}',
        f'"Zone" : {quoted(one.zone)}',
        *(f'"Tag" : {quoted(tag)}' for tag in one.tags),
        *(f'"Metadata" : {quoted(f"{name}={value}")}' for name, value in sorted(one.metadata.items())),
        f'"Since" : {quoted(one.since)}',
    ]


def one_line(text: str) -> str:
    """As it is, unless there is something in it that is no letter or sign: others have written it, and it
    must neither look like two lines nor tell a terminal what to do."""
    return text if text.isprintable() else quoted(text)[1:-1]


def quoted(text: str) -> str:
    return output.go_quoted(text.encode())


def _there(name: str, found: list[Instance]) -> list[Instance]:
    if not found:
        raise NoInstance(f"no instance of {name} is registered, or none that meets the conditions")
    return found
