"""What is said about each name below the domain."""

from __future__ import annotations

from collections.abc import Callable

import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from dns.rcode import NOERROR, NXDOMAIN, REFUSED

from kvorum.nameserver.answers import Answer, Answers, ZoneSettings
from kvorum.services.directory import Directory
from kvorum.services.records import Instance, encode, instance
from kvorum.types import Event, KeyValue

SOA = ["kvorum. 3 IN SOA ns.kvorum. hostmaster.kvorum. VERSION 60 10 3600 3"]


def directory_of(*instances: Instance) -> Directory:
    directory = Directory()
    for one in instances:
        directory.apply(Event("PUT", KeyValue(one.key, encode(one), 1, 1, 1, 1)))
    return directory


class Asked:
    """An answer's sections, as lines of a zone file."""

    def __init__(self, answer: Answer, version: int) -> None:
        self.rcode = answer.rcode
        self.answer, self.authority, self.additional = (
            [
                line.replace(f" {version} 60", " VERSION 60")
                for rrset in section
                for line in str(rrset).splitlines()
            ]
            for section in (answer.answer, answer.authority, answer.additional)
        )

    @property
    def kind(self) -> str:
        """What a resolver takes it for."""
        if self.rcode != NOERROR:
            return dns.rcode.to_text(self.rcode)
        return "found" if self.answer else "NODATA"


def asker(
    *instances: Instance, zone: str = "", address: str = "", domain: str = "kvorum."
) -> Callable[[str, str], Asked]:
    directory = directory_of(*instances)
    settings = ZoneSettings(dns.name.from_text(domain), 5, 3, zone, address)
    answers = Answers(directory, settings)

    def ask(name: str, rdtype: str) -> Asked:
        answer = answers.to(dns.name.from_text(name), dns.rdatatype.from_text(rdtype))
        return Asked(answer, directory.version)

    return ask


WEB = (
    instance("web", "10.0.0.1:80", id="a", tags=["v1", "Green"], metadata={"k": "v"}, zone="eu", weight=2),
    instance("web", "10.0.0.2:81", id="b", tags=["v2"]),
    instance("web", "[fd00::1]:82", id="c", tags=["v2.1"]),
)


def test_addresses_of_a_service() -> None:
    """Those of the kind that was asked for."""
    ask = asker(*WEB)
    assert ask("web.service.kvorum", "A").answer == [
        "web.service.kvorum. 5 IN A 10.0.0.1",
        "web.service.kvorum. 5 IN A 10.0.0.2",
    ]
    assert ask("web.service.kvorum", "AAAA").answer == ["web.service.kvorum. 5 IN AAAA fd00::1"]


@pytest.mark.parametrize(
    "name", ["web.service.kvorum.", "_web._tcp.service.kvorum.", "_web._udp.service.kvorum."]
)
def test_services_with_their_ports(name: str) -> None:
    """Each with a name for its address, which is told along with it and can be asked for."""
    ask = asker(*WEB)
    asked = ask(name, "SRV")
    v6 = "fd000000000000000000000000000001.addr.kvorum."
    assert asked.answer == [
        f"{name} 5 IN SRV 0 2 80 0a000001.addr.kvorum.",
        f"{name} 5 IN SRV 0 1 81 0a000002.addr.kvorum.",
        f"{name} 5 IN SRV 0 1 82 {v6}",
    ]
    assert asked.additional == [
        "0a000001.addr.kvorum. 5 IN A 10.0.0.1",
        "0a000002.addr.kvorum. 5 IN A 10.0.0.2",
        f"{v6} 5 IN AAAA fd00::1",
    ]
    assert ask("0a000001.addr.kvorum", "A").answer == ["0a000001.addr.kvorum. 5 IN A 10.0.0.1"]
    assert ask("0a000001.addr.kvorum", "AAAA").kind == "NODATA"
    assert ask(v6, "AAAA").answer == [f"{v6} 5 IN AAAA fd00::1"]


