"""A server's life: starting, refusing to start, stopping, and being read by many."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.common.ports import free_port
from tests.common.servers import ROOT, Server, running, start_kvorum
from tests.differential.compare import ask, post
from tests.e2e.history import b64, call


def serve(*flags: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvorum", "serve", *flags],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        check=False,
    )


def test_it_says_where_it_listens_and_what_to_try(tmp_path: Path) -> None:
    """A server that starts prints its address and three commands; SIGTERM ends it with 0."""
    server = start_kvorum(tmp_path).wait_until_healthy()
    assert server.stop() == 0
    said = server.log.read_text()
    assert server.url in said
    commands = [line.split() for line in said.splitlines() if line.startswith("  ")]
    assert len(commands) == 3
    assert all(shutil.which(command[0]) for command in commands)


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    """Values, revisions and the whole history are there after a stop and a start."""
    with running(start_kvorum(tmp_path)) as server:
        for value in (b"1", b"2", b"3"):
            call(server.port, "/v3/kv/put", {"key": b64(b"k"), "value": b64(value)})
        before = call(server.port, "/v3/maintenance/hash", {})["hash"]
    with running(start_kvorum(tmp_path)) as server:
        assert call(server.port, "/v3/maintenance/hash", {})["hash"] == before
        old = call(server.port, "/v3/kv/range", {"key": b64(b"k"), "revision": 3})
        assert old["kvs"][0]["value"] == b64(b"2")
        assert call(server.port, "/v3/kv/put", {"key": b64(b"k")})["header"]["revision"] == "5"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--listen-client-urls", "nonsense"],
            "--listen-client-urls has 'nonsense': expected http://HOST:PORT",
        ),
        (["--listen-client-urls", "https://127.0.0.1:1"], "TLS is not there yet"),
        (["--election-timeout", "100"], "--election-timeout is 100 ms"),
        (["--max-txn-ops", "0"], "--max-txn-ops is 0: expected 1 or more"),
        (["--max-txn-ops", "many"], "'many' is not a valid integer"),
        (["--unknown"], "No such option"),
    ],
)
def test_wrong_flags_are_named(flags: list[str], said: str, tmp_path: Path) -> None:
    """A setting that is wrong is named, with what was expected; nothing is created."""
    ran = serve("--data-dir", str(tmp_path / "data"), *flags)
    assert ran.returncode == 2
    assert said in " ".join(ran.stderr.split())
    assert not (tmp_path / "data").exists()


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    """Each flag has a variable; the flag wins."""
    ran = subprocess.run(
        [sys.executable, "-m", "kvorum", "serve", "--data-dir", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "KVORUM_MAX_TXN_OPS": "-1", "KVORUM_DATA_DIR": "/nowhere"},
        check=False,
    )
    assert "--max-txn-ops is -1" in ran.stderr


def test_one_data_directory_one_server(tmp_path: Path) -> None:
    """A second server on the same data is refused, and the first is not disturbed."""
    with running(start_kvorum(tmp_path)) as server:
        url = f"http://127.0.0.1:{free_port()}"
        ran = serve("--data-dir", str(tmp_path / "data"), "--listen-client-urls", url)
        assert ran.returncode == 1
        assert "is in use by another server" in ran.stderr
        assert ask(server, post("/v3/kv/put", {"key": "YQ=="})).status == 200


def test_a_port_in_use_is_named(tmp_path: Path, kvorum_server: Server) -> None:
    """The address that is taken is in the message."""
    ran = serve("--data-dir", str(tmp_path / "data"), "--listen-client-urls", kvorum_server.url)
    assert ran.returncode == 1
    assert f"cannot listen on {kvorum_server.url} (--listen-client-urls)" in ran.stderr
    assert str(kvorum_server.port) in ran.stderr


def test_a_state_ahead_of_its_log_is_refused(tmp_path: Path) -> None:
    """A log that was replaced by an older or empty one does not start as if nothing were missing."""
    with running(start_kvorum(tmp_path)) as server:
        call(server.port, "/v3/kv/put", {"key": b64(b"k"), "value": b64(b"v")})
    for path in (tmp_path / "data" / "wal").iterdir():
        path.unlink()
    ran = serve("--data-dir", str(tmp_path / "data"))
    assert ran.returncode == 1
    assert "Restore both from the same moment" in ran.stderr


def test_many_watchers_see_every_write_in_order(tmp_path: Path) -> None:
    """Fifty streams on one prefix, started at any moment, see each revision once and in order."""
    with running(start_kvorum(tmp_path)) as server:
        total, seen = 300, []
        threads = [threading.Thread(target=lambda: seen.append(watched(server, total))) for _ in range(50)]
        for number in range(total):
            if number % 6 == 0:
                threads[number // 6].start()
            call(server.port, "/v3/kv/put", {"key": b64(b"w/%d" % number), "value": b64(b"v")})
        for thread in threads:
            thread.join(timeout=30)
        assert len(seen) == 50
        assert all(revisions == list(range(2, total + 2)) for revisions in seen)


def watched(server: Server, total: int) -> list[int]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    create = {"key": b64(b"w/"), "range_end": b64(b"w0"), "start_revision": 2}
    connection.request("POST", "/v3/watch", json.dumps({"create_request": create}))
    response = connection.getresponse()
    revisions: list[int] = []
    while len(revisions) < total:
        frame = json.loads(response.readline())["result"]
        revisions += [int(event["kv"]["mod_revision"]) for event in frame.get("events", [])]
    connection.close()
    return revisions


def test_a_watcher_that_stops_reading_holds_nobody_up(tmp_path: Path) -> None:
    """While one stream is not read, tens of megabytes are written at full speed, the server's memory
    stays bounded, and when the reader comes back nothing is missing."""
    with running(start_kvorum(tmp_path)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        create = {"key": b64(b"slow"), "start_revision": 2}
        connection.request("POST", "/v3/watch", json.dumps({"create_request": create}))
        response = connection.getresponse()
        before = resident_bytes(server)
        value, total = b64(b"v" * 100_000), 600
        slowest = 0.0
        for _ in range(total):
            started = time.monotonic()
            call(server.port, "/v3/kv/put", {"key": b64(b"slow"), "value": value})
            slowest = max(slowest, time.monotonic() - started)
        grown = resident_bytes(server) - before
        # The state's own memtable and log are bounded too, but larger than the stream's queue.
        assert grown < 250 << 20, grown
        assert slowest < 2
        revisions: list[int] = []
        while len(revisions) < total:
            frame = json.loads(response.readline())["result"]
            revisions += [int(event["kv"]["mod_revision"]) for event in frame.get("events", [])]
        connection.close()
        assert revisions == list(range(2, total + 2))


def resident_bytes(server: Server) -> int:
    """Anonymous memory of the process: what it holds, not what it maps."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def test_fragments(tmp_path: Path) -> None:
    """A revision larger than a response may be comes in fragments to a watch that allows it, and
    in one piece to one that does not."""
    with running(start_kvorum(tmp_path, "--max-request-bytes", "20000")) as server:
        connections = []
        for fragment in (True, False):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            create = {"key": b64(b"f"), "range_end": b64(b"g"), "start_revision": 2, "fragment": fragment}
            connection.request("POST", "/v3/watch", json.dumps({"create_request": create}))
            response = connection.getresponse()
            assert json.loads(response.readline())["result"]["created"]
            connections.append((connection, response))
        puts = [{"request_put": {"key": b64(b"f%d" % n), "value": b64(b"v" * 2000)}} for n in range(9)]
        call(server.port, "/v3/kv/txn", {"success": puts})
        call(server.port, "/v3/kv/deleterange", {"key": b64(b"f"), "range_end": b64(b"g")})
        whole = json.loads(connections[1][1].readline())["result"]
        assert len(whole["events"]) == 9
        assert "fragment" not in whole
        pieces = []
        while not pieces or pieces[-1].get("fragment"):
            pieces.append(json.loads(connections[0][1].readline())["result"])
        for connection, _ in connections:
            connection.close()
    assert len(pieces) > 1
    assert [event for piece in pieces for event in piece["events"]] == whole["events"]


