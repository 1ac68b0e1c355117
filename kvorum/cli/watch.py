"""watch: prints each change as it comes, and may run a command for it."""

from __future__ import annotations

import click

from kvorum.cli import kv, output, watch_output, watched
from kvorum.cli.behind_dashes import CommandWithCommand, behind_dashes
from kvorum.cli.completing import keys
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, current


@click.command(
    cls=CommandWithCommand,
    epilog=examples(
        "kvorum watch greeting",
        "kvorum watch --prefix /app/ --prev-kv --rev=42",
        "kvorum watch -i < watches.txt",
        "kvorum watch --prefix /app/ -- sh -c 'echo $ETCD_WATCH_KEY changed'",
        "kvorum watch /app/ --exec 'systemctl reload app'",
        "kvorum watch /app/ --batch --exec 'jq -r .kv.key >> changes'",
    ),
)
@click.argument("arguments", nargs=-1, metavar="KEY [RANGE_END] [-- COMMAND...]", shell_complete=keys(2))
@click.option("--prefix", is_flag=True, help="Watch all keys with this prefix.")
@click.option("--rev", default=0, help="Revision to start watching at.")
@click.option("--prev-kv", is_flag=True, help="Show the value before each change.")
@click.option("--progress-notify", is_flag=True, help="Show progress notifications of the server.")
@click.option("-i", "--interactive", is_flag=True, help="Read what to watch from standard input, by line.")
@click.option("--exec", "exec_", metavar="CMD", help="Run a shell command for each change below KEY.")
@click.option("--batch", is_flag=True, help="With --exec: once for all changes of a revision.")
@click.option("--exact", is_flag=True, help="With --exec: KEY is one key, and no prefix.")
@click.option("--stop-on-failure", is_flag=True, help="With --exec: end when the command fails.")
def watch(
    arguments: kv.Arguments,
    prefix: bool,
    rev: int,
    prev_kv: bool,
    progress_notify: bool,
    interactive: bool,
    exec_: str | None,
    **how: bool,
) -> None:
    """Watch a key, a range or a prefix, and print its changes.

    Behind -- may stand a command that is run for each change, with the change in ETCD_WATCH_KEY,
    ETCD_WATCH_VALUE, ETCD_WATCH_EVENT_TYPE and ETCD_WATCH_REVISION.

    With -i each line of standard input, such as "watch /app/ --prefix", begins another watch.

    With --exec nothing is printed, and KEY is a prefix. The command is run for one change after the other,
    and none is left out when a connection is lost or a member ends. It has what stands above,
    KVORUM_WATCH_KEY and KVORUM_WATCH_VALUE without quotes, and the value on its standard input; with --batch
    a line of JSON for each change there, and ETCD_WATCH_REVISION.
    """
    settings = current()
    if interactive:
        if arguments or exec_ is not None:
            raise Failure("--interactive reads what to watch from its input", EXIT_BAD_ARGUMENTS)
        from kvorum.cli.watch_interactive import Interactive

        output.refuse_table(settings)
        Interactive(settings, watched.from_environment()).run()
    command = behind_dashes(click.get_current_context())
    arguments = watched.chosen(arguments, watched.from_environment(), command)
    if exec_ is None and any(how.values()):
        raise Failure("--batch, --exact and --stop-on-failure are for --exec", EXIT_BAD_ARGUMENTS)
    if exec_ is not None:
        if command:
            raise Failure("--exec and a command behind -- exclude one another", EXIT_BAD_ARGUMENTS)
        from kvorum.cli import watch_exec

        key, *end = map(to_bytes, arguments)
        exact, batch, stop = how["exact"] and not prefix, how["batch"], how["stop_on_failure"]
        watch_exec.run(
            settings,
            watch_exec.Wanted(key, end[0] if end else None, exact, rev, prev_kv, exec_, batch, stop),
        )
    output.refuse_table(settings)
    create = watched.create_request(
        arguments, prefix=prefix, rev=rev, prev_kv=prev_kv, progress_notify=progress_notify
    )
    with settings.gateway() as gateway:
        for response in gateway.stream("/v3/watch", {"create_request": create}):
            watch_output.show(response, settings)
            watch_output.run(response, command or [])
    raise watch_output.Cancelled
