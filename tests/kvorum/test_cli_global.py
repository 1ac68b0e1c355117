"""Global flags that all commands have: formats, users."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from tests.common.commands import KVORUM, command, run, tool, watching
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
    with running(start_etcd(tmp_path_factory.mktemp("guarded"), "--bcrypt-cost=4")) as server:
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
    ours, theirs = (run(one, guarded, words) for one in ("kvorum", "etcdctl"))
    assert ours[:2] == theirs[:2] == answer[:2]
    if answer[2] is not None:
        assert ours[2] == answer[2]
    else:
        assert "invalid user ID or password" in ours[2]


ETCDCTLS = """
get a/1
get b/1
get --prefix a/
get --prefix a
put b/1 x
del a/none
del b/none
compaction 99999
lease grant 60
lease list
lease timetolive 1 --keys
lease revoke 1
lease keep-alive --once 1
endpoint health
endpoint status
member list
member add n2 --peer-urls=http://n2:1 --learner
member remove 1
move-leader 1
user list
user get alice
user get root
role get writer
role list
watch b/1
lock a/l -- echo held
lock b/l -- echo held
elect b/e me
""".strip().splitlines()


@pytest.mark.parametrize("user", ["", "root:secret", "alice:a:b", "alice:wrong", "nobody:x"])
def test_users_may_do_what_they_may_with_etcdctl(user: str, guarded: Server) -> None:
    """Every command of it, with whatever right: the same output, words and exit code."""
    for line in ETCDCTLS:
        if user.startswith("root") and line.startswith(("member add", "elect", "watch")):
            continue  # he may
        first, *rest = line.split()
        words = [first, *([f"--user={user}"] if user else []), *rest]
        ours, theirs = (run(one, guarded, words) for one in ("kvorum", "etcdctl"))
        assert ours == theirs, words


OURS = """
ls /
tree /
history a/1
export
cp a/1 a/2
rm a/1
diff a b
env a -- true
watch a --exec true
elect -l a/e
service list
top --once
bench put --seconds 1
endpoint hashkv
""".strip().splitlines()


@pytest.mark.parametrize("line", OURS)
def test_who_is_not_let_in_is_told_so_by_every_command(line: str, guarded: Server) -> None:
    """In the server's words, and with the exit code that etcdctl's commands have then."""
    words = ["--user=alice:wrong", *line.split()]
    refused = (2, "", "Error: etcdserver: authentication failed, invalid user ID or password")
    assert run("kvorum", guarded, words) == refused


def test_who_may_not_see_an_election_is_told_so(guarded: Server) -> None:
    """etcd ends the stream without a word."""
    with tool(guarded, "--user=alice:a:b", "elect", "-l", "b/e") as listener:
        assert listener.end() == (1, "Error: etcdserver: permission denied\n")


def test_members_answer_those_who_may_not_read(guarded: Server) -> None:
    """``kvorum top`` sees that they do."""
    said = say([*command("kvorum", guarded), "top", "--once", "-o", "json", "--user=alice:a:b"])
    assert [one["health"] for one in json.loads(said)] == [True]


def test_a_server_without_users_takes_none(kvorum_server: Server) -> None:
    """Ours, as yet: a password that nobody looks at would be no password."""
    refused = (1, "", "Error: this server has no users: leave user and password out")
    assert run("kvorum", kvorum_server, ["get", "a", "--user=alice:x"]) == refused
    assert run("kvorum", kvorum_server, ["member", "list", "--user=alice:x"]) == refused


@pytest.mark.parametrize("words", [["--user=\udcff:x"], ["--user=alice", "--password=geheim\udcff"]])
def test_a_user_that_is_no_text_is_refused(words: list[str], guarded: Server) -> None:
    """JSON has no word for it. It is not shown: the password may be in it."""
    refused = (128, "", "Error: the user or the password is not UTF-8: expected text")
    assert run("kvorum", guarded, ["get", "a", *words]) == refused


def test_an_empty_password_is_one_that_is_wrong(guarded: Server) -> None:
    """Where etcdctl goes on as nobody."""
    code, _, error = run("kvorum", guarded, ["get", "a/1", "--user=alice:"])
    assert (code, error) == (2, "Error: etcdserver: authentication failed, invalid user ID or password")
    assert run("etcdctl", guarded, ["get", "a/1", "--user=alice:"])[0] == 1


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
