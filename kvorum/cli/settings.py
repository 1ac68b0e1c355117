"""What every command is told by the global flags, and how commands fail."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from kvorum.keepalive import USUAL, Keepalive
from kvorum.tls import Tls

if TYPE_CHECKING:  # they are slow to import, and ``--help`` needs none of them
    from kvorum.async_client import AsyncClient
    from kvorum.client import Client
    from kvorum.gateway import Gateway

EXIT_ERROR, EXIT_BAD_CONNECTION, EXIT_INVALID_INPUT = 1, 2, 3
EXIT_BAD_FEATURE, EXIT_INTERRUPTED, EXIT_BAD_ARGUMENTS = 4, 5, 128
FORMATS = ("simple", "json", "yaml", "fields", "table")
_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)"
_DURATION = re.compile(rf"(?:{_PART})+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Failure(click.ClickException):
    """Ends the command: ``Error: message`` on stderr and an exit code of etcdctl's."""

    def __init__(self, message: str, exit_code: int = EXIT_ERROR) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class, and reads it here


@dataclass(frozen=True)
class Settings:
    """Times in seconds. ``write_out`` is "json" for YAML too, then ``yaml`` is true."""

    endpoints: tuple[str, ...]
    write_out: str
    hex: bool
    dial_timeout: float
    command_timeout: float
    tls: Tls
    user: str = ""
    password: str = ""
    yaml: bool = False
    keepalive: Keepalive = USUAL
    insecure_transport: bool = True

    def gateway(self, endpoint: str | None = None) -> Gateway:
        from kvorum.gateway import Gateway

        return Gateway(
            [endpoint] if endpoint else self.endpoints,
            dial_timeout=self.dial_timeout,
            command_timeout=self.command_timeout,
            tls=self._asked_tls,
            credentials=self.credentials,
            keepalive=self.keepalive,
        )

    @cached_property
    def credentials(self) -> tuple[str, str] | None:
        """User and password; None without a user."""
        if not self.user:
            return None
        from kvorum.cli import passwords

        return passwords.of_user(self.user, self.password)

    def client(self) -> Client:
        """Of all endpoints, with what the flags say."""
        from kvorum.client import Client

        return Client(self.endpoints, **self._of_a_client())

    def async_client(self) -> AsyncClient:
        """The same for a command that does several things at once."""
        from kvorum.async_client import AsyncClient

        return AsyncClient(self.endpoints, **self._of_a_client())

    @property
    def _asked_tls(self) -> Tls | None:
        """None where no flag asks for it: then an endpoint without a scheme is http."""
        return None if self.tls == Tls() and self.insecure_transport else self.tls

    def _of_a_client(self) -> dict[str, Any]:
        name, password = self.credentials or ("", "")
        return {
            "timeout": self.command_timeout,
            "dial_timeout": self.dial_timeout,
            "tls": self._asked_tls,
            "user": name,
            "password": password,
            "keepalive": self.keepalive,
        }

    def with_endpoints(self, endpoints: tuple[str, ...]) -> Settings:
        return replace(self, endpoints=endpoints)


def current() -> Settings:
    """The settings of the command being run."""
    settings = click.get_current_context().find_object(Settings)
    assert settings is not None
    return settings


def duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """The seconds of an option that is a duration: its callback."""
    return seconds(param.opts[0], value)


def positive_duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """As ``duration``, where none at all makes no sense."""
    found = duration(ctx, param, value)
    if not found:
        raise click.BadParameter(f"{value!r} is wrong: expected more than 0", param_hint=repr(param.opts[0]))
    return found


def seconds(flag: str, value: str) -> float:
    """A duration as Go writes it: 5s, 500ms, 1m30s; or a number of seconds."""
    if _NUMBER.fullmatch(value):
        return float(value)
    if _DURATION.fullmatch(value):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, value))
    raise click.BadParameter(
        f"{value!r} is no duration: expected one such as 5s or 500ms", param_hint=repr(flag)
    )
