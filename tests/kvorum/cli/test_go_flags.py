"""Switches with values, as Go has them."""

from __future__ import annotations

import click
import pytest

from kvorum.cli.go_flags import plain
from tests.common.commands import run, run_here
from tests.common.servers import Server


@click.group()
@click.option("--loud", is_flag=True)
def tool() -> None:
    pass


@tool.command()
@click.argument("words", nargs=-1)
@click.option("-a", "--all", is_flag=True)
@click.option("--safe/--unsafe", default=True)
@click.option("--name")
def say() -> None:
    pass


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("say --all=true x", "say --all x"),
        ("say -a=T x", "say -a x"),
        ("say --all=false x", "say x"),
        ("say --all --all=0 x", "say x"),
        ("say -a --all=F --all=1 x", "say --all x"),
        ("say --safe=false", "say --unsafe"),
        ("say --unsafe --safe=true", "say --safe"),
        ("--loud=true say --loud=false", "say"),
        ("say --name=true --all=yes", "say --name=true --all=yes"),
        ("say --all true", "say --all true"),
        ("say x -- --all=true", "say x -- --all=true"),
        ("--all=true say", "--all=true say"),
    ],
)
def test_switches_are_taken_as_go_takes_them(given: str, taken: str) -> None:
    """The last one counts; what is no switch, no truth value, or behind -- stays as it is."""
    assert plain(tool, given.split()) == taken.split()


@pytest.mark.parametrize(
    "line",
    [
        "get --prefix=true go/",
        "get --prefix=false go/",
        "get --prefix=true --keys-only=1 go/",
        "get --hex=true go/a",
        "--hex=false get go/a",
        "lease list --hex=false",
        "endpoint health --cluster=true",
        "endpoint --cluster=f health",
        "put go/b -- --prefix=true",
        "get go/b",
    ],
)
def test_they_do_what_they_do_in_etcdctl(line: str, etcd_server: Server) -> None:
    """In commands, in groups and among the global flags."""
    assert run("etcdctl", etcd_server, ["put", "go/a", "x"])[0] == 0
    assert run("kvorum", etcd_server, line.split()) == run("etcdctl", etcd_server, line.split())


@pytest.mark.parametrize("words", [["--prefix=maybe", "get", "x"], ["get", "x", "--prefix=maybe"]])
def test_what_is_no_truth_value_is_refused(words: list[str]) -> None:
    """In one line that names the flag."""
    code, out, error = run_here(words)
    assert (code, out) == (128, "")
    assert error.startswith("Error: ")
    assert "--prefix" in error


def test_a_flag_outvotes_the_environment(kvorum_server: Server) -> None:
    """Be it true or false."""
    put = run("kvorum", kvorum_server, ["put", "hexed", "x"])
    assert put[0] == 0
    line = [f"--endpoints={kvorum_server.url}", "get", "hexed"]
    for flag, shown in (("--hex=false", "hexed\nx\n"), ("--hex", "\\x68\\x65\\x78\\x65\\x64\n\\x78\n")):
        for value in ("true", "false"):
            assert run_here([*line, flag], environment={"ETCDCTL_HEX": value}).out == shown
