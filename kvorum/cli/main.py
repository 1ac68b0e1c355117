"""The root command: global flags, and commands that are imported only when they are used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO, TypeVar

import click
from click.core import ParameterSource

from kvorum import __version__
from kvorum.cli.completing import context_names, files
from kvorum.cli.examples import examples
from kvorum.cli.lazy import LazyGroup
from kvorum.cli.settings import (
    EXIT_BAD_ARGUMENTS,
    EXIT_BAD_CONNECTION,
    EXIT_ERROR,
    FORMATS,
    Failure,
    Settings,
    seconds,
)
from kvorum.errors import AuthenticationFailed, ConnectionFailed, KvorumError
from kvorum.keepalive import Keepalive
from kvorum.tls import Tls

API_VERSION = "3.5"
_COMPLETION = "_KVORUM_COMPLETE"
F = TypeVar("F", bound=Callable[..., Any])
_COMMANDS = {
    "put": ("kvorum.cli.kv:put", "Put a key into the store."),
    "get": ("kvorum.cli.kv:get", "Get a key or a range of keys."),
    "del": ("kvorum.cli.kv:delete", "Delete a key or a range of keys."),
    "txn": ("kvorum.cli.txn:txn", "Carry out a transaction."),
    "watch": ("kvorum.cli.watch:watch", "Watch keys and print their changes."),
    "compaction": ("kvorum.cli.kv:compaction", "Forget all history before a revision."),
    "import": ("kvorum.cli.importing:import_", "Put the keys and values of a file, in one transaction."),
    "export": ("kvorum.cli.exporting:export", "Write keys and values as a file, in five formats."),
    "ls": ("kvorum.cli.ls:ls", "List the keys under a prefix like a directory."),
    "tree": ("kvorum.cli.tree:tree", "Draw the keys under a prefix as a tree."),
    "edit": ("kvorum.cli.edit:edit", "Edit a value or a prefix in your editor."),
    "diff": ("kvorum.cli.diff:diff", "Compare prefixes, files and revisions."),
    "history": ("kvorum.cli.history:history", "Show every revision of a key."),
    "cp": ("kvorum.cli.moving:cp", "Copy a key, or all under a prefix."),
    "mv": ("kvorum.cli.moving:mv", "Move a key, or all under a prefix."),
    "rm": ("kvorum.cli.moving:rm", "Delete keys, or all under a prefix."),
    "env": ("kvorum.cli.env:env", "Run a command with its environment from keys."),
    "lease": ("kvorum.cli.lease:lease", "Grant leases, keep them alive, end them."),
    "lock": ("kvorum.cli.lock:lock", "Hold a lock, while a command runs."),
    "elect": ("kvorum.cli.elect:elect", "Stand in an election, or see who leads."),
    "service": (
        "kvorum.cli.services.group:service",
        "Register services, find them, follow who comes and goes.",
    ),
    "dns": ("kvorum.cli.dns:serve_dns", "Answer questions of DNS for registered services."),
    "auth": ("kvorum.cli.auth:auth", "Turn authentication on and off."),
    "user": ("kvorum.cli.user:user", "Make users, and give them roles."),
    "role": ("kvorum.cli.role:role", "Make roles, which permit to read or write certain keys."),
    "endpoint": ("kvorum.cli.endpoint:endpoint", "Ask endpoints how they are."),
    "member": ("kvorum.cli.member:member", "See and change who belongs to the cluster."),
    "move-leader": ("kvorum.cli.member:move_leader", "Make another member the leader."),
    "alarm": ("kvorum.cli.alarm:alarm", "See and end alarms."),
    "defrag": ("kvorum.cli.defrag:defrag", "Give unused space of databases back."),
    "snapshot": ("kvorum.cli.snapshot:snapshot", "Save the whole database of an etcd member."),
    "make-mirror": ("kvorum.cli.make_mirror:make_mirror", "Copy keys to another cluster, and follow."),
    "top": ("kvorum.cli.top:top", "Show how all members are, and how fast they go."),
    "bench": ("kvorum.cli.bench:bench", "Put load on a store, and measure it."),
    "check": ("kvorum.cli.check:check", "Check that a cluster bears what it has to."),
    "cluster": ("kvorum.cli.cluster:cluster", "Run a whole cluster on this machine, for development."),
    "render": ("kvorum.cli.render:render", "Make files of templates and keys, and follow changes."),
    "config": ("kvorum.cli.config:config", "Contexts: clusters and users under a name."),
    "serve": ("kvorum.cli.server:serve", "Run a server."),
    "completion": ("kvorum.cli.completion:completion", "Have the shell complete commands and keys."),
    "version": ("kvorum.cli.main:version", "Print the version."),
    "help": ("kvorum.cli.help:help_", "Show how a command is used."),
}


_TOPICS = {
    "Keys": (
        *("put", "get", "del", "ls", "tree", "edit", "diff", "history", "cp", "mv", "rm"),
        *("txn", "watch", "compaction"),
    ),
    "Files and programs": ("import", "export", "env", "render", "make-mirror"),
    "Leases and coordination": ("lease", "lock", "elect"),
    "Services": ("service", "dns"),
    "Users": ("auth", "user", "role"),
    "The cluster": (
        *("endpoint", "member", "move-leader", "alarm", "defrag", "snapshot"),
        *("top", "bench", "check"),
    ),
    "Servers": ("serve", "cluster"),
    "This program": ("config", "completion", "version", "help"),
}
"""Under which headings commands stand in the help. One that stands nowhere is found under "Other"."""
_NO_CONTEXT = frozenset({"serve", "cluster", "config", "completion", "version", "help"})
"""Commands that ask no server, and work where the file with the contexts is broken."""


_OWN = {"render": ("-d",)}
"""What behind these commands is a flag of their own, though it is a global one elsewhere."""


def _global(flags: tuple[str, ...], env: str, **kwargs: Any) -> Callable[[F], F]:
    return click.option(
        *flags, envvar=[f"KVORUM_{env}", f"ETCDCTL_{env}"], show_default=bool(kwargs.get("default")), **kwargs
    )


def _switch(flag: str, help: str, *, default: bool = False) -> Callable[[F], F]:  # noqa: A002
    name = flag.removeprefix("--").replace("-", "_").upper()
    return _global((flag,), name, is_flag=True, flag_value=True, default=default, help=help)


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    topics=_TOPICS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Help with examples: kvorum COMMAND --help. Global flags may stand anywhere before --, and in the"
    " environment: KVORUM_ENDPOINTS, or as etcdctl has it, ETCDCTL_ENDPOINTS.",
)
@_global(("--endpoints",), "ENDPOINTS", default="127.0.0.1:2379", help="HOST:PORT, separated by commas.")
@_global(
    ("-w", "--write-out", "-o", "--output"),
    "WRITE_OUT",
    default="simple",
    type=click.Choice(FORMATS),
    help="Output format.",
)
@_switch("--hex", "Print bytes in hexadecimal.")
@_global(("--dial-timeout",), "DIAL_TIMEOUT", default="2s", help="Time to connect.")
@_global(("--command-timeout",), "COMMAND_TIMEOUT", default="5s", help="Time for an answer.")
@_global(("--keepalive-time",), "KEEPALIVE_TIME", default="2s", help="When a silent connection is probed.")
@_global(("--keepalive-timeout",), "KEEPALIVE_TIMEOUT", default="6s", help="When it is given up after that.")
@_switch("--insecure-transport", "With =false: https where an endpoint does not say.", default=True)
@_global(
    ("--cacert",),
    "CACERT",
    default="",
    shell_complete=files,
    help="CA that the server's certificate must be of.",
)
@_global(("--cert",), "CERT", default="", shell_complete=files, help="Client certificate.")
@_global(("--key",), "KEY", default="", shell_complete=files, help="Key of the client certificate.")
@_switch("--insecure-skip-tls-verify", "Trust any server.")
@_global(
    ("-d", "--discovery-srv"),
    "DISCOVERY_SRV",
    default="",
    help="Domain whose SRV records name the endpoints.",
)
@_global(
    ("--discovery-srv-name",), "DISCOVERY_SRV_NAME", default="", help="The cluster's name in that domain."
)
@_switch("--insecure-discovery", "With =false: only members with TLS, of that domain.", default=True)
@_global(("--user",), "USER", default="", help="NAME[:PASSWORD]. A password that is missing is asked for.")
@_global(("--password",), "PASSWORD", default="", help="Password; --user is then the name alone.")
@_global(
    ("--context",),
    "CONTEXT",
    default="",
    shell_complete=context_names,
    help="Context to use (see kvorum config).",
)
@_switch("--debug", "Show these flags, and each request, on standard error.")
@click.pass_context
def cli(ctx: click.Context, /, **flags: Any) -> None:
    """A client for Kvorum and etcd, and Kvorum's server."""
    if flags["debug"]:
        from kvorum.cli import debugging

        ctx.call_on_close(debugging.begin(flags))
    ctx.obj = settings_of(ctx, asks_a_server=ctx.invoked_subcommand not in _NO_CONTEXT)


