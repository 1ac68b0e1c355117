"""The root command: global flags, and commands that are imported only when they are used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from kvorum import __version__
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
F = TypeVar("F", bound=Callable[..., Any])
_COMMANDS = {
    "put": ("kvorum.cli.kv:put", "Put a key into the store."),
    "get": ("kvorum.cli.kv:get", "Get a key or a range of keys."),
    "del": ("kvorum.cli.kv:delete", "Delete a key or a range of keys."),
    "txn": ("kvorum.cli.txn:txn", "Carry out a transaction."),
    "watch": ("kvorum.cli.watch:watch", "Watch keys and print their changes."),
    "compaction": ("kvorum.cli.kv:compaction", "Forget all history before a revision."),
    "lease": ("kvorum.cli.lease:lease", "Grant leases, keep them alive, end them."),
    "lock": ("kvorum.cli.lock:lock", "Hold a lock, while a command runs."),
    "elect": ("kvorum.cli.elect:elect", "Stand in an election, or see who leads."),
    "service": (
        "kvorum.cli.services.group:service",
        "Register services, find them, follow who comes and goes.",
    ),
    "dns": ("kvorum.cli.dns:serve_dns", "Answer questions of DNS for registered services."),
    "endpoint": ("kvorum.cli.endpoint:endpoint", "Ask endpoints how they are."),
    "member": ("kvorum.cli.member:member", "See and change who belongs to the cluster."),
    "move-leader": ("kvorum.cli.member:move_leader", "Make another member the leader."),
    "cluster": ("kvorum.cli.cluster:cluster", "Run a whole cluster on this machine, for development."),
    "serve": ("kvorum.cli.server:serve", "Run a server."),
    "version": ("kvorum.cli.main:version", "Print the version."),
}


class LazyGroup(click.Group):
    """``kvorum --help`` must not import what only one command needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _global(flags: tuple[str, ...], env: str, **kwargs: Any) -> Callable[[F], F]:
    return click.option(
        *flags, envvar=[f"KVORUM_{env}", f"ETCDCTL_{env}"], show_default="default" in kwargs, **kwargs
    )


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@_global(("--endpoints",), "ENDPOINTS", default="127.0.0.1:2379", help="HOST:PORT, separated by commas.")
@_global(
    ("-w", "--write-out"), "WRITE_OUT", default="simple", type=click.Choice(FORMATS), help="Output format."
)
@_global(("--hex",), "HEX", is_flag=True, help="Print bytes in hexadecimal.")
@_global(("--dial-timeout",), "DIAL_TIMEOUT", default="2s", callback=seconds, help="Time to connect.")
@_global(
    ("--command-timeout",), "COMMAND_TIMEOUT", default="5s", callback=seconds, help="Time for an answer."
)
@_global(("--cacert",), "CACERT", default="", help="CA that the server's certificate must be of.")
@_global(("--cert",), "CERT", default="", help="Client certificate.")
@_global(("--key",), "KEY", default="", help="Key of the client certificate.")
@_global(("--insecure-skip-tls-verify",), "INSECURE_SKIP_TLS_VERIFY", is_flag=True, help="Trust any server.")
@click.pass_context
def cli(
    ctx: click.Context,
    endpoints: str,
    write_out: str,
    hex: bool,  # noqa: A002  # the flag's name
    dial_timeout: float,
    command_timeout: float,
    cacert: str,
    cert: str,
    key: str,
    insecure_skip_tls_verify: bool,
) -> None:
    """A client for Kvorum and etcd, and Kvorum's server."""
    addresses = tuple(part.strip() for part in endpoints.split(",") if part.strip())
    tls = Tls(cacert, cert, key, insecure_skip_tls_verify)
    ctx.obj = Settings(addresses, write_out, hex, dial_timeout, command_timeout, tls)


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"kvorum version: {__version__}\nAPI version: {API_VERSION}")


def main(arguments: list[str] | None = None) -> None:
    """The console command: ends the process with etcdctl's exit codes."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def hoisted(arguments: list[str]) -> list[str]:
    """The arguments with the global flags in front: like etcdctl's they may stand anywhere before ``--``."""
    takes_value = {name: not param.is_flag for param in _global_options() for name in param.opts}
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--" or (word == "serve" and not rest):
            rest += [word, *words]  # what follows is somebody else's
        elif name in takes_value:
            front.append(word)
            if takes_value[name] and not equals:
                front += [value for value in [next(words, None)] if value is not None]
        elif word.startswith("-w") and len(word) > 2:
            front.append(word)
        else:
            rest.append(word)
    return front + rest


def _global_options() -> list[click.Option]:
    return [param for param in cli.params if isinstance(param, click.Option)]


def run(arguments: list[str]) -> int:
    """Run a command line; errors are one line on stderr."""
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
        return _fail(str(error), EXIT_ERROR)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; there is nobody to tell
        return EXIT_ERROR


def _fail(message: str, code: int) -> int:
    click.echo(f"Error: {message}", err=True)
    return code


if __name__ == "__main__":
    main()
