"""What watch is told to watch: mistakes in etcdctl's words."""

from __future__ import annotations

import subprocess

import pytest

from tests.common.commands import run_here
from tests.common.servers import etcd_binary

KEY, END = "WATCH_KEY", "WATCH_RANGE_END"


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ([], {}),
        (["a", "b", "--prefix"], {}),
        (["a", "--"], {}),
        (["--"], {}),
        (["a"], {KEY: "b"}),
        (["a", "--", "echo"], {KEY: "b"}),
        (["a"], {END: "b"}),
        ([], {KEY: "a", END: "b", "PREFIX": ""}),
    ],
)
def test_mistakes_are_told_as_etcdctl_tells_them(words: list[str], environment: dict[str, str]) -> None:
    """Before any server is asked; a key and its end from the environment are no mistake."""
    line = ["--endpoints=127.0.0.1:9", "watch", *words]
    if "PREFIX" in environment:
        line, environment = [*line, "--prefix"], {name: environment[name] for name in (KEY, END)}
    theirs = subprocess.run(
        [str(etcd_binary("etcdctl")), "--dial-timeout=100ms", *line],
        env={f"ETCDCTL_{name}": value for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    ours = run_here(line, environment={f"ETCDCTL_{name}": value for name, value in environment.items()})
    error = [one for one in theirs.stderr.splitlines() if one.startswith("Error: ")]
    assert (ours.code, ours.out, ours.error.splitlines()) == (theirs.returncode, "", error)
    assert ours.code == 128
    assert run_here(line, environment={f"KVORUM_{n}": v for n, v in environment.items()}).code == 128