def settings_of(ctx: click.Context, *, asks_a_server: bool) -> Settings:
    """What the flags say, the environment, the context, and the defaults: in this order."""
    flags = ctx.params
    if asks_a_server:
        from kvorum.cli import contexts

        defaults = (ParameterSource.DEFAULT, None)
        is_given = {name: ctx.get_parameter_source(name) not in defaults for name in flags}
        flags = contexts.supplement(flags, flags["context"], is_given)
    domain = flags["discovery_srv"] if asks_a_server else ""
    return Settings(
        endpoints=_discovered(flags) if domain else _listed(flags["endpoints"]),
        # To commands, YAML is JSON: only what writes it knows of another notation (output.write_json).
        write_out="json" if flags["write_out"] == "yaml" else flags["write_out"],
        yaml=flags["write_out"] == "yaml",
        hex=flags["hex"],
        dial_timeout=seconds("--dial-timeout", flags["dial_timeout"]),
        command_timeout=seconds("--command-timeout", flags["command_timeout"]),
        keepalive=Keepalive(
            seconds("--keepalive-time", flags["keepalive_time"]),
            seconds("--keepalive-timeout", flags["keepalive_timeout"]),
        ),
        tls=Tls(
            flags["cacert"],
            flags["cert"],
            flags["key"],
            flags["insecure_skip_tls_verify"],
            # Whoever forges DNS has certificates too, but not one of this domain.
            "" if flags["insecure_discovery"] else domain,
        ),
        insecure_transport=flags["insecure_transport"],
        user=flags["user"],
        password=flags["password"],
    )


