"""lock: hold a lock until a signal comes, or while a command runs.

The command ends when the lock does. It is asked to (SIGTERM) when the lease was not renewed for three
quarters of its time, and made to (SIGKILL) before the lease can have ended, or as soon as that is known; and
if this process is killed, the kernel kills the command with it (``kvorum.cli.tied``). What no process can see
to is a machine that stops both and goes on later: for that there is the fencing token.
"""

from __future__ import annotations

import os
import signal
import threading

import click

from kvorum.cli import kv
from kvorum.cli.child import Child, check_command, exit_code
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.holding import Ended, Entered, Failed, Holding, InDoubt, Interrupted, Lost, Signalled
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, EXIT_INTERRUPTED, Failure, Settings, current
from kvorum.errors import KvorumError
from kvorum.messages import b64

_USAGE = "lock takes a lock name argument and an optional command to execute"


@click.command(
    cls=GoCommand, epilog=examples("kvorum lock nightly -- ./backup.sh", "kvorum lock nightly --ttl=30")
)
@click.argument("arguments", nargs=-1, metavar="NAME [-- COMMAND...]")
@click.option(
    "--ttl", default=10, show_default=True, help="Seconds after which the lock is free if this is no more."
)
def lock(arguments: kv.Arguments, ttl: int) -> None:
    """Wait for a lock and hold it until a signal comes; or while COMMAND runs, whose exit code is passed on.

    COMMAND finds in its environment ETCD_LOCK_KEY, ETCD_LOCK_REV, and KVORUM_FENCING_TOKEN: a number that is
    greater for each later holder. If the lock is lost, COMMAND is ended, and the exit code is 5.
    """
    if not arguments:
        raise Failure(_USAGE, EXIT_BAD_ARGUMENTS)
    settings, (name, *command) = current(), arguments
    if command:
        check_command(command)
    try:
        with Holding(settings, to_bytes(name), b"", ttl) as holding:
            entered = holding.acquire()
            code = _run(command, holding, entered) if command else hold(settings, holding, entered)
    except Interrupted as interrupted:
        code = 128 + interrupted.number
    click.get_current_context().exit(code)


def hold(settings: Settings, holding: Holding, entered: Entered) -> int:
    """Show the key and keep it until a signal comes. Raises KvorumError when it is lost."""
    key = {"key": b64(entered.place.key)}
    kv.show_get(holding.client.call("/v3/kv/range", key, safe=True), settings)
    while True:
        match holding.next_event():
            case Signalled():
                return 0
            case Lost(why):
                raise KvorumError(f"session expired: {why}")
            case InDoubt() | Failed() | Ended() | Entered():
                pass


def _run(command: list[str], holding: Holding, entered: Entered) -> int:
    """The command's exit code, 128 and the signal's number if it was ended by one."""
    key = os.fsdecode(entered.place.key)
    told = {
        "ETCD_LOCK_KEY": key,
        "ETCD_LOCK_REV": str(entered.revision),
        "KVORUM_FENCING_TOKEN": str(entered.place.token),
    }
    running = Child(command, told)
    threading.Thread(target=lambda: holding.events.put(Ended(running.wait())), daemon=True).start()
    lost, killed = "", False
    while True:
        match holding.events.get() if killed else holding.next_event():
            case Ended(code):
                break
            case Signalled(number):
                running.forward(number)
            case InDoubt():
                lost = "its lease was not renewed for long"
                running.end(signal.SIGTERM)
            case Lost(why):
                lost, killed = why, True
                running.end(signal.SIGKILL)
            case Failed() | Entered():
                pass
    if lost:
        name = entered.place.key.decode(errors="replace")
        raise Failure(f"the lock {name} was lost, so the command was ended: {lost}", EXIT_INTERRUPTED)
    return exit_code(code)
