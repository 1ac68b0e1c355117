"""Scripts as tests: commands, and what they are claimed to print.

    # One sentence that says what the file proves.
    (set-up; more set-up)

    command; another command
    a third command
    ----
    what they print

A file is blocks with a blank line between them. A block has comment lines (``# ``), commands,
the line ``----``, and the expected output up to the next blank line. Commands stand one a line or
several between ``;``. The output of commands in parentheses is not shown; a block of only
such needs no ``----``. Commands that print nothing print ``(nothing)``, so that this too is a claim.

``pytest --rewrite`` puts what was printed in the place of what was expected. Comments, commands and
the order of all stay as they are. Read the diff: whoever commits it makes the claim.

The runner knows nothing about the commands: ``run`` is given a function for them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

SEPARATOR = "----"
NOTHING = "(nothing)"

Execute = Callable[[str], Iterable[str]]
"""Runs one command and returns the lines it prints."""


class ScriptError(Exception):
    """A script cannot be read, or a command of it is not understood."""


@dataclass(frozen=True, slots=True)
class Command:
    text: str
    is_shown: bool


@dataclass(slots=True)
class Block:
    line: int  # of its first line in the file, from 1
    head: list[str] = field(default_factory=list)  # comments and commands as they are written
    commands: list[Command] = field(default_factory=list)
    has_output: bool = False
    expected: list[str] = field(default_factory=list)

    @property
    def is_prose(self) -> bool:
        return not self.commands


def run(path: Path, execute: Execute, *, rewrite: bool = False) -> None:
    """Run the script at ``path``. Raises AssertionError with a diff if it prints something else than
    is expected, unless ``rewrite``: then the file is changed."""
    text = path.read_text(encoding="utf-8")
    blocks = parse(text, path.name)
    actual = "\n".join(_render(block, _execute(block, execute, path.name)) for block in blocks)
    expected = "\n".join(_render(block, block.expected) for block in blocks)
    if rewrite:
        if actual != text:
            path.write_text(actual, encoding="utf-8")
    elif actual != expected:
        diff = difflib.unified_diff(
            expected.splitlines(), actual.splitlines(), "expected", "actual", lineterm=""
        )
        raise AssertionError(f"{path.name} prints something else:\n" + "\n".join(diff))


def parse(text: str, name: str = "script") -> list[Block]:
    """The blocks of a script. Raises ScriptError."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("# "):
        raise ScriptError(f"{name}:1: expected a comment that says what the script proves")
    blocks: list[Block] = []
    current: Block | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            current = None
        else:
            if current is None:
                current = Block(number)
                blocks.append(current)
            _take_line(current, line, f"{name}:{number}")
    for block in blocks:
        if not block.has_output and any(command.is_shown for command in block.commands):
            raise ScriptError(f"{name}:{block.line}: expected {SEPARATOR} after these commands")
        if block.has_output and block.is_prose:
            raise ScriptError(f"{name}:{block.line}: expected commands before {SEPARATOR}")
    return blocks


def _take_line(block: Block, line: str, place: str) -> None:
    if block.has_output:
        block.expected.append(line)
        return
    if line == SEPARATOR:
        block.has_output = True
        return
    block.head.append(line)
    if not line.startswith("#"):
        block.commands += _commands(line.strip(), place)


def _commands(line: str, place: str) -> list[Command]:
    is_shown = not line.startswith("(")
    if not is_shown:
        if not line.endswith(")"):
            raise ScriptError(f"{place}: expected ) at the end of the set-up")
        line = line[1:-1]
    texts = [text.strip() for text in line.split(";")]
    if not all(texts):
        raise ScriptError(f"{place}: an empty command")
    return [Command(text, is_shown) for text in texts]


def _execute(block: Block, execute: Execute, name: str) -> list[str]:
    printed: list[str] = []
    for command in block.commands:
        try:
            lines = list(execute(command.text))
        except ScriptError as error:
            raise ScriptError(f"{name}:{block.line}: {command.text}: {error}") from error
        if command.is_shown:
            printed += lines
    if any(not line.strip() or "\n" in line for line in printed):
        raise ScriptError(f"{name}:{block.line}: expected output without empty lines: {printed}")
    return printed or [NOTHING]


def _render(block: Block, output: list[str]) -> str:
    lines = list(block.head)
    if block.has_output:
        lines += [SEPARATOR, *output]
    return "".join(f"{line}\n" for line in lines)
