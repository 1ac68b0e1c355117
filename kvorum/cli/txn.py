"""txn: etcdctl's little language. Compares, an empty line, operations for success, an empty line,
operations for failure, an empty line; operations are command lines of get, put and del."""

from __future__ import annotations

import sys
from typing import Any

import click

from kvorum.cli import comparison, kv, output, words
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.raw_text import to_text
from kvorum.cli.settings import EXIT_INVALID_INPUT, Failure, Settings, current


@click.command(cls=GoCommand, epilog=examples("kvorum txn -i", "kvorum txn < transfer.txt"))
@click.option("-i", "--interactive", is_flag=True, help="Ask for each part.")
def txn(interactive: bool) -> None:
    """Carry out a transaction that is read from standard input.

    \b
    $ printf 'mod("k") > "0"\\n\\nput k changed\\n\\nput k new\\n\\n' | kvorum txn
    """
    settings = current()

    def ask(prompt: str) -> None:
        if interactive:
            output.write(prompt + ":\n")

    ask("compares")
    compares = [_compare(line) for line in _lines()]
    ask("success requests (get, put, del)")
    success = [_operation(line) for line in _lines()]
    ask("failure requests (get, put, del)")
    failure = [_operation(line) for line in _lines()]
    output.refuse_table(settings)
    with settings.gateway() as gateway:
        response = gateway.call("/v3/kv/txn", {"compare": compares, "success": success, "failure": failure})
    _show(response, settings)


def _lines() -> list[str]:
    """The lines up to the next empty one."""
    lines: list[str] = []
    while data := sys.stdin.buffer.readline():
        line = to_text(data)
        if not (stripped := line.rstrip("\n")).strip():
            return lines
        lines.append(stripped)
    raise Failure("EOF", EXIT_INVALID_INPUT)


def _compare(line: str) -> dict[str, Any]:
    try:
        return comparison.parsed(line.strip())
    except ValueError as error:
        raise Failure(str(error), EXIT_INVALID_INPUT) from None


def _operation(line: str) -> dict[str, Any]:
    try:
        name, *arguments = words.split(line)
    except ValueError as error:
        raise Failure(str(error), EXIT_INVALID_INPUT) from None
    if not arguments:
        raise Failure(f"invalid txn compare request: {line.strip()}", EXIT_INVALID_INPUT)
    if name == "put":
        options = _parsed(kv.put, arguments)
        if len(options["arguments"]) == 1 and not options["ignore_value"]:
            options["arguments"] = ()  # standard input is being read for other things
        return {"request_put": kv.put_request(**options)}
    if name == "get":
        options = _parsed(kv.get, arguments)
        del options["print_value_only"]
        return {"request_range": kv.get_request(**options)}
    if name == "del":
        return {"request_delete_range": kv.delete_request(**_parsed(kv.delete, arguments))}
    raise Failure(f"invalid txn request: {line}", EXIT_INVALID_INPUT)


def _parsed(command: click.Command, arguments: list[str]) -> dict[str, Any]:
    try:
        return dict(command.make_context(command.name, arguments).params)
    except click.UsageError as error:
        raise Failure(error.format_message(), EXIT_INVALID_INPUT) from None


def _show(response: dict[str, Any], settings: Settings) -> None:
    if settings.write_out == "json":
        output.write_json(output.as_go(response))
        return
    succeeded = response.get("succeeded", False)
    if settings.write_out == "fields":
        output.write_lines(
            [*output.header_fields(response["header"]), f'"Succeeded" : {output.go_bool(succeeded)}']
        )
    else:
        output.write("SUCCESS\n" if succeeded else "FAILURE\n")
    shows = {
        "response_put": kv.show_put,
        "response_range": kv.show_get,
        "response_delete_range": kv.show_delete,
    }
    for answer in response.get("responses", []):
        [(name, body)] = answer.items()
        if settings.write_out == "simple":
            output.write("\n")
        shows[name](body, settings)
