"""txn: etcdctl's little language. Compares, an empty line, operations for success, an empty line,
operations for failure, an empty line; operations are command lines of get, put and del."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from kvorum.cli import kv, output, words
from kvorum.cli.examples import examples
from kvorum.cli.go_switches import GoCommand
from kvorum.cli.settings import EXIT_INVALID_INPUT, Failure, Settings, current
from kvorum.messages import b64

_COMPARE = re.compile(r'\s*([a-z]+)\((".*?(?<!\\)"|[^"]*)\)\s*([<=>]|!=)\s*(.*)', re.DOTALL)
_RESULTS = {"=": "EQUAL", ">": "GREATER", "<": "LESS", "!=": "NOT_EQUAL"}
_TARGETS = {
    **dict.fromkeys(("ver", "version"), ("VERSION", "version")),
    **dict.fromkeys(("c", "create"), ("CREATE", "create_revision")),
    **dict.fromkeys(("m", "mod"), ("MOD", "mod_revision")),
    **dict.fromkeys(("val", "value"), ("VALUE", "value")),
    "lease": ("LEASE", "lease"),
}


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
    while line := sys.stdin.readline():
        if not (stripped := line.rstrip("\n")).strip():
            return lines
        lines.append(stripped)
    raise Failure("EOF", EXIT_INVALID_INPUT)


def _compare(line: str) -> dict[str, Any]:
    match = _COMPARE.fullmatch(line)
    if match is None:
        raise Failure(f"malformed comparison: {line}", EXIT_INVALID_INPUT)
    target, key, result, operand = match.groups()
    if target not in _TARGETS:
        raise Failure(f"malformed comparison: {line} (unknown target {target})", EXIT_INVALID_INPUT)
    kind, member = _TARGETS[target]
    text = _unquoted(operand.strip())
    value: object = b64(kv.to_bytes(text))
    if kind != "VALUE":
        try:
            value = str(int(text, 16 if kind == "LEASE" else 10))
        except ValueError:
            raise Failure(f"invalid txn compare request: {line}", EXIT_INVALID_INPUT) from None
    return {
        "key": b64(kv.to_bytes(_unquoted(key))),
        "target": kind,
        "result": _RESULTS[result],
        member: value,
    }


def _unquoted(text: str) -> str:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    escapes = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}
    return re.sub(r"\\(x[0-9a-fA-F]{2}|.)", lambda m: _escape(m[1], escapes), text[1:-1])


def _escape(escaped: str, escapes: dict[str, str]) -> str:
    if escaped[0] == "x" and len(escaped) == 3:
        return bytes([int(escaped[1:], 16)]).decode("utf-8", "surrogateescape")
    return escapes.get(escaped, escaped)


def _operation(line: str) -> dict[str, Any]:
    try:
        name, *arguments = words.split(line)
    except ValueError as error:
        raise Failure(f"invalid txn request: {line} ({error})", EXIT_INVALID_INPUT) from None
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
