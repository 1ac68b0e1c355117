"""Endpoints from DNS: etcdctl's --discovery-srv."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Thread

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from kvorum.cli.discovery import endpoints
from kvorum.cli.settings import Failure
from tests.common.commands import run_here
from tests.common.servers import Server


@pytest.fixture(autouse=True)
def nameserver(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """One on this machine, which is asked instead of the system's. It knows the records that are put here."""
    records: dict[str, list[str]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = Thread(target=_answer, args=(sock, records), daemon=True)
        thread.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], sock.getsockname()[1], 5.0
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
        yield records
        sock.sendto(b"", sock.getsockname())
        thread.join()


def _answer(sock: socket.socket, records: dict[str, list[str]]) -> None:
    """Until an empty datagram comes."""
    while True:
        data, asker = sock.recvfrom(4096)
        if not data:
            return
        question = dns.message.from_wire(data)
        name = question.question[0].name
        answer = dns.message.make_response(question)
        found = records.get(name.to_text(omit_final_dot=True))
        if found is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "SRV", found))
        sock.sendto(answer.to_wire(), asker)


def test_endpoints_are_found_as_etcdctl_finds_them(nameserver: dict[str, list[str]]) -> None:
    """Those with TLS first, then by priority and weight; a cluster's name is part of the question."""
    nameserver["_etcd-client._tcp.example.org"] = ["2 0 2379 c.example.org.", "1 1 2379 b.example.org."]
    nameserver["_etcd-client._tcp.example.org"] += ["1 5 2380 a.example.org."]
    nameserver["_etcd-client-ssl._tcp.example.org"] = ["0 0 443 s.example.org."]
    nameserver["_etcd-client-prod._tcp.example.org"] = ["0 0 1 p.example.org."]
    assert endpoints("example.org") == (
        *("https://s.example.org:443", "http://a.example.org:2380"),
        *("http://b.example.org:2379", "http://c.example.org:2379"),
    )
    assert endpoints("example.org", "prod") == ("http://p.example.org:1",)


def test_insecure_ones_may_be_left_out(
    nameserver: dict[str, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """They are named."""
    nameserver["_etcd-client._tcp.example.org"] = ["0 0 2379 a.example.org."]
    nameserver["_etcd-client-ssl._tcp.example.org"] = ["0 0 443 s.example.org."]
    assert endpoints("example.org", insecure=False) == ("https://s.example.org:443",)
    assert capfd.readouterr().err == 'ignoring discovered insecure endpoint "http://a.example.org:2379"\n'


def test_a_domain_without_records_is_a_mistake() -> None:
    """With both questions that were asked."""
    with pytest.raises(
        Failure, match=r"_etcd-client-ssl-x\._tcp\.none\.org.* and _etcd-client-x\._tcp\.none\.org"
    ):
        endpoints("none.org", "x")


def test_commands_ask_who_is_found(nameserver: dict[str, list[str]], kvorum_server: Server) -> None:
    """Whatever --endpoints says, as in etcdctl; in both spellings, and from the environment."""
    nameserver["_etcd-client._tcp.here"] = [f"0 0 {kvorum_server.port} localhost."]
    for words in (["-d", "here", "put", "found", "1"], ["put", "found", "1", "--discovery-srv=here"]):
        assert run_here(["--endpoints=127.0.0.1:9", *words]) == (0, "OK\n", "")
    assert run_here(["get", "found"], environment={"ETCDCTL_DISCOVERY_SRV": "here"}).out == "found\n1\n"


def test_without_a_secure_one_nobody_is_asked(
    nameserver: dict[str, list[str]], kvorum_server: Server
) -> None:
    """etcdctl asks 127.0.0.1 then."""
    nameserver["_etcd-client._tcp.here"] = [f"0 0 {kvorum_server.port} localhost."]
    words = [f"--endpoints={kvorum_server.url}", "-dhere", "--insecure-discovery=false", "get", "found"]
    code, out, error = run_here(words)
    assert (code, out) == (1, "")
    assert error.endswith(
        "Error: DNS names no endpoint of here with TLS, and --insecure-discovery is false\n"
    )


def test_a_name_server_is_not_asked_by_commands_that_ask_no_server() -> None:
    """They work without."""
    assert run_here(["-d", "none.org", "version"]).code == 0