def test_texts_tell_what_else_is_known() -> None:
    assert asker(WEB[0])("web.service.kvorum", "TXT").answer == [
        'web.service.kvorum. 5 IN TXT "id=a" "addr=10.0.0.1:80" "zone=eu" "tags=v1,Green" "k=v"'
    ]


def test_what_is_too_long_for_a_text_is_left_out() -> None:
    ask = asker(instance("web", "a:1", metadata={"long": "x" * 251, "longest": "x" * 250}))
    [text] = ask("web.service.kvorum", "TXT").answer
    assert "long=" not in text
    assert "longest=" not in text
    assert "addr=a:1" in text


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("v1.web.service.kvorum", ["10.0.0.1"]),
        ("GREEN.Web.Service.KVORUM", ["10.0.0.1"]),
        ("v2.web.service.kvorum", ["10.0.0.2"]),
    ],
)
def test_tags_select(name: str, found: list[str]) -> None:
    """In letters of either case, as all of DNS."""
    assert [line.split()[-1] for line in asker(*WEB)(name, "A").answer] == found


def test_a_tag_may_have_dots_and_may_stand_for_the_protocol() -> None:
    ask = asker(*WEB)
    assert ask("v2.1.web.service.kvorum", "AAAA").kind == "found"
    assert [line.split()[-1] for line in ask("_web._v2.service.kvorum", "SRV").answer] == [
        "0a000002.addr.kvorum."
    ]


@pytest.mark.parametrize(
    ("name", "rdtype", "kind"),
    [
        ("kvorum.", "A", "NODATA"),
        ("service.kvorum.", "A", "NODATA"),
        ("_tcp.service.kvorum.", "SRV", "NODATA"),
        ("addr.kvorum.", "A", "NODATA"),
        ("ns.kvorum.", "A", "NODATA"),
        ("web.service.kvorum.", "MX", "NODATA"),
        ("_web._tcp.service.kvorum.", "A", "NODATA"),
        ("v2.web.service.kvorum.", "AAAA", "NODATA"),
        ("1.web.service.kvorum.", "A", "NODATA"),  # there is v2.1 below, so it does exist (RFC 8020)
        ("2.1.web.service.kvorum.", "A", "NXDOMAIN"),
        ("x.kvorum.", "A", "NXDOMAIN"),
        ("web.kvorum.", "A", "NXDOMAIN"),
        ("other.service.kvorum.", "A", "NXDOMAIN"),
        ("_other._tcp.service.kvorum.", "SRV", "NXDOMAIN"),
        ("_web._v9.service.kvorum.", "SRV", "NXDOMAIN"),
        ("v9.web.service.kvorum.", "A", "NXDOMAIN"),
        ("0a000009.addr.kvorum.", "A", "NXDOMAIN"),  # nobody's
        ("0a00.addr.kvorum.", "A", "NXDOMAIN"),
        ("zz.addr.kvorum.", "A", "NXDOMAIN"),
        ("\\255.service.kvorum.", "A", "NXDOMAIN"),
        ("example.", "A", "REFUSED"),
        (".", "A", "REFUSED"),
        ("notkvorum.", "A", "REFUSED"),
    ],
)
def test_names_that_exist_without_such_records_are_not_names_that_do_not_exist(
    name: str, rdtype: str, kind: str
) -> None:
    """A resolver may remember either, for as long as the SOA record says: so that must be short."""
    asked = asker(*WEB)(name, rdtype)
    assert asked.kind == kind
    assert asked.authority == ([] if kind == "REFUSED" else SOA)


def test_the_domain_itself() -> None:
    ask = asker(address="192.0.2.1")
    assert ask("kvorum.", "SOA").answer == [SOA[0].replace("kvorum. 3", "kvorum. 5", 1)]
    assert ask("kvorum.", "NS").answer == ["kvorum. 5 IN NS ns.kvorum."]
    assert ask("ns.kvorum.", "A").answer == ["ns.kvorum. 5 IN A 192.0.2.1"]


