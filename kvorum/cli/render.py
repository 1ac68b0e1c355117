"""render: files from templates and keys, once or for as long as the keys change."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from kvorum.cli import output, signals
from kvorum.cli.completing import files
from kvorum.cli.examples import examples
from kvorum.cli.settings import (
    EXIT_BAD_ARGUMENTS,
    EXIT_BAD_CONNECTION,
    EXIT_ERROR,
    Failure,
    current,
    seconds,
)
from kvorum.rendering import config
from kvorum.rendering.renderer import Renderer
from kvorum.rendering.snapshot import Reads, Snapshot
from kvorum.rendering.target import Outcome, Plan, Target
from kvorum.rendering.templates import Template, TemplateFailed


@click.command(
    epilog=examples(
        "kvorum render motd.j2",
        "kvorum render nginx.conf.j2 -d /etc/nginx/nginx.conf",
        "kvorum render --watch nginx.conf.j2:/etc/nginx/nginx.conf --check 'nginx -t -c {}'"
        " --reload 'nginx -s reload'",
        "kvorum render --watch --config render.yaml",
    )
)
@click.argument("words", nargs=-1, metavar="TEMPLATE | TEMPLATE:FILE...", shell_complete=files)
@click.option("-d", "--dest", help="The file that the one template becomes.", shell_complete=files)
@click.option("--config", "config_file", help="YAML file with templates.", shell_complete=files)
@click.option("--watch", is_flag=True, help="Go on, and render again when what was read changes.")
@click.option("--once", is_flag=True, help="Render and end: this is so without --watch.")
@click.option(
    "--check", default="", help="Shell command that must accept the new file, {}, before it is in place."
)
@click.option("--reload", default="", help="Shell command to run after a file has changed.")
@click.option("--mode", help="Mode of the file, in octal. Else it is the old file's.")
@click.option(
    "--wait",
    default="100ms:1s",
    show_default=True,
    metavar="QUIET[:MAX]",
    help="How long it has to be quiet before a change is rendered, and the longest that it may wait.",
)
@click.option("--check-timeout", default="60s", show_default=True, help="Time for --check and --reload.")
def render(
    words: tuple[str, ...],
    dest: str | None,
    config_file: str | None,
    watch: bool,
    once: bool,
    check: str,
    reload: str,
    mode: str | None,
    wait: str,
    check_timeout: str,
) -> None:
    """Make files of templates (Jinja2) and keys.

    Templates ask with get(key, default), exists(key), ls(folder), items(prefix), tree(folder), services(name)
    and env(name); filters beside Jinja2's own are from_json, to_json, from_yaml, to_yaml, b64encode and
    b64decode. All that is rendered in one go is of one revision. A file is replaced as a whole, and not
    touched when nothing has changed, a key is missing, or --check says no. Without a file the text goes to
    standard output.
    """
    if watch and once:
        raise Failure("--once and --watch exclude one another: give one of them", EXIT_BAD_ARGUMENTS)
    waits = _waits(wait)
    try:
        common = config.Common(
            check,
            reload,
            None if mode is None else config.mode(mode),
            seconds("--check-timeout", check_timeout),
        )
        if config_file is not None:
            if words or dest is not None or common != config.Common():
                raise ValueError("--config says all of templates: give no other templates or flags for them")
            plans = config.from_file(Path(config_file))
        elif len(words) == 1 and dest is None and (":" not in words[0] or Path(words[0]).exists()):
            if watch or common != config.Common():
                raise ValueError("without a file there is nothing to watch, check or reload: give --dest")
            _print(words[0])
            return
        elif words:
            plans = config.from_words(words, dest, common)
        else:
            raise ValueError("nothing to render: expected a template, SRC:DEST, or --config")
        targets = [Target(plan) for plan in plans]
        _refuse_doubles(plans)
    except (ValueError, OSError) as error:
        raise Failure(str(error), EXIT_BAD_ARGUMENTS) from None
    except TemplateFailed as error:
        raise Failure(str(error)) from None
    _run(targets, waits if watch else None)


def _waits(text: str) -> tuple[float, float]:
    quiet, colon, at_most = text.partition(":")
    shortest = seconds("--wait", quiet)
    return shortest, seconds("--wait", at_most) if colon else 10 * shortest


def _refuse_doubles(plans: list[Plan]) -> None:
    """Two templates of one file would replace it by turns, for ever."""
    seen = set()
    for plan in plans:
        file = plan.destination.resolve()
        if file in seen:
            raise ValueError(f"{plan.destination} is made of two templates: expected one for each file")
        seen.add(file)


def _print(source: str) -> None:
    template = Template(Path(source))
    with current().client() as client:
        text = template.render(Reads(Snapshot(client)))
    output.write(text)


def _run(targets: list[Target], waits: tuple[float, float] | None) -> None:
    def report(target: Target, outcome: Outcome) -> None:
        if outcome is Outcome.CHANGED or waits is None:
            output.write(f"{target.plan.destination}: {outcome.value}, revision {target.revision}\n")

    with signals.as_exceptions(), closing(current().client()) as client:
        renderer = Renderer(client, targets, report, output.complain)
        if waits is not None:
            renderer.forever(*waits)
        done = renderer.once()
    if done.failures:
        click.get_current_context().exit(EXIT_BAD_CONNECTION if done.is_unconnected else EXIT_ERROR)
