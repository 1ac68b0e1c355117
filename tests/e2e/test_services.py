"""Service discovery as others see it: who is killed or hangs leaves the list, dig and Prometheus find who
is on it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from kvorum import Client
from tests.common.clusters import start_kvorum_cluster
from tests.common.commands import KVORUM, Tool, command, tool
from tests.common.debian import program
from tests.common.nodes import wait_until
from tests.common.ports import free_port, free_ports
from tests.common.servers import ROOT, Server, running, start_etcd, start_kvorum

TTL = 3
WEB = """
import http.server, sys
class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"up_and_well 1\\n")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Web)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(start_etcd(tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture(params=["kvorum", "etcd"])
def store(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue("kvorum_server" if request.param == "kvorum" else "etcd")
    return found


@pytest.fixture
def client(store: Server) -> Iterator[Client]:
    with Client(store.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"s-{uuid.uuid4().hex}"


def listed(client: Client, name: str) -> list[str]:
    return [one.addr for one in client.services.resolve(name)]


@contextlib.contextmanager
def registered(store: Server, client: Client, name: str, addr: str, *words: str) -> Iterator[Tool]:
    """``kvorum service register`` runs, and it is on the list."""
    with tool(store, "service", "register", name, "--addr", addr, f"--ttl={TTL}s", *words) as one:
        wait_until(lambda: addr in listed(client, name) or one.process.poll() is not None)
        assert one.process.poll() is None, one.end()
        yield one


def seconds_until_gone(client: Client, name: str) -> float:
    begun = time.monotonic()
    wait_until(lambda: not listed(client, name))
    return time.monotonic() - begun


# ---- who leaves the list -------------------------------------------------------------------------


def test_who_is_killed_leaves_the_list_within_its_time_to_live(
    store: Server, client: Client, name: str
) -> None:
    """And a second: registration and service are one process group, and nothing of it can say anything."""
    with registered(store, client, name, "a:1", "--", sys.executable, "-c", WEB, str(free_port())) as one:
        assert one.line() == "ready"
        ttl = client.time_to_live(client.services.resolve(name)[0].lease).granted_ttl
        one.signal(signal.SIGKILL)
        assert seconds_until_gone(client, name) < ttl + 1


def test_a_library_s_process_that_is_killed_leaves_the_list(store: Server, client: Client, name: str) -> None:
    script = (
        f"import kvorum, time; kvorum.Client({store.url!r}).services.register({name!r}, 'a:1', ttl={TTL});"
        "time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as process:
        try:
            wait_until(lambda: listed(client, name))
        finally:
            process.kill()
    assert seconds_until_gone(client, name) < TTL + 1


def test_a_service_that_is_killed_leaves_the_list_at_once(store: Server, client: Client, name: str) -> None:
    """Who has registered it sees that, and passes on how it ended."""
    code = "import os; print(os.getpid(), flush=True); input()"
    words = [*command("kvorum", store), "service", "register", name, "--addr", "a:1", "--ttl=60s"]
    process = subprocess.Popen(
        [*words, "--", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        assert process.stdout is not None
        service = int(process.stdout.readline())
        wait_until(lambda: listed(client, name))
        subprocess.run(["kill", "-KILL", str(service)], check=True)
        assert process.wait(timeout=20) == 137
        assert listed(client, name) == []
    finally:
        process.kill()
        process.communicate()


def test_a_service_that_hangs_fails_its_check_and_leaves_the_list(
    store: Server, client: Client, name: str
) -> None:
    """Its process lives, its port accepts connections, and its lease is renewed. When it goes on it is
    back."""
    port = free_port()
    addr = f"127.0.0.1:{port}"
    checked = [
        "--check",
        f"http://{addr}/",
        "--check-interval=200ms",
        "--check-timeout=500ms",
        "--failures=2",
    ]
    with subprocess.Popen([sys.executable, "-c", WEB, str(port)], stdout=subprocess.PIPE) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == b"ready\n"
            with registered(store, client, name, addr, *checked) as one:
                service.send_signal(signal.SIGSTOP)
                wait_until(lambda: not listed(client, name))
                assert one.process.poll() is None
                with socket.create_connection(("127.0.0.1", port), timeout=5):
                    assert listed(client, name) == []
                service.send_signal(signal.SIGCONT)
                wait_until(lambda: listed(client, name) == [addr])
        finally:
            service.kill()


def test_a_registration_outlives_a_leader_that_is_killed(tmp_path: Path, name: str) -> None:
    """It is on the list the whole time, as seen by those who stay."""
    with start_kvorum_cluster(tmp_path, 3, "--heartbeat-interval=50", "--election-timeout=500") as cluster:
        leader = cluster.leader()
        others = [url for i, url in enumerate(cluster.urls) if i != leader]
        with Client(cluster.urls) as client, Client(others) as watcher, watcher.services.watch(name) as watch:
            with client.services.register(name, "a:1", ttl=5) as registration:
                cluster.kill(leader)
                begun = time.monotonic()
                wait_until(lambda: time.monotonic() - begun > registration.ttl + 1)
                assert listed(watcher, name) == ["a:1"]
                assert registration.problem is None
            changes = iter(watch)
            assert [next(changes).kind for _ in range(2)] == ["added", "removed"]


# ---- dig -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def nameserver(store: Server, *words: str) -> Iterator[int]:
    """The port of a ``kvorum dns`` that knows what is there."""
    arguments = [*command("kvorum", store), "dns", "--listen", "127.0.0.1:0", *words]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            found = re.search(r" port (\d+), UDP and TCP", said)
            assert found, said
            assert process.stderr.readline().startswith("kvorum dns: knows ")
            yield int(found[1])
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


class Dug:
    """What dig shows of an answer."""

    def __init__(self, port: int, *words: str) -> None:
        dig = program("dig", "dnsutils")
        ran = subprocess.run(
            [dig, "@127.0.0.1", "-p", str(port), "+time=5", "+tries=2", *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.text = ran.stdout
        assert ran.returncode == 0, ran.stdout
        assert "Warning" not in ran.stdout.replace("WARNING: recursion requested but not available", ""), (
            ran.stdout
        )
        self.status = re.search(r"status: (\w+)", self.text)[1]  # type: ignore[index]
        self.flags = re.search(r"flags: ([\w ]+);", self.text)[1].split()  # type: ignore[index]

    def section(self, name: str) -> list[str]:
        found = re.search(rf";; {name} SECTION:\n((?:.+\n)+)", self.text)
        return [re.sub(r"\s+", " ", line) for line in found[1].splitlines()] if found else []


@pytest.fixture
def dns(store: Server, client: Client, name: str) -> Iterator[int]:
    with (
        client.services.register(name, "10.0.0.1:80", tags=["v1"], metadata={"version": "1.4"}, weight=2),
        client.services.register(name, "10.0.0.2:81", tags=["v2"]),
        client.services.register(name, "[fd00::1]:82", tags=["v2"]),
        nameserver(store) as port,
    ):
        yield port


def test_dig_resolves_a_service(dns: int, name: str) -> None:
    """Its addresses of both kinds, by UDP and by TCP; without dig finding anything to warn of."""
    for way in ("+notcp", "+tcp", "+noedns"):
        dug = Dug(dns, way, f"{name}.service.kvorum", "A")
        assert (dug.status, "aa" in dug.flags) == ("NOERROR", True)
        assert {line.split()[-1] for line in dug.section("ANSWER")} == {"10.0.0.1", "10.0.0.2"}
    assert Dug(dns, f"{name}.service.kvorum", "AAAA").section("ANSWER") == [
        f"{name}.service.kvorum. 1 IN AAAA fd00::1"
    ]
    assert [line.split()[-1] for line in Dug(dns, f"v1.{name}.service.kvorum", "A").section("ANSWER")] == [
        "10.0.0.1"
    ]


def test_dig_finds_ports_and_their_addresses(dns: int, name: str) -> None:
    dug = Dug(dns, f"_{name}._tcp.service.kvorum", "SRV")
    assert sorted(line.split(" ", 4)[4] for line in dug.section("ANSWER")) == [
        "0 1 81 0a000002.addr.kvorum.",
        "0 1 82 fd000000000000000000000000000001.addr.kvorum.",
        "0 2 80 0a000001.addr.kvorum.",
    ]
    assert "0a000001.addr.kvorum. 1 IN A 10.0.0.1" in dug.section("ADDITIONAL")
    [text] = Dug(dns, f"v1.{name}.service.kvorum", "TXT").section("ANSWER")
    assert '"version=1.4"' in text


def test_dig_is_told_what_there_is_not(dns: int, name: str) -> None:
    """That there is no such name, no such record of it, or that others are to be asked."""
    nobody = Dug(dns, "nobody.service.kvorum", "A")
    assert (nobody.status, nobody.section("ANSWER")) == ("NXDOMAIN", [])
    assert re.match(
        r"kvorum\. 1 IN SOA ns\.kvorum\. hostmaster\.kvorum\. \d+ 60 10 3600 1$",
        nobody.section("AUTHORITY")[0],
    )
    no_such = Dug(dns, f"{name}.service.kvorum", "MX")
    assert (no_such.status, no_such.section("ANSWER"), len(no_such.section("AUTHORITY"))) == (
        "NOERROR",
        [],
        1,
    )
    assert Dug(dns, "example.com", "A").status == "REFUSED"


def test_dig_goes_on_by_tcp_where_an_answer_is_too_long(store: Server, client: Client, name: str) -> None:
    with client.txn() as t:
        for n in range(120):
            t.put(f"/services/{name}/{n}", json.dumps({"Addr": f"10.0.1.{n}:80"}))
    try:
        with nameserver(store) as port:
            assert "tc" in Dug(port, "+ignore", f"{name}.service.kvorum", "A").flags
            assert len(Dug(port, f"{name}.service.kvorum", "A").section("ANSWER")) == 120
    finally:
        client.delete(f"/services/{name}/", prefix=True)


def test_answers_follow_the_list(store: Server, client: Client, name: str) -> None:
    """Who comes is there, who goes is not."""
    with nameserver(store, "--domain", "in.example.") as port:
        question = (f"{name}.service.in.example", "A")
        assert Dug(port, *question).status == "NXDOMAIN"
        with client.services.register(name, "10.0.0.1:80"):
            wait_until(lambda: Dug(port, *question).status == "NOERROR")
        wait_until(lambda: Dug(port, *question).status == "NXDOMAIN")


def test_answers_go_on_while_the_store_is_away(tmp_path: Path, name: str) -> None:
    """With what is known; what is new is told when it is back. Before anything is known, nothing is."""
    store_port, [port] = free_port(), free_ports(1)
    words = [*KVORUM, "--endpoints", f"127.0.0.1:{store_port}", "dns", "--listen", f"127.0.0.1:{port}"]
    question = (f"{name}.service.kvorum", "A")
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "answering for kvorum." in process.stderr.readline()
            assert Dug(port, *question).status == "SERVFAIL"
            assert "no answers yet: cannot connect" in process.stderr.readline()
            server = start_kvorum(tmp_path, port=store_port)
            with running(server), Client(server.url) as client:
                client.put(f"/services/{name}/a", '{"Addr":"10.0.0.1:80"}')
                wait_until(lambda: Dug(port, *question).status == "NOERROR")
                server.kill()
            assert Dug(port, *question).section("ANSWER") == [f"{name}.service.kvorum. 1 IN A 10.0.0.1"]
            server = start_kvorum(tmp_path, port=store_port)
            with running(server), Client(server.url) as client:
                client.delete(f"/services/{name}/a")
                wait_until(lambda: Dug(port, *question).status == "NXDOMAIN")
        finally:
            process.kill()


# ---- Prometheus ----------------------------------------------------------------------------------


@contextlib.contextmanager
def prometheus(directory: Path, discovery: str) -> Iterator[int]:
    """The port of a real one that asks us for its targets."""
    [port] = free_ports(1)
    config = directory / "prometheus.yml"
    config.write_text(f"""
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: kvorum
    http_sd_configs: [{{url: "{discovery}", refresh_interval: 1s}}]
    relabel_configs:
      - {{source_labels: [__meta_kvorum_service], target_label: service}}
      - {{source_labels: [__meta_kvorum_metadata_version], target_label: version}}
      - source_labels: [__meta_kvorum_tags]
        regex: ".*,canary,.*"
        target_label: canary
        replacement: found
""")
    with (directory / "prometheus.log").open("wb") as log:
        words = [f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
        process = subprocess.Popen(
            [program("prometheus", "prometheus"), *words, f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def asked(port: int, path: str) -> Any:
    """None while it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status == 200:
            return json.loads(response.read())["data"]
    return None


def targets(port: int) -> list[dict[str, Any]]:
    found = asked(port, "/api/v1/targets?state=active")
    return found["activeTargets"] if found else []


def test_prometheus_resolves_and_scrapes_registered_services(
    kvorum_server: Server, tmp_path: Path, name: str
) -> None:
    """Those that it asks for, with what is known of them as labels; who leaves the list is a target no
    more."""
    port = free_port()
    discovery = f"{kvorum_server.url}/v1/services/prometheus?name={quote(name)}"
    with (
        Client(kvorum_server.url) as client,
        subprocess.Popen([sys.executable, "-c", WEB, str(port)], stdout=subprocess.PIPE) as service,
        client.services.register(name + "-2", "10.0.0.9:1"),
        prometheus(tmp_path, discovery) as prometheus_port,
    ):
        try:
            addr = f"127.0.0.1:{port}"
            words = {"tags": ["v1", "canary"], "metadata": {"version": "1.4"}}
            with client.services.register(name, addr, **words) as registration:
                metric = f'up_and_well{{service="{name}"}}'
                query = f"/api/v1/query?query={quote(metric)}"
                wait_until(lambda: (asked(prometheus_port, query) or {}).get("result"), 60)
                [target] = targets(prometheus_port)
                assert (target["health"], target["labels"]) == (
                    "up",
                    {"canary": "found", "instance": addr, "job": "kvorum", "service": name, "version": "1.4"},
                )
                assert target["discoveredLabels"]["__meta_kvorum_service_id"] == registration.instance.id
            wait_until(lambda: targets(prometheus_port) == [], 60)
        finally:
            service.kill()
