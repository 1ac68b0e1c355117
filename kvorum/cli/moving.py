"""cp and mv of a key or of all keys under a prefix, and rm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from kvorum.cli import completing
from kvorum.cli.data import reading, records, terminal
from kvorum.cli.data.changes import Changes, Snapshot, Unwritten
from kvorum.cli.data.committing import Conflict, commit
from kvorum.cli.data.keys import counted, directory, shown
from kvorum.cli.data.moving import Refused, moves, target_of
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_bytes
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, Settings, current
from kvorum.txn import Delete

_RECURSIVE = click.option("-r", "-R", "--recursive", is_flag=True, help="All keys under the prefix SOURCE.")
_FORCE = click.option("-f", "--force", is_flag=True, help="Overwrite keys that exist.")


@click.command(
    epilog=examples(
        "kvorum cp /app/db/host /app/db/host.old",
        "kvorum cp -r /app /staging",
    )
)
@click.argument("source", shell_complete=completing.keys())
@click.argument("target", shell_complete=completing.keys())
@_RECURSIVE
@_FORCE
def cp(source: str, target: str, recursive: bool, force: bool) -> None:
    """Copy a key or, with -r, all keys under a prefix, in one transaction.

    A TARGET that ends in a slash is a place to copy a key to under its own last name. With -r, the keys under
    SOURCE come to be under TARGET. Copies belong to no lease.
    """
    _transfer(source, target, recursive, force, remove=False)


@click.command(
    epilog=examples(
        "kvorum mv /app/dbhost /app/db/host",
        "kvorum mv -r /app /apps/first",
    )
)
@click.argument("source", shell_complete=completing.keys())
@click.argument("target", shell_complete=completing.keys())
@_RECURSIVE
@_FORCE
def mv(source: str, target: str, recursive: bool, force: bool) -> None:
    """Move a key or, with -r, all keys under a prefix, in one transaction.

    A TARGET that ends in a slash is a place to move a key to under its own last name. With -r, the keys under
    SOURCE come to be under TARGET. What is moved keeps its lease.
    """
    _transfer(source, target, recursive, force, remove=True)


def _transfer(source: str, target: str, recursive: bool, force: bool, *, remove: bool) -> None:
    settings = current()
    with settings.client() as client, terminal.progress("reading") as report:
        if recursive:
            whole = directory(source), directory(target)
            read = reading.under(client, whole[0], report=report)
            targets = {key: whole[1] + key.removeprefix(whole[0]) for key in read.kvs}
        else:
            whole, key = None, to_bytes(source)
            read = reading.of(client, [key])
            targets = {key: target_of(key, to_bytes(target))} if read.kvs else {}
        if not read.kvs:
            raise _nothing(source, recursive)
        there = reading.of(client, targets.values(), revision=read.revision)
        before = Snapshot(read.revision, {**there.kvs, **read.kvs})
        try:
            changes = moves(before, targets, remove=remove, force=force, whole=whole)
        except Refused as refused:
            raise Failure(str(refused)) from None
        revision = commit(client, changes)
    done = "moved" if remove else "copied"
    row = {done: len(targets), "keys": [*targets.values()], "revision": revision}
    records.show_one(
        settings, row, (done, "revision"), lambda: f"{done} {counted(len(targets))} (revision {revision})\n"
    )


@click.command(
    epilog=examples(
        "kvorum rm /app/db/host /app/db/port",
        "kvorum rm -r /staging",
    )
)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...", shell_complete=completing.keys(99))
@click.option("-r", "-R", "--recursive", is_flag=True, help="All keys under each prefix.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm(keys: Sequence[str], recursive: bool, yes: bool) -> None:
    """Delete keys or, with -r, all keys under prefixes, in one transaction.

    Before it deletes prefixes it says how many keys that is, and asks; where nobody can be asked, it wants
    --yes. What changes under a prefix while the question stands is not deleted unseen: then nothing is.
    """
    settings = current()
    if recursive:
        _remove_prefixes(settings, [directory(key) for key in keys], yes)
    else:
        _remove_keys(settings, [to_bytes(key) for key in dict.fromkeys(keys)])


def _remove_keys(settings: Settings, keys: Sequence[bytes]) -> None:
    with settings.client() as client:
        before = reading.of(client, keys)
        if missing := [key for key in keys if key not in before.kvs]:
            raise Failure(f"there is no key {', '.join(map(shown, missing))}: nothing was deleted")
        revision = commit(client, Changes(before, {}, keys))
    _report_removed(settings, len(keys), revision)


def _remove_prefixes(settings: Settings, prefixes: Sequence[bytes], yes: bool) -> None:
    # A prefix under another goes with that.
    prefixes = [one for one in dict.fromkeys(prefixes) if not _is_under_another(one, prefixes)]
    if not yes and not terminal.can_ask():
        raise Failure("nobody can be asked here whether to delete these keys: give --yes", EXIT_BAD_ARGUMENTS)
    with settings.client() as client:
        revision, count = 0, 0
        for prefix in prefixes:
            found = client.range(prefix, prefix=True, revision=revision, count_only=True)
            revision, count = revision or found.revision, count + found.count
        if not count:
            raise Failure(f"there is no key under {_listed(prefixes)}")
        if not yes and not terminal.confirmed(f"Delete {counted(count)} under {_listed(prefixes)}?"):
            raise Failure("nothing was deleted")
        compares = [] if yes else [Unwritten.since(revision, prefix) for prefix in prefixes]
        outcome = client.transact(compares, [Delete(prefix, prefix=True) for prefix in prefixes])
        if not outcome.succeeded:
            raise Conflict(f"something under {_listed(prefixes)} changed meanwhile: nothing was deleted")
    deleted = sum(getattr(one, "deleted", 0) for one in outcome.responses)
    _report_removed(settings, deleted, outcome.revision)


def _is_under_another(prefix: bytes, prefixes: Sequence[bytes]) -> bool:
    return any(prefix != other and prefix.startswith(other) for other in prefixes)


def _report_removed(settings: Settings, count: int, revision: int) -> None:
    row: dict[str, Any] = {"removed": count, "revision": revision}
    records.show_one(settings, row, tuple(row), lambda: f"removed {counted(count)} (revision {revision})\n")


def _nothing(source: str, recursive: bool) -> Failure:
    if recursive:
        return Failure(f"there is no key under {shown(directory(source)) or 'the store'}")
    return Failure(f"there is no key {shown(to_bytes(source))} (all keys under a prefix: -r)")


def _listed(prefixes: Sequence[bytes]) -> str:
    return ", ".join(shown(prefix) or "the whole store" for prefix in prefixes)
