"""snapshot save: a whole file or none, from real etcd and from servers that lie."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.common.commands import KVORUM, Ran, run, run_here
from tests.common.servers import ROOT, Server, etcd_binary


def save(url: str, file: Path) -> Ran:
    return run_here([f"--endpoints={url}", "snapshot", "save", str(file)])


def test_what_is_saved_is_what_etcd_restores(etcd_server: Server, tmp_path: Path) -> None:
    """The same as etcdctl saves; only its owner may read it, and nothing else is left behind."""
    assert run("kvorum", etcd_server, ["put", "saved", "x" * 100_000])[0] == 0
    files = {tool: tmp_path / tool for tool in ("kvorum", "etcdctl")}
    files["kvorum"].write_bytes(b"an older one")
    (tmp_path / "kvorum.part").write_bytes(b"left by one that was killed" * 100_000)
    for tool, file in files.items():
        said = run(tool, etcd_server, ["snapshot", "save", str(file)])
        assert said == (0, f"Snapshot saved at {file}\n", "")
    assert {one.name for one in tmp_path.iterdir()} == set(files)
    assert files["kvorum"].stat().st_size == files["etcdctl"].stat().st_size
    for file in files.values():
        assert file.stat().st_mode & 0o777 == 0o600
    restored = [str(etcd_binary("etcdctl")), "snapshot", "restore", f"--data-dir={tmp_path / 'member'}"]
    subprocess.run([*restored, str(files["kvorum"])], check=True, capture_output=True)


@pytest.mark.parametrize("words", [[], ["a", "b"], ["{folder}/none/a"]])
def test_mistakes_are_told_as_etcdctl_tells_them(
    words: list[str], etcd_server: Server, tmp_path: Path
) -> None:
    """And no file is made."""
    line = ["snapshot", "save", *(word.format(folder=tmp_path) for word in words)]
    ours, theirs = (run(tool, etcd_server, line) for tool in ("kvorum", "etcdctl"))
    assert ours == theirs
    assert list(tmp_path.iterdir()) == []


def test_several_endpoints_are_refused(tmp_path: Path) -> None:
    """A snapshot is of one member. In etcdctl's words, and with its code."""
    said = save("http://a:1,http://b:1", tmp_path / "db")
    problem = "snapshot must be requested to one selected node, not multiple [http://a:1 http://b:1]"
    assert said == (5, "", f"Error: {problem}\n")


def test_a_server_without_snapshots_says_so(kvorum_server: Server, tmp_path: Path) -> None:
    """In one sentence, and leaves nothing."""
    said = save(kvorum_server.url, tmp_path / "db")
    assert said == (5, "", "Error: this server has no snapshots: etcd's has, Kvorum's has not yet\n")
    assert list(tmp_path.iterdir()) == []


DATA = b"content" * 1000
DIGEST = hashlib.sha256(DATA).digest()
NOTHING = hashlib.sha256().digest()


class Liar:
    """A server that answers every request with ``body``, and hangs up before its end if told, when it may."""

    def __init__(self) -> None:
        self.body = b""
        self.is_cut = False
        self.may_end = Event()
        self.may_end.set()


@pytest.fixture
def liar() -> Iterator[tuple[Liar, str]]:
    told = Liar()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(told.body) + told.is_cut))
            self.end_headers()
            self.wfile.write(told.body)
            told.may_end.wait()
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield told, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def frames(*blobs: bytes) -> bytes:
    return b"".join(b'{"result":{"blob":"%b"}}\n' % base64.b64encode(blob) for blob in blobs)


def test_a_digest_that_comes_in_pieces_is_checked(liar: tuple[Liar, str], tmp_path: Path) -> None:
    """However the bytes are cut."""
    told, url = liar
    told.body = frames(DATA[:5], DATA[5:] + DIGEST[:3], b"", DIGEST[3:])
    assert save(url, tmp_path / "db") == (0, f"Snapshot saved at {tmp_path / 'db'}\n", "")
    assert (tmp_path / "db").read_bytes() == DATA + DIGEST


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize(
    "blobs", [[DATA], [DATA, DIGEST[:31]], [DATA[:-1], DIGEST], [DATA, DIGEST, b"x"], [], [NOTHING]]
)
def test_what_is_not_whole_is_not_saved(
    blobs: list[bytes], is_cut: bool, liar: tuple[Liar, str], tmp_path: Path
) -> None:
    """The older file stays; no other one does."""
    told, url = liar
    told.body, told.is_cut = frames(*blobs), is_cut
    (tmp_path / "db").write_bytes(b"older")
    code, out, error = save(url, tmp_path / "db")
    assert (code, out, error.count("\n")) == (5, "", 1)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"db": b"older"}


def test_two_do_not_write_the_same_file(etcd_server: Server, tmp_path: Path) -> None:
    """The second one is told, and the first one's file stays as it is."""
    with (tmp_path / "db.part").open("wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        part.write(b"half")
        part.flush()
        said = save(etcd_server.url, tmp_path / "db")
        assert said == (5, "", f"Error: somebody else is writing {tmp_path / 'db.part'}\n")
        assert (tmp_path / "db.part").read_bytes() == b"half"


def test_a_signal_leaves_nothing(liar: tuple[Liar, str], tmp_path: Path) -> None:
    """Though much has come already."""
    told, url = liar
    told.body, told.is_cut = frames(DATA), True
    told.may_end.clear()
    words = [*KVORUM, f"--endpoints={url}", "--command-timeout=1m", "snapshot", "save", str(tmp_path / "db")]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, cwd=ROOT) as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "db.part").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.terminate()
        assert process.wait(20) == 143
    told.may_end.set()
    assert list(tmp_path.iterdir()) == []
