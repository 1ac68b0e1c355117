"""Contexts: what a command is told by whom, and what the file is like."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.common.commands import KVORUM
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server


class User:
    """Somebody with a file of contexts, who calls kvorum."""

    def __init__(self, home: Path) -> None:
        self.file = home / "kvorum" / "config.yaml"
        self.environment = {name: value for name, value in os.environ.items() if "KVORUM" not in name}
        self.environment["XDG_CONFIG_HOME"] = str(home)

    def kvorum(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """What it says: its output, or if it is to fail, its error."""
        ran = subprocess.run(
            [*KVORUM, *arguments],
            env={**self.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == code, ran.stderr
        return ran.stderr if code else ran.stdout


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def test_the_one_in_use_says_where_the_server_is(user: User, kvorum_server: Server) -> None:
    """A context with an endpoint, once in use, saves the flag."""
    user.kvorum("config", "set-context", "here", "--endpoints", f"127.0.0.1:{kvorum_server.port}")
    user.kvorum("config", "use-context", "here")
    assert user.kvorum("config", "current-context") == "here\n"
    assert user.kvorum("put", "context", "1") == "OK\n"


def test_flags_go_before_the_environment_and_that_before_the_context(user: User) -> None:
    """And another context can be asked for, by flag or environment."""
    ports = [free_port() for _ in range(4)]
    for name, port in (("one", ports[0]), ("two", ports[1])):
        user.kvorum("config", "set-context", name, f"--endpoints=127.0.0.1:{port}")
    user.kvorum("config", "use-context", "one")
    by_environment = {"KVORUM_ENDPOINTS": f"127.0.0.1:{ports[2]}"}
    for flags, environment, port in [
        ((), {}, ports[0]),
        (("--context=two",), {}, ports[1]),
        ((), {"KVORUM_CONTEXT": "two"}, ports[1]),
        (("--context=one",), {"KVORUM_CONTEXT": "two"}, ports[0]),
        ((), by_environment, ports[2]),
        (("--context=two",), by_environment, ports[2]),
        ((f"--endpoints=127.0.0.1:{ports[3]}",), by_environment, ports[3]),
    ]:
        error = user.kvorum("get", "a", *flags, code=2, **environment)
        assert error.startswith(f"Error: cannot connect to 127.0.0.1:{port}: ")


def test_a_password_goes_only_with_its_user(user: User, kvorum_server: Server) -> None:
    """Who is another user by flag does not send the context's password, which is somebody else's."""
    user.kvorum("config", "set-context", "here", "--user=alice", "--password=hers")
    user.kvorum("config", "set-context", "here", "--user=bob:his")
    assert yaml.safe_load(user.file.read_text())["contexts"]["here"] == {"user": "bob:his"}


def test_a_context_is_changed_flag_by_flag(user: User) -> None:
    """What is given is set, what is given empty is taken out, and the rest stays."""
    said = user.kvorum("config", "set-context", "a", "--endpoints=x:1", "--cacert=ca.pem", "--user=u")
    assert said == 'Context "a" created.\n'
    assert user.kvorum("config", "set-context", "a", "--user=") == 'Context "a" modified.\n'
    assert yaml.safe_load(user.file.read_text()) == {
        "current-context": "",
        "contexts": {"a": {"endpoints": "x:1", "cacert": str(ROOT / "ca.pem")}},
    }


def test_only_its_owner_may_read_the_file(user: User) -> None:
    """It may hold passwords; that it was readable before does not count, and no second file is left."""
    user.file.parent.mkdir()
    user.file.write_text("contexts: {}\n")
    user.file.chmod(0o644)
    user.kvorum("config", "set-context", "a", "--user=u:secret")
    assert stat.S_IMODE(user.file.stat().st_mode) == 0o600
    assert list(user.file.parent.iterdir()) == [user.file]


def test_contexts_are_shown_without_passwords(user: User) -> None:
    """In the list, and in the view unless they are asked for."""
    user.kvorum("config", "set-context", "a", "--endpoints=x:1", "--user=u:secret1")
    user.kvorum("config", "set-context", "b", "--user=v", "--password=secret2")
    user.kvorum("config", "use-context", "b")
    assert user.kvorum("config", "get-contexts") == (
        "CURRENT  NAME  ENDPOINTS  USER\n         a     x:1        u\n*        b                v\n"
    )
    user.kvorum("config", "set-context", "c", "--user=w:secret3")
    user.kvorum("config", "set-context", "c", "--password=secret4")
    shown = [user.kvorum("config", *words) for words in (["view"], ["view", "-o=json"], ["get-contexts"])]
    assert not any("secret" in text for text in shown)
    raw = json.loads(user.kvorum("config", "view", "--raw", "-o", "json"))
    assert raw["contexts"]["b"] == {"user": "v", "password": "secret2"}


def test_who_is_deleted_is_no_longer_in_use(user: User) -> None:
    """And who is not there can be neither deleted nor used."""
    user.kvorum("config", "set-context", "a", "--user=u")
    user.kvorum("config", "use-context", "a")
    assert user.kvorum("config", "delete-context", "a") == 'Context "a" deleted.\n'
    error = user.kvorum("config", "current-context", code=1)
    assert error == "Error: no context is in use: choose one with kvorum config use-context\n"
    for words in (["use-context", "a"], ["delete-context", "a"]):
        error = user.kvorum("config", *words, code=128)
        assert error == f"Error: there is no context 'a' in {user.file}: expected one of there is none yet\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("contexts: [", "is no YAML: "),
        ("- a", "expected only the entries current-context and contexts"),
        ("contexts: {a: {endpoint: x}}", "context 'a' has 'endpoint': expected one of endpoints, "),
        ("contexts: {a: {endpoints: 5}}", "endpoints of context 'a' is 5: expected text"),
        ("contexts: {a: 5}", "context 'a' is no mapping of flags under a name"),
        ("{current-context: b, contexts: {a: {}}}", "there is no context 'b' in "),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(user: User, content: str, complaint: str) -> None:
    """In one line, by commands that would need it; those that ask no server do not care."""
    user.file.parent.mkdir()
    user.file.write_text(content)
    for words in (["get", "a"], ["endpoint", "health"]):
        ran = subprocess.run(
            [*KVORUM, *words], env=user.environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ran.returncode in (1, 128)
        assert complaint in ran.stderr
        assert str(user.file) in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
    assert "kvorum version" in user.kvorum("version")
    assert "--data-dir" in user.kvorum("serve", "--help")


def test_many_at_once_lose_nothing(user: User) -> None:
    """Each of several who add a context at the same time finds it there."""
    running = [
        subprocess.Popen(
            [*KVORUM, "config", "set-context", f"c{number}", "--user=u"], env=user.environment, cwd=ROOT
        )
        for number in range(5)
    ]
    assert [process.wait() for process in running] == [0] * 5
    assert len(yaml.safe_load(user.file.read_text())["contexts"]) == 5


@pytest.mark.parametrize(
    "flag", ["discovery-srv=example.org", "insecure-transport=false", "keepalive-time=1s"]
)
def test_what_a_context_does_not_keep_is_refused(user: User, flag: str) -> None:
    """It would be dropped in silence; nothing of the context is written."""
    said = user.kvorum("config", "set-context", "here", "--endpoints=a:1", f"--{flag}", code=128)
    assert said == f"Error: a context does not keep --{flag.partition('=')[0]}\n"
    assert not user.file.exists()
