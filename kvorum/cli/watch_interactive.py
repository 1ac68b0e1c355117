"""watch -i: each line of standard input begins another watch, and all print what they see.

    watch /app/ --prefix --rev=42
    watch /jobs/ --prefix -- sh -c 'echo $ETCD_WATCH_KEY'

etcdctl's other word, ``progress``, asks on a stream that is already open. The JSON gateway takes one request
for each stream, so it is refused.
"""

from __future__ import annotations

import queue
import sys
import threading
from typing import Any, TextIO

import click

from kvorum.cli import watch_output, watched, words
from kvorum.cli.behind_dashes import CommandWithCommand, behind_dashes
from kvorum.cli.kv import Arguments
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, EXIT_INVALID_INPUT, Failure, Settings
from kvorum.errors import KvorumError

_LINE = CommandWithCommand(
    "watch",
    params=[
        click.Argument(["arguments"], nargs=-1),
        click.Option(["--prefix"], is_flag=True),
        click.Option(["--rev"], type=int, default=0),
        click.Option(["--prev-kv"], is_flag=True),
        click.Option(["--progress-notify"], is_flag=True),
    ],
    add_help_option=False,
)
_NO_PROGRESS = "progress cannot be asked for by the JSON gateway: watch with --progress-notify"


class Interactive:
    """One session. The watches run in threads, and end with the process."""

    def __init__(self, settings: Settings, environment: Arguments) -> None:
        self._settings = settings
        self._environment = environment
        self._context = click.get_current_context()
        self._printing = threading.Lock()
        self._told: queue.SimpleQueue[str | Failure] = queue.SimpleQueue()  # lines, and what ends it all

    def run(self) -> None:
        """Until the input ends, which is a Failure as it is to etcdctl, or a command fails."""
        self._start(self._read, sys.stdin)
        while True:
            told = self._told.get()
            if isinstance(told, Failure):
                raise told
            self._take(told)

    def _start(self, target: Any, *arguments: Any) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            if line.endswith("\n"):
                self._told.put(line.removesuffix("\n"))
        self._told.put(Failure("error reading watch request line: EOF", EXIT_INVALID_INPUT))

    def _take(self, line: str) -> None:
        try:
            split = words.split(line)
        except ValueError as error:
            raise Failure(str(error), EXIT_INVALID_INPUT) from None
        if not split:
            self._complain(f"Invalid command: {line} (watch and progress supported)")
        elif split[0] == "progress":
            self._complain(f"Invalid command {line} ({_NO_PROGRESS})")
        elif split[0] != "watch":
            self._complain(f"Invalid command {line} (only support watch)")
        elif len(split) < 2 and not self._environment:
            self._complain(f"Invalid command {line} (command type or key is not provided)")
        else:
            try:
                create, command = self._parsed(split[1:])
            except watched.BadRange as error:
                self._complain(f"Invalid command {line} ({error.message})")
            else:
                self._start(self._follow, create, command)

    def _parsed(self, split: list[str]) -> tuple[dict[str, Any], list[str]]:
        """The request, and the command behind ``--``. Raises BadRange, or the Failure that ends all."""
        try:
            context = _LINE.make_context("watch", split)
        except click.UsageError as error:
            raise Failure(error.format_message(), EXIT_BAD_ARGUMENTS) from None
        command = behind_dashes(context)
        options = dict(context.params)
        keys = watched.chosen(options.pop("arguments"), self._environment, command)
        return watched.create_request(keys, **options), command or []

    def _follow(self, create: dict[str, Any], command: list[str]) -> None:
        with self._context.scope(cleanup=False):  # which is of a thread
            try:
                with self._settings.gateway() as gateway:
                    for response in gateway.stream("/v3/watch", {"create_request": create}):
                        with self._printing:
                            watch_output.show(response, self._settings)
                        watch_output.run(response, command)
            except watch_output.Cancelled:
                pass  # it is told; the others go on
            except KvorumError as error:
                self._complain(f"watch was canceled ({error})")
            except Failure as error:
                self._told.put(error)

    def _complain(self, sentence: str) -> None:
        with self._printing:
            print(sentence, file=sys.stderr, flush=True)