def test_another_domain() -> None:
    ask = asker(*WEB, domain="in.example.org.")
    assert ask("web.service.in.example.org", "A").kind == "found"
    assert ask("web.service.kvorum", "A").kind == "REFUSED"


def test_any_is_answered_with_next_to_nothing() -> None:
    """RFC 8482: who forges senders should gain nothing by us."""
    ask = asker(*WEB)
    assert ask("web.service.kvorum", "ANY").answer == ['web.service.kvorum. 5 IN HINFO "RFC8482" ""']
    assert ask("x.service.kvorum", "ANY").kind == "NXDOMAIN"


def test_another_is_first_each_time_the_same_is_asked() -> None:
    """Whatever is asked between."""
    ask = asker(*(instance("web", f"10.0.0.{n}:80") for n in (1, 2, 3)))
    firsts = []
    for _ in range(6):
        firsts.append(ask("web.service.kvorum", "A").answer[0][-1])
        ask("web.service.kvorum", "AAAA")
    assert firsts == list("123123")
    assert [ask("web.service.kvorum", "SRV").answer[0].split(".")[3][-1] for _ in range(4)] != ["1"] * 4


def test_each_address_is_told_once() -> None:
    """Whatever runs there on how many ports."""
    ask = asker(instance("web", "10.0.0.1:80"), instance("web", "10.0.0.1:81"))
    assert len(ask("web.service.kvorum", "A").answer) == 1
    assert len(ask("web.service.kvorum", "SRV").answer) == 2


def test_the_nearest_come_first() -> None:
    """As the only addresses, and as the services of the lowest priority; the others stand behind."""
    zones = {"10.0.0.1:80": "us", "10.0.0.2:80": "eu/1b", "10.0.0.3:80": "eu/1a"}
    ask = asker(*(instance("web", addr, zone=zone) for addr, zone in zones.items()), zone="eu/1a")
    assert [line.split()[-1] for line in ask("web.service.kvorum", "A").answer] == ["10.0.0.3"]
    services = [line.split()[4::3] for line in ask("web.service.kvorum", "SRV").answer]
    assert services == [
        ["0", "0a000003.addr.kvorum."],
        ["1", "0a000002.addr.kvorum."],
        ["2", "0a000001.addr.kvorum."],
    ]


def test_the_nearest_are_those_with_an_address_of_the_kind_that_is_asked_for() -> None:
    """Who has no IPv6 is not told that there is nobody, because those nearby have nothing else."""
    zones = {"[fd00::1]:80": "eu", "10.0.0.2:80": "us/1", "10.0.0.3:80": "us/1", "far.example:80": "us/2"}
    ask = asker(*(instance("web", addr, zone=zone) for addr, zone in zones.items()), zone="eu")
    assert [line.split()[-1] for line in ask("web.service.kvorum", "AAAA").answer] == ["fd00::1"]
    assert sorted(line.split()[-1] for line in ask("web.service.kvorum", "A").answer) == [
        "10.0.0.2",
        "10.0.0.3",
    ]


def test_who_has_no_weight_is_told_only_where_nobody_has_any() -> None:
    drained, other = instance("web", "10.0.0.1:80", weight=0), instance("web", "10.0.0.2:80")
    for rdtype in ("A", "SRV", "TXT"):
        assert "10.0.0.1" not in str(asker(drained, other)("web.service.kvorum", rdtype).answer)
        assert asker(drained)("web.service.kvorum", rdtype).kind == "found"


