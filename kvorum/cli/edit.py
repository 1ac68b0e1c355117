"""edit: a value, or all that is under a prefix, in your editor, and back with compare-and-set."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvorum.cli import completing, signals
from kvorum.cli.data import formats, reading, records, terminal
from kvorum.cli.data.changes import Changes, towards
from kvorum.cli.data.committing import commit
from kvorum.cli.data.keys import directory, shown
from kvorum.cli.data.nesting import BadContent
from kvorum.cli.examples import examples
from kvorum.cli.raw_text import to_bytes, to_text
from kvorum.cli.settings import EXIT_INVALID_INPUT, Failure, current

if TYPE_CHECKING:
    from kvorum.client import Client

_HEADER = """\
# The keys under {prefix} at revision {revision}. What you take out here is deleted; nothing is
# written if you change nothing, or if somebody else changes one of them meanwhile.
"""
_NAME_MAX = 60  # characters, of up to four bytes each
Reader = Callable[[bytes], Changes]


@click.command(
    epilog=examples(
        "kvorum edit /app/db/host",
        "kvorum edit /app/",
    )
)
@click.argument("target", metavar="KEY | PREFIX/", shell_complete=completing.keys())
@click.option("-r", "-R", "--recursive", is_flag=True, help="A prefix, without a slash at its end.")
@click.option("--format", "format_", type=click.Choice(formats.FORMATS), help="Of a prefix; YAML otherwise.")
def edit(target: str, recursive: bool, format_: str | None) -> None:
    """Edit a value, or all keys under a prefix as YAML, with $VISUAL or $EDITOR.

    It is written only if nobody else changed it meanwhile; otherwise nothing is, and your text is kept in a
    file. A key that is not there is created. Where a value does not end in a line break, the one that editors
    add at the end is taken off again.
    """
    settings = current()
    with settings.client() as client:
        if recursive or target.endswith("/"):
            revision, count = _edit_prefix(client, target, format_ or "yaml")
        else:
            revision, count = _edit_key(client, to_bytes(target))
    row = {"target": target, "changed": count, "revision": revision}
    done = (
        f"{target}: written (revision {revision})\n"
        if revision
        else f"{target}: unchanged, nothing written\n"
    )
    records.show_one(settings, row, tuple(row), lambda: done)


Outcome = tuple[int | None, int]  # the revision, if anything was written, and how many keys changed


def _edit_key(client: Client, key: bytes) -> Outcome:
    before = reading.of(client, [key])
    old = before.kvs[key].value if key in before.kvs else b""

    def changed(text: bytes) -> Changes:
        value = text if old.endswith(b"\n") else text.removesuffix(b"\n")
        if value == old:  # a key that is not there stays so
            return Changes(before, {}, kept=[key])
        return towards(before, {key: value})

    return _edit(client, _file_name(key), old, changed)


def _file_name(key: bytes) -> str:
    """The key's last name, whose suffix tells editors what it is; as much of it as a file's name may have."""
    name = shown(key).rstrip("/").rsplit("/", 1)[-1][-_NAME_MAX:]
    return "value" if name in ("", ".", "..") else name


def _edit_prefix(client: Client, prefix: str, format_: str) -> Outcome:
    under = directory(prefix)
    with terminal.progress("reading") as report:
        before = reading.under(client, under, report=report)
    try:
        text = formats.write({key.removeprefix(under): kv.value for key, kv in before.kvs.items()}, format_)
    except BadContent as problem:
        raise Failure(f"this cannot be edited as {format_}: {problem}") from None
    header = _HEADER.format(prefix=shown(under) or "no prefix", revision=before.revision)
    existing = [to_text(key.removeprefix(under)) for key in before.kvs]

    def changed(data: bytes) -> Changes:
        content = formats.read(data, format_, existing)
        return towards(before, {under + to_bytes(key): value for key, value in content.items()}, prune=under)

    return _edit(client, f"keys.{format_}", b"" if format_ == "json" else header.encode(), changed, text)


def _edit(client: Client, name: str, header: bytes, changed: Reader, text: bytes = b"") -> Outcome:
    with _kept_on_failure(name, header + text) as path:
        while True:
            _run_editor(path)
            try:
                changes = changed(path.read_bytes())
                break
            except OSError as error:
                raise Failure(f"the editor left no text: {error.strerror}; nothing was written") from None
            except BadContent as problem:
                if not (terminal.can_ask() and terminal.confirmed(f"{problem}. Edit again?")):
                    raise Failure(str(problem), EXIT_INVALID_INPUT) from None
        return commit(client, changes) if changes else None, len(changes)


@contextlib.contextmanager
def _kept_on_failure(name: str, text: bytes) -> Iterator[Path]:
    """A file for the editor that nobody else can read; whatever goes wrong, what was typed is not lost."""
    folder = Path(tempfile.mkdtemp(prefix="kvorum-edit-"))
    path = folder / name
    path.write_bytes(text)
    try:
        yield path
    except BaseException:
        if path.exists() and path.read_bytes() != text:
            click.echo(f"What you edited is kept in {path}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _run_editor(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        # Ctrl-C goes to all on the terminal, and to an editor it may mean anything: we do not end then.
        # With handlers, as what is ignored would be so in the editor too.
        with signals.handled((signal.SIGINT, signal.SIGQUIT), lambda number, frame: None):
            ran = subprocess.run([*shlex.split(editor), str(path)], check=False)
    except (OSError, ValueError) as error:
        raise Failure(f"the editor {editor!r} cannot be run: {error}; set $VISUAL or $EDITOR") from None
    if ran.returncode:
        raise Failure(f"the editor ended with {ran.returncode}: nothing was written")
