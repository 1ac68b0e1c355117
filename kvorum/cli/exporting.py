"""export: what is under a prefix, as a file."""

from __future__ import annotations

import click

from kvorum.cli import completing
from kvorum.cli.data import files, formats, reading, terminal
from kvorum.cli.data.keys import directory
from kvorum.cli.data.nesting import BadContent
from kvorum.cli.examples import examples
from kvorum.cli.settings import Failure, current


@click.command(
    name="export",
    epilog=examples(
        "kvorum export --prefix /app",
        "kvorum export backup.json",
        "kvorum export .env --prefix /app --rev 1234",
    ),
)
@click.argument("name", default=files.STANDARD, metavar="[FILE]", shell_complete=completing.files)
@click.option("--prefix", default="", help="Only the keys under this prefix, named without it.")
@click.option("--format", "format_", type=click.Choice(formats.FORMATS), help="Not by the file's suffix.")
@click.option("--rev", default=0, help="As of this revision.")
@click.option("--typed", is_flag=True, help="Numbers, booleans and lists as such where they look like it.")
def export(name: str, prefix: str, format_: str | None, rev: int, typed: bool) -> None:
    """Write keys and values as YAML, JSON, TOML, .env or .properties, all as of one revision.

    Without a FILE, or with "-", they go to standard output, as YAML unless --format or -o says otherwise. A
    file is replaced as a whole.
    """
    settings = current()
    if name == files.STANDARD and format_ is None:
        format_ = "json" if settings.write_out == "json" and not settings.yaml else "yaml"
    kind = files.format_of(name, format_)
    under = directory(prefix)
    with settings.client() as client, terminal.progress("reading") as report:
        found = reading.under(client, under, revision=rev, report=report)
    try:
        content = {key.removeprefix(under): value for key, value in found.values().items()}
        data = formats.write(content, kind, typed=typed)
    except BadContent as problem:
        raise Failure(f"this cannot be written as {kind}: {problem}") from None
    files.write(name, data)
