"""Switches that take a value behind ``=``, as Go's do: ``--prefix=false``. click's take none."""

from __future__ import annotations

from typing import Any

import click

_VALUES = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


class GoSwitches(click.Command):
    """The switches of such a command may have a value. The last word about one counts."""

    def make_parser(self, ctx: click.Context) -> Any:
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], list[click.Parameter]]:
            args, said = self._said(args, ctx.allow_interspersed_args)
            values, rest, order = parse(args)
            return {**values, **said}, rest, order

        parser.parse_args = parse_args
        return parser

    def _said(self, args: list[str], everywhere: bool) -> tuple[list[str], dict[str, bool]]:
        """The words without the switches that have a value, and these values. Unless they may stand
        ``everywhere``, those behind the first argument are another command's."""
        options = [param for param in self.params if isinstance(param, click.Option)]
        switches = {word: one for one in options if one.is_flag for word in one.opts}
        opposites = {word: one for one in options if one.is_flag for word in one.secondary_opts}
        takes_value = {word for one in options if not one.is_flag for word in one.opts}
        left: list[str] = []
        said: dict[str, bool] = {}
        words = iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            if word == "--" or not (everywhere or word.startswith("-")):
                return [*left, word, *words], said
            if name in switches and equals:
                said[switches[name].name or ""] = _parsed(switches[name], value)
                continue
            left.append(word)
            if switch := switches.get(name) or opposites.get(name):
                said.pop(switch.name or "", None)
            elif word in takes_value:
                left += [value for value in [next(words, None)] if value is not None]
        return left, said


class GoCommand(GoSwitches):
    """A command for itself."""


class GoGroup(GoSwitches, click.Group):
    """A group, and its commands."""

    command_class = GoCommand


def _parsed(switch: click.Option, value: str) -> bool:
    try:
        return _VALUES[value]
    except KeyError:
        raise click.BadParameter("expected true or false behind =", param=switch) from None
