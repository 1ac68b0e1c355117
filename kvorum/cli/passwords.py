"""Passwords that are asked for, or come on standard input. They are never shown, nor said in an error."""

from __future__ import annotations

import sys

import click

from kvorum.cli.raw_text import is_text
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure


def ask(prompt: str) -> str:
    """The line that is typed, without the blanks around it, as etcdctl reads it; "" at the end of input.
    What is typed on a terminal is not seen. The prompt goes to standard error."""
    try:
        if sys.stdin and sys.stdin.isatty():
            import getpass

            typed = getpass.getpass(prompt, sys.stderr)
        else:
            click.echo(prompt, err=True)
            typed = _line()
    except EOFError:
        click.echo(err=True)
        return ""
    except UnicodeDecodeError:
        click.echo(err=True)
        raise _no_text() from None
    return typed.strip()


def of_user(user: str, password: str, prompt: str = "Password: ") -> tuple[str, str]:
    """Name and password, of NAME:PASSWORD or of both. As in etcdctl one that is nowhere is asked for."""
    name = user
    if not password:
        name, colon, password = user.partition(":")
        password = password if colon else ask(prompt)
    if not is_text(name + password):
        raise Failure("the user or the password is not UTF-8: expected text", EXIT_BAD_ARGUMENTS)
    return name, password


def new(user: str) -> str:
    """The password that a user is to have, typed twice. Raises Failure in etcdctl's words."""
    password = ask(f"Password of {user}: ")
    if not password:
        raise Failure("empty password", EXIT_BAD_ARGUMENTS)
    if password != ask(f"Type password of {user} again for confirmation: "):
        raise Failure("given passwords are different", EXIT_BAD_ARGUMENTS)
    return password


def from_stdin() -> str:
    """The first word of the first line of standard input: more is not read by etcdctl either."""
    words = _line().split()
    return words[0] if words else ""


def _line() -> str:
    """The next one of standard input; "" at its end, or where it is closed."""
    try:
        return sys.stdin.buffer.readline().decode() if sys.stdin else ""
    except UnicodeDecodeError:
        raise _no_text() from None


def _no_text() -> Failure:
    return Failure("the password is not UTF-8: expected text", EXIT_BAD_ARGUMENTS)
