"""The commands about data speak to real etcd as they do to us."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.common.servers import running, start_etcd
from tests.kvorum.cli.conftest import CommandLine


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[CommandLine]:
    with running(start_etcd(tmp_path)) as server:
        yield CommandLine(server.port, tmp_path)


def test_a_life_of_keys(etcd: CommandLine) -> None:
    """In by a file, listed, changed, compared, copied, moved, out by a file, gone."""
    text = "db:\n  host: a\n  port: '1'\nfile: |\n  a\n  b\n"
    (etcd.folder / "app.yaml").write_text(text)
    assert etcd.ok("import", "app.yaml", "--prefix", "/app").endswith("(revision 2)\n")
    assert etcd.ok("export", "--prefix", "/app") == text
    assert etcd.ok("ls", "/app") == "db/\nfile\n"
    assert [row["revision"] for row in json.loads(etcd.ok("ls", "-l", "/app", "-w", "json"))] == [2, 2]
    etcd.ok("import", "-", "--format=json", "--prefix=/app", "--prune", given='{"db": {"host": "b"}}')
    assert etcd.values("/app") == {"/app/db/host": "b"}
    assert etcd.ok("diff", "/app", "--rev=2").splitlines()[-6:] == [
        *("-db/host: a", "+db/host: b", "-db/port: 1", "-file: |", "-  a", "-  b")
    ]
    etcd.ok("cp", "-r", "/app", "/b")
    etcd.ok("mv", "-r", "/b", "/c")
    assert etcd.values("") == {"/app/db/host": "b", "/c/db/host": "b"}
    etcd.ok("rm", "-ry", "/c")
    assert etcd.values("") == {"/app/db/host": "b"}


def test_conflicts_and_limits(etcd: CommandLine) -> None:
    """etcd's own compares and limits are what the promises rest on."""
    etcd.ok("put", "/a/x", "1")
    for change in (["put", "/a/x", "2"], ["put", "/a/new", "2"], ["del", "/a/x"]):
        with etcd.meddled(lambda change=change: etcd.ok(*change)) as meddled:
            said = meddled.fails(
                "import", "-", "--format=json", "--prefix=/a", "--prune", given='{"x": "mine"}'
            )
        assert said.startswith(f"-: {change[1]} changed since it was read (revision ")
    many = json.dumps({f"k{n}": "x" for n in range(129)})
    assert etcd.fails("import", "-", "--format=json", "--prefix=/b", given=many).startswith(
        "-: 129 changes are one transaction of 129 operations, more than the server takes (--max-txn-ops,"
    )
    assert etcd.values("/b") == {}
