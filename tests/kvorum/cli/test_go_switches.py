"""Switches that may have a value, as Go's."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from kvorum.cli.go_switches import GoGroup


@click.group(cls=GoGroup)
@click.option("--loud", is_flag=True)
def group(loud: bool) -> None:
    click.echo("!" if loud else "", nl=False)


@group.command()
@click.argument("words", nargs=-1)
@click.option("--prefix", is_flag=True)
@click.option("--ask/--no-ask", default=True)
@click.option("--text", default="")
def command(words: tuple[str, ...], prefix: bool, ask: bool, text: str) -> None:
    click.echo(f"{words} {prefix=} {ask=} {text=}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "() prefix=False ask=True text=''"),
        ("--prefix a", "('a',) prefix=True ask=True text=''"),
        ("--prefix=true a", "('a',) prefix=True ask=True text=''"),
        ("a --prefix=F", "('a',) prefix=False ask=True text=''"),
        ("--ask=false a", "('a',) prefix=False ask=False text=''"),
        ("--ask a", "('a',) prefix=False ask=True text=''"),
        ("--no-ask a", "('a',) prefix=False ask=False text=''"),
        ("--prefix --prefix=0", "() prefix=False ask=True text=''"),
        ("--prefix=0 --prefix", "() prefix=True ask=True text=''"),
        ("--ask=false --no-ask --ask=1", "() prefix=False ask=True text=''"),
        ("--text --prefix=false --prefix=1", "() prefix=True ask=True text='--prefix=false'"),
        ("--text=--prefix=1", "() prefix=False ask=True text='--prefix=1'"),
        ("-- --prefix=false", "('--prefix=false',) prefix=False ask=True text=''"),
    ],
)
def test_the_last_word_about_a_switch_counts(line: str, said: str) -> None:
    """Whether it has a value or not; what is another's word stays that."""
    ran = CliRunner().invoke(group, ["command", *line.split()])
    assert (ran.exit_code, ran.output) == (0, said + "\n")


def test_a_group_s_switches_stand_before_the_command() -> None:
    """Those behind it are the command's own, also where they have the same name."""
    ran = CliRunner().invoke(group, ["--loud=true", "command", "--prefix=1"])
    assert (ran.exit_code, ran.output) == (0, "!() prefix=True ask=True text=''\n")
    assert CliRunner().invoke(group, ["command", "--loud=true"]).exit_code == 2


@pytest.mark.parametrize("value", ["", "maybe", "yes", "tRUE"])
def test_what_is_neither_true_nor_false_is_refused(value: str) -> None:
    """Go takes no other words; and it is not repeated, it may be a slip that says a secret."""
    ran = CliRunner().invoke(group, ["command", f"--prefix={value}"])
    assert ran.exit_code == 2
    assert "Invalid value for '--prefix': expected true or false behind =" in ran.output


def test_the_opposite_s_value_is_refused() -> None:
    """``--no-ask=false`` would be to ask: it is no word of Go's."""
    ran = CliRunner().invoke(group, ["command", "--no-ask=false"])
    assert ran.exit_code == 2
    assert "--no-ask" in ran.output
