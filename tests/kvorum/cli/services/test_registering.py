"""kvorum service register, on a node of ours and on etcd."""

from __future__ import annotations

import contextlib
import http.server
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvorum import Client
from tests.common.commands import KVORUM, Tool, tool
from tests.common.nodes import wait_until
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server, running, start_kvorum

ADDR = "10.0.0.1:80"
EVERY_MOMENT = ["--check-interval=100ms", "--check-timeout=200ms"]


@pytest.fixture
def name() -> str:
    return f"s-{uuid.uuid4().hex}"


@pytest.fixture
def client(store: Server) -> Iterator[Client]:
    with Client(store.url) as client:
        yield client


def listed(client: Client, name: str) -> list[str]:
    return [one.addr for one in client.services.resolve(name)]


@contextlib.contextmanager
def registered(store: Server, client: Client, name: str, *words: str) -> Iterator[Tool]:
    """Runs, and is on the list."""
    with tool(store, "service", "register", name, "--addr", ADDR, *words) as one:
        wait_until(lambda: listed(client, name) == [ADDR] or one.process.poll() is not None)
        assert one.process.poll() is None, one.end()
        yield one


def test_all_that_can_be_said_of_it(store: Server, client: Client, name: str) -> None:
    words = ["--id", "one", "--meta", "v=1", "--meta", "q=a=b", "--tag", "x", "--tag", "y", "--weight", "3"]
    with registered(store, client, name, *words, "--zone", "eu/1a", "--ttl", "2500ms"):
        [one] = client.services.resolve(name)
        assert (one.id, one.metadata, one.tags) == ("one", {"v": "1", "q": "a=b"}, ("x", "y"))
        assert (one.weight, one.zone) == (3, "eu/1a")
        assert client.time_to_live(one.lease).granted_ttl == 3  # whole seconds, not less than asked for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_withdraws_it_at_once(store: Server, client: Client, name: str, number: int) -> None:
    with registered(store, client, name) as one:
        [entry] = client.services.resolve(name)
        one.signal(number)
        code, said = one.end()
    assert (code, said) == (0, f"kvorum: {name} {ADDR}: registered\nkvorum: {name} {ADDR}: withdrawn\n")
    assert listed(client, name) == []
    assert client.time_to_live(entry.lease).ttl == -1


