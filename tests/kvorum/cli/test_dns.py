"""kvorum dns: what it is told, and how it ends. What it answers: tests/kvorum/nameserver,
tests/e2e/test_services.py."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest

from tests.common.commands import KVORUM, tool
from tests.common.nodes import wait_until
from tests.common.ports import free_port
from tests.common.servers import ROOT, Server, running, start_kvorum

MISTAKES = [
    (["--listen", "5353"], "--listen '5353' is wrong: expected HOST:PORT, such as 127.0.0.1:5353"),
    (["--listen", ":53"], "--listen ':53' is wrong"),
    (["--listen", "127.0.0.1:99999"], "--listen '127.0.0.1:99999' is wrong"),
    (["--domain", "a..b"], "--domain 'a..b' is no name of DNS: "),
    (["--domain", "."], "--domain '.' is wrong: expected a domain of its own, such as kvorum."),
    (["--domain", ".".join(["x" * 60] * 4)], "--domain 'xx"),
    (["--ttl", "600000h"], "--ttl of 2160000000 s is too long: expected at most 2147483647 s"),
    (["--negative-ttl", "600000h"], "--negative-ttl of 2160000000 s is too long"),
    (["--ttl", "soon"], "Invalid value for '--ttl': 'soon' is no duration"),
]


@pytest.mark.parametrize(("words", "error"), MISTAKES)
def test_mistakes_are_one_sentence(words: list[str], error: str) -> None:
    """Said before anything is done."""
    ran = subprocess.run([*KVORUM, "dns", *words], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stdout) == (128, "")
    assert ran.stderr.startswith(f"Error: {error}"), ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_is_taken_is_one_sentence(kind: socket.SocketKind) -> None:
    """Be it for TCP or for UDP."""
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        words = [*KVORUM, "dns", "--listen", f"127.0.0.1:{port}"]
        ran = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(rf"Error: cannot listen on 127\.0\.0\.1:{port}: .*in use.*\n", ran.stderr), ran.stderr


def test_what_it_says_need_not_be_read(tmp_path: Path) -> None:
    """A log that is no more does not end it, before it knows anything."""
    port = free_port()
    words = [*KVORUM, "--endpoints", f"127.0.0.1:{port}", "dns", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r" port (\d+), UDP and TCP$", process.stderr.readline())
            assert found is not None
            process.stderr.close()
            query = dns.message.make_query("kvorum", "SOA")

            def is_known() -> bool:
                answer = dns.query.tcp(query, "127.0.0.1", port=int(found[1]), timeout=5)
                return answer.rcode() == dns.rcode.NOERROR

            assert not is_known()
            with running(start_kvorum(tmp_path, port=port)):
                wait_until(lambda: process.poll() is not None or is_known())
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_signal_ends_it(kvorum_server: Server, host: str, number: signal.Signals) -> None:
    """At once, and with 0."""
    with tool(kvorum_server, "dns", "--listen", f"{host}:0") as one:
        assert one.process.stderr is not None
        assert re.search(r" on .* port \d+, UDP and TCP$", one.process.stderr.readline())
        one.signal(number)
        code, said = one.end()
        assert code == 0
        assert "Traceback" not in said
