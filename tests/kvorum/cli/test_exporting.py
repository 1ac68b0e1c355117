"""export: what is under a prefix as a file, and back again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kvorum.cli.data.formats import FORMATS
from kvorum.client import Client
from kvorum.txn import Put
from tests.common.servers import running, start_kvorum
from tests.kvorum.cli.conftest import CommandLine


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_exported_is_imported_again(format_: str, kvorum: CommandLine) -> None:
    """Bytes, lines, empty values, and a key that is a value and a prefix: through a file of each format."""
    prefix = f"/e1/{format_}"
    with Client(f"127.0.0.1:{kvorum.port}") as client:
        for name, value in {
            "db": b"x",
            "db/host": b"h",
            "bytes": b"\0\xff",
            "text": b"a\n\tb\n",
            "no": b"",
        }.items():
            client.put(f"{prefix}/{name}", value)
        kvorum.ok("export", f"all.{format_}", "--prefix", prefix)
        before = [(kv.key, kv.value) for kv in client.items(f"{prefix}/")]
        client.delete(f"{prefix}/db/host")
        client.put(f"{prefix}/bytes", b"other")
        kvorum.ok("rm", f"{prefix}/no")
        # A name in a .env file is a new key where the one that it was made of is gone.
        if format_ != "env":
            kvorum.ok("import", f"all.{format_}", "--prefix", prefix)
            assert [(kv.key, kv.value) for kv in client.items(f"{prefix}/")] == before


def test_standard_output_is_yaml_unless_told(kvorum: CommandLine) -> None:
    """-o asks for JSON, --format for anything."""
    kvorum.ok("put", "/e2/db/host", "h")
    assert kvorum.ok("export", "--prefix", "/e2") == "db:\n  host: h\n"
    assert json.loads(kvorum.ok("export", "--prefix", "/e2", "-w", "json")) == {"db": {"host": "h"}}
    assert kvorum.ok("export", "-", "--prefix", "/e2/", "--format", "properties") == "db.host=h\n"
    assert kvorum.ok("export", "--prefix", "/e2/db", "--format", "env") == "HOST=h\n"
    assert kvorum.ok("export", "--prefix", "/e2/none") == "{}\n"


def test_an_earlier_revision(kvorum: CommandLine) -> None:
    """All keys as they were then."""
    kvorum.ok("put", "/e3/a", "1")
    revision = json.loads(kvorum.ok("put", "/e3/b", "1", "-w", "json"))["header"]["revision"]
    kvorum.ok("put", "/e3/a", "2")
    kvorum.ok("put", "/e3/c", "1")
    assert kvorum.ok("export", "--prefix", "/e3", f"--rev={revision}") == "a: '1'\nb: '1'\n"


def test_a_file_is_replaced_whole_or_not_at_all(kvorum: CommandLine) -> None:
    """Where a key cannot stand in it, what was there stays; its permissions stay in any case."""
    kvorum.ok("put", "/e4/a-b", "1")
    file = kvorum.folder / "x.env"
    file.write_text("OLD=1\n")
    file.chmod(0o640)
    kvorum.ok("export", "x.env", "--prefix", "/e4")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("A_B=1\n", 0o640)
    kvorum.ok("put", "/e4/a/b", "1")
    assert kvorum.fails("export", "x.env", "--prefix", "/e4") == (
        "this cannot be written as env: the keys a-b and a/b would both be A_B"
    )
    assert file.read_text() == "A_B=1\n"
    assert kvorum.fails("export", "none/x.env", "--prefix", "/e3").startswith(
        "none/x.env cannot be written: "
    )
    assert os.listdir(kvorum.folder) == ["x.env"]


def test_a_large_prefix_is_read_in_pages_at_one_revision(tmp_path: Path) -> None:
    """While keys are replaced in turn, an export has them as of one revision: all of one round, or those up
    to some key of the next."""
    with running(start_kvorum(tmp_path)) as server, Client(f"127.0.0.1:{server.port}") as client:
        kvorum = CommandLine(server.port, tmp_path)
        names = [f"k{number:04}" for number in range(1200)]
        for start in range(0, len(names), 100):
            client.transact([], [Put(f"/big/{name}", "0") for name in names[start : start + 100]])
        requests: list[str] = []
        real = Client.range

        def counted(self: Client, *arguments: object, **options: object) -> object:
            requests.append("range")
            client.put(f"/big/{names[len(requests)]}", "1")  # somebody else, between two pages
            client.put(f"/big/{names[-len(requests)]}", "1")
            return real(self, *arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Client, "range", counted)
            content = json.loads(kvorum.ok("export", "--prefix", "/big", "--format", "json"))
        assert len(requests) > 1
        # The two that were changed before the first page was read, and nothing that came later.
        assert [name for name, value in content.items() if value == "1"] == [names[1], names[-1]]
        assert list(content) == names


def test_progress_is_drawn_only_on_a_terminal(kvorum: CommandLine) -> None:
    """On stderr, for what takes more than one page; output that is captured has nothing of it."""
    with Client(f"127.0.0.1:{kvorum.port}") as client:
        for start in range(0, 400, 100):
            client.transact([], [Put(f"/e5/{start + n}", "x" * 1000) for n in range(100)])
    assert "reading" in kvorum.on_terminal("export", "all.json", "--prefix", "/e5").out
    assert "reading" not in kvorum.on_terminal("export", "one.json", "--prefix", "/e5/1").out
    ran = kvorum.process("export", "all.json", "--prefix", "/e5")
    assert ran == (0, "", "")