def test_an_instance_with_a_host_name() -> None:
    """Is an alias that nobody may keep, where there are only such; as a service it is told by that name."""
    ask = asker(instance("db", "one.example:5432"), instance("db", "two.example:5432"))
    assert ask("db.service.kvorum", "A").answer == ["db.service.kvorum. 0 IN CNAME one.example."]
    assert ask("db.service.kvorum", "A").answer == ["db.service.kvorum. 0 IN CNAME two.example."]
    asked = ask("db.service.kvorum", "SRV")
    assert [line.split()[-1] for line in asked.answer] == ["one.example.", "two.example."]
    assert asked.additional == []
    mixed = asker(instance("db", "one.example:5432"), instance("db", "10.0.0.1:5432"))
    assert mixed("db.service.kvorum", "A").answer == ["db.service.kvorum. 5 IN A 10.0.0.1"]
    assert mixed("db.service.kvorum", "AAAA").kind == "NODATA"


STRANGE = ("a..b:1", f"{'x' * 70}:1", "fe80::1%eth0", "ü.example:1", ":::1")
OURS = ("kvorum:1", "service.kvorum:1", "\\255.kvorum:1", "\\255.addr.kvorum:1")


@pytest.mark.parametrize("addr", [*STRANGE, *OURS])
def test_a_host_that_can_be_no_name_harms_no_other(addr: str) -> None:
    """Somebody else may have written anything."""
    strange = Instance("web", "s", addr)
    ask = asker(strange, instance("web", "10.0.0.1:80"))
    assert [line.split()[-1] for line in ask("web.service.kvorum", "A").answer] == ["10.0.0.1"]
    assert "10.0.0.1" in str(ask("web.service.kvorum", "SRV").additional)
    assert asker(strange)("web.service.kvorum", "A").rcode == NOERROR


@pytest.mark.parametrize("addr", [".:1", ":1"])
def test_a_host_that_is_none_is_not_told(addr: str) -> None:
    """As a target of SRV the root says that there is no such service: not for one instance to say."""
    ask = asker(Instance("web", "s", addr))
    assert ask("web.service.kvorum", "SRV").kind == ask("web.service.kvorum", "A").kind == "NODATA"


def test_addresses_are_brought_along_under_names_that_can_be_asked_for() -> None:
    ask = asker(instance("web", "0a000001.kvorum:80"), instance("web", "10.0.0.1:80"))
    for line in ask("web.service.kvorum", "SRV").additional:
        assert ask(line.split()[0], "A").kind == "found"


def test_texts_are_not_more_than_a_message_can_have() -> None:
    """What is too much is left out: or one instance would have all of them untold."""
    lots = {f"k{n}": "x" * 240 for n in range(230)}
    ask = asker(Instance("web", "a", "a:1", lots), instance("web", "10.0.0.1:80"))
    texts = ask("web.service.kvorum", "TXT").answer
    assert ["addr=a:1" in text for text in texts].count(True) == 1
    assert max(map(len, texts)) < 5000


def test_changes_are_seen_at_once() -> None:
    directory = directory_of()
    answers = Answers(directory, ZoneSettings(dns.name.from_text("kvorum.")))
    name, one = dns.name.from_text("web.service.kvorum"), WEB[0]
    assert answers.to(name, dns.rdatatype.A).rcode == NXDOMAIN
    directory.apply(Event("PUT", KeyValue(one.key, encode(one), 1, 1, 1, 1)))
    assert answers.to(name, dns.rdatatype.A).rcode == NOERROR
    directory.apply(Event("DELETE", KeyValue(one.key, b"", 0, 2, 0, 0)))
    assert answers.to(name, dns.rdatatype.A).rcode == NXDOMAIN
    assert answers.to(dns.name.from_text("x."), dns.rdatatype.A).rcode == REFUSED


def test_no_more_records_than_wanted() -> None:
    directory = directory_of(*(instance("web", f"10.0.{n}.1:80") for n in range(9)))
    answers = Answers(directory, ZoneSettings(dns.name.from_text("kvorum.")))
    [rrset] = answers.to(dns.name.from_text("web.service.kvorum"), dns.rdatatype.A, 4).answer
    assert len(rrset) == 4
