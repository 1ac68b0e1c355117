"""make-mirror as a command: its flags, its mistakes, and the same words beside etcdctl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from kvorum import Client
from tests.common.commands import command, run_here
from tests.common.servers import ROOT, Server
from tests.kvorum.cli.test_mirroring import content, wait_until

BOTH = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one"


def test_it_mirrors_as_etcdctl_does(key: str, etcd_server: Server) -> None:
    """Both tools follow the same keys into prefixes of their own."""
    with Client(etcd_server.url) as client, ExitStack() as mirrors:
        for number in range(5):
            client.put(f"{key}from/{number}", str(number))
        for tool in ("etcdctl", "kvorum"):
            words = ["make-mirror", etcd_server.url.removeprefix("http://"), f"--prefix={key}from/"]
            process = subprocess.Popen(
                [*command(tool, etcd_server), *words, f"--dest-prefix={key}{tool}/"], cwd=ROOT
            )
            mirrors.callback(process.wait)
            mirrors.callback(process.kill)
            wait_until(lambda tool=tool: len(content(client, f"{key}{tool}/")) == 5)
        client.put(f"{key}from/0", b"\xff\x00")
        client.delete(f"{key}from/1")
        client.put(f"{key}from/end", "")
        wait_until(lambda: all("end" in content(client, f"{key}{tool}/") for tool in ("etcdctl", "kvorum")))
        ours, theirs, source = (content(client, f"{key}{name}/") for name in ("kvorum", "etcdctl", "from"))
        assert ours == theirs == source


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "make-mirror takes one destination argument"),
        (["a:1", "b:1"], "make-mirror takes one destination argument"),
        (["a:1", "--no-dest-prefix", "--dest-prefix=x"], BOTH),
    ],
)
def test_mistakes_are_told_as_etcdctl_tells_them(words: list[str], problem: str, etcd_server: Server) -> None:
    """Before anybody is asked."""
    line = [f"--endpoints={etcd_server.url}", "make-mirror", *words]
    assert run_here(line) == (128, "", f"Error: {problem}\n")
    ran = subprocess.run([*command("etcdctl", etcd_server), *line[1:]], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (128, "")
    assert f"Error: {problem}" in ran.stderr


class Recorder:
    """A gateway that knows one user, and refuses whatever else it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, str]]:
    recorded = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            recorded.asked.append((self.path, self.headers.get("Authorization", ""), body))
            is_login = self.path.endswith("authenticate")
            answer = {"token": "let-me-in"} if is_login else {"code": 3, "message": "refused"}
            data = json.dumps(answer).encode()
            self.send_response(200 if is_login else 400)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield recorded, f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--dest-user=bob:a:b"], b""),
        (["--dest-user=bob", "--dest-password=a:b"], b""),
        (["--dest-user=bob"], b"a:b\n"),
    ],
)
def test_the_destination_has_users_of_its_own(
    words: list[str], given: bytes, recorder: tuple[Recorder, str], etcd_server: Server
) -> None:
    """With the password in one flag or in another, or asked for; the source's user is not told there."""
    recorded, address = recorder
    line = [f"--endpoints={etcd_server.url}", "--user=alice:secret", "make-mirror", address, *words]
    ran = run_here(line, given=given)
    assert ran.code == 1
    assert ran.error.endswith("Error: refused\n")
    login, asked = recorded.asked
    assert login[2] == {"name": "bob", "password": "a:b"}
    assert asked[:2] == ("/v3/kv/range", "let-me-in")


@pytest.mark.parametrize("words", [["--dest-insecure-transport=false"], ["--dest-cacert=/dev/null"]])
def test_the_destination_has_tls_of_its_own(
    words: list[str], recorder: tuple[Recorder, str], kvorum_server: Server
) -> None:
    """Whoever asks for it speaks no plain text there."""
    recorded, address = recorder
    line = [f"--endpoints={kvorum_server.url}", "--command-timeout=300ms", "make-mirror", address, *words]
    ran = run_here(line)
    assert ran.code in (1, 2)
    assert recorded.asked == []