# ---- with a command ------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_it_is_on_the_list_while_the_command_runs(
    store: Server, client: Client, name: str, script: str, code: int
) -> None:
    """Whose exit code is passed on, and which knows what it is called."""
    script = f'echo "$KVORUM_SERVICE_NAME $KVORUM_SERVICE_ID $KVORUM_SERVICE_ADDR"; read -r line; {script}'
    words = [*KVORUM, "--endpoints", store.url, "service", "register", name, "--addr", ADDR]
    process = subprocess.Popen(
        [*words, "--", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    try:
        wait_until(lambda: listed(client, name) == [ADDR])
        out, _ = process.communicate("go\n", timeout=20)
        assert (process.returncode, out) == (code, f"{name} {ADDR} {ADDR}\n")
        assert listed(client, name) == []
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_gets_the_signal_when_it_is_off_the_list(
    store: Server, client: Client, name: str, number: signal.Signals
) -> None:
    """So that nobody is sent to it while it ends; and as often as it comes."""
    short = number.name.removeprefix("SIG")
    trap = f"trap 'echo asked; n=$((n+1)); [ $n = 2 ] && exit 3' {short}"
    script = f"{trap}; echo ready; while :; do sleep 0.02; done"
    with registered(store, client, name, "--", "sh", "-c", script) as one:
        assert one.line() == "ready"
        one.signal(number)
        assert one.line() == "asked"
        assert listed(client, name) == []
        one.signal(number)
        assert one.line() == "asked"
        assert one.end()[0] == 3


def test_the_command_ends_with_us(store: Server, client: Client, name: str) -> None:
    """Also where we are killed; the list is told by the lease."""
    with registered(store, client, name, "--ttl=2s", "--", "sh", "-c", "echo $$; exec sleep 100") as one:
        pid = int(one.line())
        one.signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
        wait_until(lambda: listed(client, name) == [])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_the_command_has_started_ends_with_it(store: Server, client: Client, name: str) -> None:
    """Where it does not end by itself, when it does."""
    script = "trap 'exit 0' TERM; sleep 100 & echo $!; wait"
    with registered(store, client, name, "--", "sh", "-c", script) as one:
        pid = int(one.line())
        one.signal(signal.SIGTERM)
        assert one.end()[0] == 0
        wait_until(lambda: not is_alive(pid))


# ---- checks --------------------------------------------------------------------------------------


def test_it_is_on_the_list_only_while_it_is_well(
    store: Server, client: Client, name: str, tmp_path: Path
) -> None:
    """By a command; off it and on it again as often as that changes."""
    well = tmp_path / "well"
    words = ["--check", f"test -e {well}", *EVERY_MOMENT, "--failures=1"]
    with tool(store, "service", "register", name, "--addr", ADDR, *words) as one:
        for _ in range(2):
            assert listed(client, name) == []
            well.touch()
            wait_until(lambda: listed(client, name) == [ADDR])
            well.unlink()
            wait_until(lambda: listed(client, name) == [])
        one.signal(signal.SIGTERM)
        code, said = one.end()
    assert code == 0
    withdrawn = f"kvorum: {name} {ADDR}: withdrawn: the command has ended with 1"
    assert said.splitlines() == [f"kvorum: {name} {ADDR}: registered", withdrawn] * 2


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_over_http(store: Server, client: Client, name: str) -> None:
    """A page that is not there is not well."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked = server.asked = []  # type: ignore[attr-defined]
        url = f"http://127.0.0.1:{server.server_port}"
        with registered(store, client, name, "--check", f"{url}/health", *EVERY_MOMENT):
            assert set(asked) == {"/health"}
        words = ["service", "register", name, "--addr", ADDR, "--check", f"{url}/other", *EVERY_MOMENT]
        with tool(store, *words) as one:
            wait_until(lambda: asked.count("/other") == 3)
            one.signal(signal.SIGTERM)
            assert one.end() == (0, "")
        server.shutdown()


def test_a_command_that_listens_late_is_on_the_list_when_it_does(
    store: Server, client: Client, name: str
) -> None:
    """And its end withdraws it, however well it was."""
    port = free_port()
    serve = f"h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    code = f"import http.server as h; input(); {serve}"
    words = [*KVORUM, "--endpoints", store.url, "service", "register", name, "--addr", ADDR]
    words += ["--check", f"tcp://127.0.0.1:{port}", *EVERY_MOMENT, "--", sys.executable, "-c", code]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert listed(client, name) == []
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        wait_until(lambda: listed(client, name) == [ADDR])
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
        assert listed(client, name) == []
    finally:
        process.kill()
        process.communicate()


def test_so_many_failures_are_forgiven(store: Server, client: Client, name: str, tmp_path: Path) -> None:
    """One that fails every other time stays on the list, with two failures allowed for."""
    turn = tmp_path / "turn"
    check = f"if [ -e {turn} ]; then rm {turn}; else touch {turn}; false; fi"
    with registered(store, client, name, "--check", check, "--check-interval=50ms", "--failures=2"):
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > 1.5 or listed(client, name) == [])
        assert listed(client, name) == [ADDR]


# ---- what goes wrong -----------------------------------------------------------------------------


def test_a_store_that_is_away_does_not_end_the_command(tmp_path: Path, name: str) -> None:
    """It is registered when the store is there, be it at first or later."""
    port = free_port()
    words = [*KVORUM, "--endpoints", f"127.0.0.1:{port}", "--command-timeout=1s", "service", "register", name]
    words += ["--addr", ADDR, "--ttl=2s", "--", "sleep", "100"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert "cannot be registered at the moment: cannot connect" in process.stderr.readline()
            server = start_kvorum(tmp_path, port=port)
            with running(server), Client(server.url) as client:
                wait_until(lambda: listed(client, name) == [ADDR])
                server.kill()
            while "cannot be registered" not in process.stderr.readline():
                assert process.poll() is None
            server = start_kvorum(tmp_path, port=port)
            with running(server), Client(server.url) as client:
                while "registered again" not in process.stderr.readline():
                    assert process.poll() is None
                assert listed(client, name) == [ADDR]
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=20) == 143
                assert listed(client, name) == []
        finally:
            process.kill()


def test_without_a_command_no_server_is_one_clear_sentence() -> None:
    """And the exit code of a bad connection."""
    words = [*KVORUM, "--endpoints", f"127.0.0.1:{free_port()}", "--command-timeout=1s"]
    words += ["service", "register", "web", "--addr", ADDR]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("Error: cannot connect to ")
    assert ran.stderr.count("\n") == 1


def test_what_it_says_need_not_be_read(store: Server, client: Client, name: str, tmp_path: Path) -> None:
    """A log that is no more does not end the command, nor what is done for it."""
    well = tmp_path / "well"
    well.touch()
    words = [
        "--addr",
        ADDR,
        "--check",
        f"test -e {well}",
        *EVERY_MOMENT,
        "--failures=1",
        "--",
        "sleep",
        "100",
    ]
    words = [*KVORUM, "--endpoints", store.url, "service", "register", name, *words]
    with subprocess.Popen(words, stderr=subprocess.PIPE, cwd=ROOT) as process:
        try:
            assert process.stderr is not None
            process.stderr.readline()
            process.stderr.close()
            for _ in range(2):
                well.unlink()
                wait_until(lambda: listed(client, name) == [] or process.poll() is not None)
                well.touch()
                wait_until(lambda: listed(client, name) == [ADDR] or process.poll() is not None)
            assert process.poll() is None
            process.terminate()
            assert process.wait(20) == 143
        finally:
            process.kill()


def test_a_signal_does_not_cut_off_what_withdraws_it(tmp_path: Path, name: str) -> None:
    """It is off the list as soon as the store can be told, and not when its time is over."""
    well, checked = tmp_path / "well", tmp_path / "checked"
    well.touch()
    check = f"test -e {well} || {{ echo >> {checked}; false; }}"
    words = ["--ttl=60s", "--check", check, *EVERY_MOMENT, "--failures=1"]
    with (
        running(start_kvorum(tmp_path)) as server,
        Client(server.url) as client,
        registered(server, client, name, *words) as one,
    ):
        server.process.send_signal(signal.SIGSTOP)
        try:
            well.unlink()
            wait_until(lambda: checked.exists() and checked.read_text().count("\n") > 2)
            one.signal(signal.SIGTERM)
        finally:
            server.process.send_signal(signal.SIGCONT)
        code, said = one.end()
        assert (code, listed(client, name)) == (0, [])
        assert "withdrawn" in said


def test_the_end_is_not_waited_for_for_long_where_the_store_is_away(tmp_path: Path, name: str) -> None:
    """The command is told within a second, and what remains on the list is said."""
    with running(start_kvorum(tmp_path)) as server, Client(server.url) as client:
        script = "trap 'echo asked; exit 4' TERM; echo ready; while :; do sleep 0.02; done"
        with registered(server, client, name, "--", "sh", "-c", script) as one:
            assert one.line() == "ready"
            server.process.send_signal(signal.SIGSTOP)
            try:
                begun = time.monotonic()
                one.signal(signal.SIGTERM)
                assert one.line() == "asked"
                assert time.monotonic() - begun < 3
                code, said = one.end()
            finally:
                server.process.send_signal(signal.SIGCONT)
        assert code == 4
        assert "not withdrawn: " in said
        assert said.rstrip().endswith("it leaves the list within 10 s")


MISTAKES = [
    (["web"], "Missing option '--addr'"),
    (["--addr", ADDR], "service register takes a name"),
    (["web", "--addr", "x"], "the address 'x' is wrong: expected HOST:PORT"),
    (["a/b", "--addr", ADDR], "the service name 'a/b' is wrong"),
    (["web", "--addr", ADDR, "--meta", "x"], "--meta 'x' is wrong: expected NAME=VALUE"),
    (["web", "--addr", ADDR, "--ttl", "soon"], "Invalid value for '--ttl': 'soon' is no duration"),
    (["web", "--addr", ADDR, "--weight", "-1"], "the weight -1 is wrong"),
    (["web", "--addr", ADDR, "--check", "tcp://x"], "the check 'tcp://x' is wrong: expected tcp://HOST:PORT"),
    (
        ["web", "--addr", ADDR, "--check-interval", "0s"],
        "Invalid value for '--check-interval': '0s' is wrong",
    ),
    (["web", "--addr", ADDR, "--check-timeout", "0s"], "Invalid value for '--check-timeout': '0s' is wrong"),
    (["web", "--addr", ADDR, "--failures", "0"], "Invalid value for '--failures'"),
    (["web", "--addr", ADDR, "--", "no-such-program"], "command 'no-such-program' cannot be run"),
]


@pytest.mark.parametrize(("words", "error"), MISTAKES)
def test_mistakes_are_one_sentence(words: list[str], error: str) -> None:
    """Said before anything is done: there is no server here."""
    endpoint = f"--endpoints=127.0.0.1:{free_port()}"
    ran = subprocess.run(
        [*KVORUM, endpoint, "service", "register", *words],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (ran.returncode in (1, 128), ran.stdout) == (True, "")
    assert ran.stderr.startswith(f"Error: {error}"), ran.stderr
    assert ran.stderr.count("\n") == 1
