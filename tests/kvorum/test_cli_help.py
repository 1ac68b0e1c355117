"""The help: at once, by topic, and with examples that are right."""

from __future__ import annotations

import math
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from kvorum.cli import main
from tests.common.commands import KVORUM
from tests.common.servers import ROOT

HELP_SECONDS = 0.150
HELP_RUNS_MAX = 100
SLOW = {
    *("aiohttp", "asyncio", "dns", "email", "http.client", "jinja2", "json", "logging", "orjson"),
    *("pydantic", "rich", "ssl", "subprocess", "tomllib", "yaml"),
}
Path = tuple[str, ...]


def commands(group: click.Group, path: Path = ()) -> Iterator[tuple[Path, click.Command]]:
    """Every command, and the groups too."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(main.cli))
OURS = {path: command for path, command in ALL.items() if path != ("serve",)}  # its help is the server's


@pytest.mark.parametrize("path", OURS, ids=" ".join)
def test_every_command_has_examples_that_it_accepts(path: Path) -> None:
    """They name the command, and each of their flags is one that it has."""
    command = OURS[path]
    text = command.get_help(click.Context(command, info_name=path[-1]))
    lines = [line.strip() for line in text.partition("Examples:")[2].splitlines() if line.strip()]
    assert lines, f"no examples in the help of {' '.join(path)}"
    for line in lines:
        assert "kvorum " in line
        accept(main.hoisted(words_of_kvorum(line)), path)


def words_of_kvorum(line: str) -> list[str]:
    """The arguments of kvorum in a line of a shell, without what the shell takes for itself."""
    after = line.partition("kvorum ")[2].partition("  #")[0].rstrip().removesuffix(')"')
    words = shlex.split(after)
    ends = [words.index(mark) for mark in ("<", ">", "|", "&&") if mark in words]
    return words[: min(ends, default=len(words))]


def accept(arguments: list[str], path: Path) -> None:
    """Parse, and run nothing: not even what looks at a flag."""
    command: click.Command = main.cli
    named: Path = ()
    while True:
        _, rest, _ = command.make_parser(click.Context(command, info_name="kvorum")).parse_args(arguments)
        if not isinstance(command, click.Group):
            break
        name, *arguments = rest
        named += (name,)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {' '.join(named)}"
        command = found
    assert named[: len(path)] == path or path[0] == "config", f"{named} is no example of {path}"


@pytest.mark.parametrize("name", main._COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """Somewhere in the README or docs/."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = re.compile(rf"`(?:kvorum )?{name}\b|kvorum {name}\b")
    assert any(named.search(page.read_text()) for page in pages)


def test_every_command_stands_under_a_topic() -> None:
    """Nothing is left over for the last heading."""
    ran = subprocess.run([*KVORUM, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "Keys:" in ran.stdout
    assert "Other:" not in ran.stdout


def test_the_help_imports_nothing_slow() -> None:
    """What only some commands need is not there, and no command either."""
    code = (
        "import sys; from kvorum.cli.main import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    modules = set(ran.stderr.split())
    assert not modules & SLOW
    named = {where.partition(":")[0] for where, _ in main._COMMANDS.values()} - {"kvorum.cli.main"}
    assert not modules & named


def test_the_help_is_there_at_once() -> None:
    """By processor time, and of many runs the best: on a busy machine others share the core's caches and
    units, which makes any of them slower and none faster."""
    took = math.inf
    for _ in range(HELP_RUNS_MAX):
        took = min(took, processor_seconds_of([*KVORUM, "--help"]))
        if took < HELP_SECONDS:
            return
    raise AssertionError(f"{took:.3f} s")


def processor_seconds_of(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_server_s_help_has_an_example() -> None:
    """``serve`` has flags of its own, and a help of its own."""
    ran = subprocess.run([*KVORUM, "serve", "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "kvorum serve --data-dir" in ran.stdout
