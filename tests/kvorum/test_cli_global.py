"""Global flags that all commands have: formats, users."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from tests.common.commands import KVORUM, command, run, watching
from tests.common.servers import ROOT, Server, running, start_etcd

LINES = [
    "put format ü",
    "get format",
    "del nothing",
    "lease grant 60",
    "lease list",
    "endpoint health",
    "endpoint status",
    "endpoint hashkv",
    "member list",
]


@pytest.mark.parametrize("line", LINES)
def test_yaml_says_what_json_says(line: str, kvorum_server: Server) -> None:
    """The same entries with the same values, but for those that change from call to call."""
    said = {
        notation: say([*command("kvorum", kvorum_server), *line.split(), "-o", notation])
        for notation in ("json", "yaml")
    }
    assert shape(yaml.safe_load(said["yaml"])) == shape(json.loads(said["json"]))


def say(arguments: list[str]) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=True).stdout


def shape(value: object) -> object:
    """A document with the types of what stands in it, and texts."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items() if name != "took"}
    if isinstance(value, list):
        return [shape(item) for item in value][:1]
    return value if isinstance(value, str) and len(value) < 8 else type(value)


def test_a_watch_in_yaml_is_a_document_per_response(kvorum_server: Server) -> None:
    """So that who reads it knows where each begins."""
    put = say([*command("kvorum", kvorum_server), "put", "y", "0", "-o", "json"])
    start = json.loads(put)["header"]["revision"]
    for number in (1, 2):
        run("kvorum", kvorum_server, ["put", "y", str(number)])
    arguments = [*command("kvorum", kvorum_server), "watch", "y", f"--rev={start}", "--output=yaml"]
    with watching(arguments) as line:
        lines = [line()]
        assert lines == ["---\n"]
        while not lines[-1].startswith("Created"):
            lines.append(line())
        [event, *_] = yaml.safe_load("".join(lines))["Events"]
        assert event["kv"]["key"] == "eQ=="


@pytest.mark.parametrize(
    "words", [["-o", "json"], ["-ojson"], ["--output=json"], ["-w", "json"], ["-wjson"], ["-w=json"]]
)
def test_the_format_s_flag_has_four_spellings(words: list[str], kvorum_server: Server) -> None:
    """etcdctl's two, and the two that others have; before the command or behind it."""
    for line in ([*words, "get", "nothing"], ["get", "nothing", *words]):
        assert '"header"' in run("kvorum", kvorum_server, line)[1]


# Users: etcd asks for them.


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An etcd where root's password is "secret", and alice, who may write below a/, has none but "a:b"."""
    with running(start_etcd(tmp_path_factory.mktemp("guarded"))) as server:
        for line in (
            ["user", "add", "root:secret"],
            ["user", "grant-role", "root", "root"],
            ["role", "add", "writer"],
            ["role", "grant-permission", "writer", "--prefix=true", "readwrite", "a/"],
            ["user", "add", "alice", "--new-user-password=a:b"],
            ["user", "grant-role", "alice", "writer"],
            ["auth", "enable"],
        ):
            assert run("etcdctl", server, line)[0] == 0, line
        yield server


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["put", "a/1", "x"], (1, "", "Error: etcdserver: user name is empty")),
        (["put", "a/1", "x", "--user=alice:a:b"], (0, "OK\n", "")),
        (["put", "a/1", "x", "--user=alice", "--password=a:b"], (0, "OK\n", "")),
        (["put", "b/1", "x", "--user=alice:a:b"], (1, "", "Error: etcdserver: permission denied")),
        (["--user=root:secret", "get", "a/1"], (0, "a/1\nx\n", "")),
        (["put", "a/1", "x", "--user=alice:wrong"], (2, "", None)),
    ],
)
def test_users_are_told_as_to_etcdctl(
    words: list[str], answer: tuple[int, str, str | None], guarded: Server
) -> None:
    """With the password in the name's flag, or in one of its own."""
    ours, theirs = (run(tool, guarded, words) for tool in ("kvorum", "etcdctl"))
    assert ours[:2] == theirs[:2] == answer[:2]
    if answer[2] is not None:
        assert ours[2] == answer[2]
    else:
        assert "invalid user ID or password" in ours[2]


def test_a_password_that_is_missing_is_asked_for(guarded: Server) -> None:
    """On stderr, and read from standard input where there is no terminal."""
    ran = subprocess.run(
        [*command("kvorum", guarded), "put", "a/2", "x", "--user=alice"],
        input="a:b\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        start_new_session=True,
    )
    assert (ran.returncode, ran.stdout) == (0, "OK\n"), ran.stderr
    assert "Password:" in ran.stderr


def test_a_server_that_asks_nobody_takes_every_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As Go's client does it: without authentication a name does no harm."""
    with running(start_etcd(tmp_path_factory.mktemp("open"))) as server:
        environment = {**os.environ, "ETCDCTL_USER": "alice:x"}
        ran = subprocess.run(
            [*KVORUM, f"--endpoints=127.0.0.1:{server.port}", "put", "a", "1"],
            env=environment,
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (0, "OK\n"), ran.stderr