def _listed(endpoints: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in endpoints.split(",") if part.strip())


def _discovered(flags: dict[str, Any]) -> tuple[str, ...]:
    """As in etcdctl, those that are given where DNS names none; but not where it names only insecure ones."""
    from kvorum.cli import discovery

    domain, insecure = flags["discovery_srv"], flags["insecure_discovery"]
    found = discovery.endpoints(domain, flags["discovery_srv_name"], insecure=insecure)
    if not found and not insecure:
        raise Failure(f"DNS names no endpoint of {domain} with TLS, and --insecure-discovery is false")
    return found or _listed(flags["endpoints"])


@click.command(epilog=examples("kvorum version"))
def version() -> None:
    """Print the version."""
    click.echo(f"kvorum version: {__version__}\nAPI version: {API_VERSION}")


def main(arguments: list[str] | None = None) -> NoReturn:
    """The console command: ends the process with etcdctl's exit codes."""
    try:
        code = run(sys.argv[1:] if arguments is None else arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    # At once: Python's own end aborts the process where a thread is in the midst of writing, and has another
    # exit code where nobody reads stderr any more.
    if not _flush(sys.stdout):
        code = code or EXIT_ERROR
    _flush(sys.stderr)  # that nobody reads it any more is no error
    os._exit(code)


def _flush(stream: TextIO | None) -> bool:
    """False where it cannot be written. There may be none, and it may be closed."""
    try:
        if stream is not None and not stream.closed:
            stream.flush()
    except OSError:
        return False
    return True


def hoisted(arguments: list[str]) -> list[str]:
    """The arguments with the global flags in front: like etcdctl's they may stand anywhere before ``--``."""
    takes_value = {name: not param.is_flag for param in global_options() for name in param.opts}
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--" or (word == "serve" and not rest):
            rest += [word, *words]  # what follows is somebody else's
        elif rest and word[:2] in _OWN.get(rest[0], ()):
            rest.append(word)
        elif word[:2] in ("-w", "-o", "-d") and len(word) > 2:
            front += [word[:2], word[2:].removeprefix("=")]  # as Go's flags are: -wjson, -w=json
        elif name in takes_value:
            front.append(word)
            if takes_value[name] and not equals:
                front += [value for value in [next(words, None)] if value is not None]
        else:
            rest.append(word)
    return front + rest


def global_options() -> list[click.Option]:
    return [param for param in cli.params if isinstance(param, click.Option)]


def run(arguments: list[str]) -> int:
    """Run a command line; errors are one line on stderr."""
    if _COMPLETION in os.environ:  # it is the shell that asks, for what could come next
        importlib.import_module("kvorum.cli.completion")
    try:
        # Commands return nothing; what comes back is the code of one that ended by Context.exit.
        code: int | None = cli.main(hoisted(arguments), prog_name="kvorum", standalone_mode=False)
        return code or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return EXIT_BAD_ARGUMENTS
    except click.UsageError as error:
        return _fail(error.format_message(), EXIT_BAD_ARGUMENTS)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except ConnectionFailed as error:
        return _fail(str(error), EXIT_BAD_CONNECTION)
    except AuthenticationFailed as error:
        return _fail(str(error), EXIT_BAD_CONNECTION)  # to etcdctl, who is not let in has no connection
    except KvorumError as error:
        return _fail(str(error), EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; there is nobody to tell
        return EXIT_ERROR


def _fail(message: str, code: int) -> int:
    from kvorum.cli.output import complain

    complain(message)
    return code


if __name__ == "__main__":
    main()
