"""The root command: global flags, and commands that are imported only when they are used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

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
    Settings,
    seconds,
)
from kvorum.errors import ConnectionFailed, KvorumError
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
    "top": ("kvorum.cli.top:top", "Show how all members are, and how fast they go."),
    "bench": ("kvorum.cli.bench:bench", "Put load on a store, and measure it."),
    "check": ("kvorum.cli.check:check", "Check that a cluster bears what it has to."),
    "cluster": ("kvorum.cli.cluster:cluster", "Run a whole cluster on this machine, for development."),
    "render": ("kvorum.cli.render:render", "Make files of templates and keys, and follow changes."),
    "config": ("kvorum.cli.config:config", "Contexts: clusters and users under a name."),
    "serve": ("kvorum.cli.server:serve", "Run a server."),
    "completion": ("kvorum.cli.completion:completion", "Have the shell complete commands and keys."),
    "version": ("kvorum.cli.main:version", "Print the version."),
}


_TOPICS = {
    "Keys": (
        *("put", "get", "del", "ls", "tree", "edit", "diff", "history", "cp", "mv", "rm"),
        *("txn", "watch", "compaction"),
    ),
    "Files and programs": ("import", "export", "env", "render"),
    "Leases and coordination": ("lease", "lock", "elect"),
    "Services": ("service", "dns"),
    "Users": ("auth", "user", "role"),
    "The cluster": ("endpoint", "member", "move-leader", "top", "bench", "check"),
    "Servers": ("serve", "cluster"),
    "This program": ("config", "completion", "version"),
}
"""Under which headings commands stand in the help. One that stands nowhere is found under "Other"."""
_NO_CONTEXT = frozenset({"serve", "cluster", "config", "completion", "version"})
"""Commands that ask no server, and work where the file with the contexts is broken."""


def _global(flags: tuple[str, ...], env: str, **kwargs: Any) -> Callable[[F], F]:
    return click.option(
        *flags, envvar=[f"KVORUM_{env}", f"ETCDCTL_{env}"], show_default=bool(kwargs.get("default")), **kwargs
    )


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
@_global(("--hex",), "HEX", is_flag=True, help="Print bytes in hexadecimal.")
@_global(("--dial-timeout",), "DIAL_TIMEOUT", default="2s", help="Time to connect.")
@_global(("--command-timeout",), "COMMAND_TIMEOUT", default="5s", help="Time for an answer.")
@_global(
    ("--cacert",),
    "CACERT",
    default="",
    shell_complete=files,
    help="CA that the server's certificate must be of.",
)
@_global(("--cert",), "CERT", default="", shell_complete=files, help="Client certificate.")
@_global(("--key",), "KEY", default="", shell_complete=files, help="Key of the client certificate.")
@_global(("--insecure-skip-tls-verify",), "INSECURE_SKIP_TLS_VERIFY", is_flag=True, help="Trust any server.")
@_global(("--user",), "USER", default="", help="NAME[:PASSWORD]. A password that is missing is asked for.")
@_global(("--password",), "PASSWORD", default="", help="Password; --user is then the name alone.")
@_global(
    ("--context",),
    "CONTEXT",
    default="",
    shell_complete=context_names,
    help="Context to use (see kvorum config).",
)
@click.pass_context
def cli(ctx: click.Context, /, **flags: Any) -> None:
    """A client for Kvorum and etcd, and Kvorum's server."""
    ctx.obj = settings_of(ctx, asks_a_server=ctx.invoked_subcommand not in _NO_CONTEXT)


def settings_of(ctx: click.Context, *, asks_a_server: bool) -> Settings:
    """What the flags say, the environment, the context, and the defaults: in this order."""
    flags = ctx.params
    if asks_a_server:
        from kvorum.cli import contexts

        defaults = (ParameterSource.DEFAULT, None)
        is_given = {name: ctx.get_parameter_source(name) not in defaults for name in flags}
        flags = contexts.supplement(flags, flags["context"], is_given)
    return Settings(
        endpoints=tuple(part.strip() for part in flags["endpoints"].split(",") if part.strip()),
        # To commands, YAML is JSON: only what writes it knows of another notation (output.write_json).
        write_out="json" if flags["write_out"] == "yaml" else flags["write_out"],
        yaml=flags["write_out"] == "yaml",
        hex=flags["hex"],
        dial_timeout=seconds("--dial-timeout", flags["dial_timeout"]),
        command_timeout=seconds("--command-timeout", flags["command_timeout"]),
        tls=Tls(flags["cacert"], flags["cert"], flags["key"], flags["insecure_skip_tls_verify"]),
        user=flags["user"],
        password=flags["password"],
    )


@click.command(epilog=examples("kvorum version"))
def version() -> None:
    """Print the version."""
    click.echo(f"kvorum version: {__version__}\nAPI version: {API_VERSION}")


def main(arguments: list[str] | None = None) -> None:
    """The console command: ends the process with etcdctl's exit codes."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


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
        elif word[:2] in ("-w", "-o") and len(word) > 2:
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
    except KvorumError as error:
        # Who is not let in has, to etcdctl, no connection.
        refused = str(error).startswith("etcdserver: authentication failed")
        return _fail(str(error), EXIT_BAD_CONNECTION if refused else EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; there is nobody to tell
        return EXIT_ERROR


def _fail(message: str, code: int) -> int:
    # What others have written, in keys or in files, may stand in it.
    from kvorum.cli.output import harmless

    click.echo(f"Error: {harmless(message)}", err=True)
    return code


if __name__ == "__main__":
    main()