def test_progress_is_notified(tmp_path: Path) -> None:
    """An idle watch that asks for it is told how far it is complete."""
    with running(start_kvorum(tmp_path, "--watch-progress-notify-interval", "100")) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        create = {"key": b64(b"p"), "progress_notify": True}
        connection.request("POST", "/v3/watch", json.dumps({"create_request": create}))
        response = connection.getresponse()
        assert json.loads(response.readline())["result"]["created"]
        notified = json.loads(response.readline())["result"]
        connection.close()
        assert "events" not in notified
        assert notified["header"]["revision"] == "1"


def test_etcds_flags_and_a_file(tmp_path: Path) -> None:
    """A server takes flags with one dash and a file, and says in its log which flags do nothing."""
    file = tmp_path / "kvorum.yaml"
    file.write_text("name: from-file\nmax-wals: 5\n")
    with running(start_kvorum(tmp_path, "-config-file", str(file), "-logger=zap")) as server:
        members = call(server.port, "/v3/cluster/member/list", {})["members"]
        assert [member["name"] for member in members] == ["from-file"]
    assert "these flags of etcd's have no effect here: --max-wals, --logger" in server.log.read_text()


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    """A file that is wrong is named with its line and key; nothing is created."""
    file = tmp_path / "kvorum.yaml"
    file.write_text("nam: n1\n")
    ran = serve("--data-dir", str(tmp_path / "data"), "--config-file", str(file))
    assert ran.returncode == 2
    assert f"{file} line 1 has the unknown key 'nam' (is name meant?)" in " ".join(ran.stderr.split())
    assert not (tmp_path / "data").exists()
