"""A group of commands that are imported when they are used: ``kvorum --help`` must answer at once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kvorum.cli.go_switches import GoGroup

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

OTHER = "Other"


class LazyGroup(GoGroup):
    """``table``: each command's name, where it is (``module:attribute``), and its sentence in the help.
    ``topics``: under which headings they stand there; those of no topic come last, under ``Other``."""

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, tuple[str, str]],
        topics: Mapping[str, Sequence[str]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        named = {name for names in topics.values() for name in names}
        self._topics = {**topics, OTHER: [name for name in table if name not in named]}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self._topics.values() for name in names if name in self._table]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self._table))
        for topic, names in self._topics.items():
            # A space more than the longest name has, so that all topics' sentences begin in one column.
            rows = [(name.ljust(width), self._table[name][1]) for name in names if name in self._table]
            if rows:
                with formatter.section(topic):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's, but without importing every command for its sentence."""
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=self._table[name][1])
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)
