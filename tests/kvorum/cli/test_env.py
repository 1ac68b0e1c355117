"""env: a command with its environment from keys."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from kvorum.cli.data.environment import variable_name
from kvorum.client import Client
from tests.kvorum.cli.conftest import CommandLine


def test_a_command_finds_the_keys(kvorum: CommandLine) -> None:
    """Beside what was set, and before it; its exit code is kvorum's."""
    kvorum.ok("put", "/env1/db/host", "two words\n")
    kvorum.ok("put", "/env1/home", "elsewhere")
    script = 'printf "%s|%s|%s" "$DB_HOST" "$HOME" "$OTHER"; exit 7'
    ran = kvorum.process("env", "/env1", "--", "sh", "-c", script, OTHER="kept", HOME="/root")
    assert ran == (7, "two words\n|elsewhere|kept", "")


def test_the_command_takes_the_place_of_kvorum(kvorum: CommandLine) -> None:
    """It is the same process, so signals are its own affair; what looks like our flags belongs to it."""
    kvorum.ok("put", "/env2/a", "1")
    with subprocess.Popen(
        kvorum.command("env", "/env2", "--", "sh", "-c", "echo $$ $A $0", "--endpoints"),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": kvorum.home},
    ) as process:
        assert process.communicate()[0].split() == [b"%d" % process.pid, b"1", b"--endpoints"]


def test_the_command_has_default_signals(kvorum: CommandLine) -> None:
    """A program that writes into a pipe nobody reads any more ends by SIGPIPE, as in a shell."""
    ran = kvorum.process("env", "/env7", "--", "sh", "-c", "yes | head -n1; grep SigIgn /proc/self/status")
    assert ran.out.split() == ["y", "SigIgn:", "0" * 16]
    assert "Broken pipe" not in ran.error


def test_no_such_command(kvorum: CommandLine) -> None:
    """Exit codes are those of a shell."""
    kvorum.ok("put", "/env3/a", "1")
    assert kvorum.process("env", "/env3", "--", "no-such-command") == (
        127, "", "Error: no-such-command: there is no such command\n"
    )  # fmt: skip
    (kvorum.folder / "text").write_text("")
    assert kvorum.process("env", "/env3", "--", "./text") == (
        126, "", "Error: ./text cannot be run: Permission denied\n"
    )  # fmt: skip


def test_a_prefix_without_keys(kvorum: CommandLine) -> None:
    """It may be meant, or a slip: the command runs, and it is said."""
    ran = kvorum.process("env", "/env3x", "--", "echo", "runs")
    assert ran == (0, "runs\n", "Warning: there is no key under /env3x/\n")


def test_lines_for_a_shell(kvorum: CommandLine) -> None:
    """Whatever is in a value, a shell reads it back, bytes too."""
    values = {"db/host": b'it\'s $HOME `x` "q"', "two": b"a\nb\n", "bytes": b"\xff\xfe", "empty": b""}
    with Client(f"127.0.0.1:{kvorum.port}") as client:
        for name, value in values.items():
            client.put(f"/env4/{name}", value)
    lines = kvorum.ok("env", "/env4", "--name-prefix", "APP_")
    assert lines.startswith("export APP_BYTES=")
    script = lines + 'printf "%s|%s|%s|%s" "$APP_DB_HOST" "$APP_TWO" "$APP_BYTES" "$APP_EMPTY"'
    ran = subprocess.run(["sh", "-c", os.fsencode(script)], capture_output=True, check=True)
    assert ran.stdout == b"|".join(values.values())
    found = json.loads(kvorum.ok("env", "/env4", "-w", "json"))
    assert (found["TWO"], found["BYTES"]) == ("a\nb\n", {"$base64": "//4="})


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("db/host", "DB_HOST"),
        ("max-conns.v2", "MAX_CONNS_V2"),
        ("9lives", "_9LIVES"),
        ("straße", "STRA_E"),
        ("ÿ", "_"),
    ],
)
def test_names_of_variables(key: str, name: str) -> None:
    """Capitals, and an underscore for all that no variable has."""
    assert variable_name(key) == name


def test_two_keys_of_one_name_are_refused(kvorum: CommandLine) -> None:
    """Nothing is run, and both are named."""
    kvorum.ok("put", "/env5/a-b", "1")
    kvorum.ok("put", "/env5/a/b", "1")
    expected = "the keys a-b and a/b would both be A_B"
    assert kvorum.fails("env", "/env5") == expected
    assert kvorum.process("env", "/env5", "--", "echo", "run") == (1, "", f"Error: {expected}\n")


def test_what_no_environment_can_hold(kvorum: CommandLine) -> None:
    """A NUL ends a value: the key is named."""
    kvorum.ok("put", "/env6/a", given=b"x\0y")
    assert kvorum.fails("env", "/env6") == "the value of a has a NUL in it, which A cannot hold"
    assert kvorum.fails("env", "/env6", "--name-prefix", "1-", code=128) == (
        "--name-prefix is '1-': expected letters, digits and underscores, and no digit at the beginning"
    )
