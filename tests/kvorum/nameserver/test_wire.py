"""A message that came, and the bytes that answer it."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.update
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvorum.nameserver.answers import Answer, Answers, ZoneSettings
from kvorum.nameserver.wire import respond
from kvorum.services.records import instance
from tests.kvorum.nameserver.test_answers import directory_of

MANY = [instance("many", f"10.0.{n // 250}.{n % 250}:80") for n in range(300)]
ANSWERS = Answers(
    directory_of(instance("web", "10.0.0.1:80"), *MANY), ZoneSettings(dns.name.from_text("kvorum."))
)
QUERY = dns.message.make_query("web.service.kvorum", "A")


def asked(query: dns.message.Message, *, is_udp: bool = True) -> dns.message.Message:
    data = respond(query.to_wire(), ANSWERS.to, is_udp=is_udp)
    assert data is not None
    return dns.message.from_wire(data)


def test_an_answer_belongs_to_its_question() -> None:
    """The id, the question in its very letters, and the wish for recursion, which is not to be had here."""
    query = dns.message.make_query("WeB.service.Kvorum", "A")
    answer = asked(query)
    assert answer.id == query.id
    assert str(answer.question[0]) == "WeB.service.Kvorum. IN A"
    assert dns.flags.to_text(answer.flags) == "QR AA RD"
    assert [str(rrset) for rrset in answer.answer] == ["WeB.service.Kvorum. 1 IN A 10.0.0.1"]


def test_what_is_not_ours_is_refused_without_authority() -> None:
    answer = asked(dns.message.make_query("example.com", "A"))
    assert (answer.rcode(), answer.flags & dns.flags.AA) == (dns.rcode.REFUSED, 0)


@pytest.mark.parametrize(("rdtype", "rdclass"), [("AXFR", "IN"), ("IXFR", "IN"), ("A", "CH"), ("TXT", "ANY")])
def test_transfers_and_other_classes_are_refused(rdtype: str, rdclass: str) -> None:
    query = dns.message.make_query("web.service.kvorum", "A", rdclass)
    query.question[0].rdtype = dns.rdatatype.from_text(rdtype)
    assert asked(query).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("opcode", [dns.opcode.IQUERY, dns.opcode.STATUS, dns.opcode.NOTIFY])
def test_other_operations_are_not_implemented(opcode: dns.opcode.Opcode) -> None:
    query = dns.message.make_query("web.service.kvorum", "A")
    query.set_opcode(opcode)
    answer = asked(query)
    assert (answer.id, answer.opcode(), answer.rcode()) == (query.id, opcode, dns.rcode.NOTIMP)


def test_updates_are_not_implemented() -> None:
    assert asked(dns.update.UpdateMessage("kvorum.")).rcode() == dns.rcode.NOTIMP


# ---- size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "size_max"), [(None, 512), (100, 512), (512, 512), (1000, 1000), (1232, 1232), (4096, 1232)]
)
@pytest.mark.parametrize("rdtype", ["A", "SRV"])
def test_what_does_not_fit_into_a_datagram_is_truncated(
    rdtype: str, payload: int | None, size_max: int
) -> None:
    """And says so: the client asks again by TCP, where all of it is told."""
    query = dns.message.make_query(
        "many.service.kvorum", rdtype, use_edns=payload is not None, payload=payload or 0
    )
    data = respond(query.to_wire(), ANSWERS.to, is_udp=True)
    assert data is not None
    assert len(data) <= size_max
    answer = dns.message.from_wire(data)
    assert answer.flags & dns.flags.TC
    assert 0 < len(answer.answer[0]) < 100
    assert answer.edns == (0 if payload is not None else -1)
    whole = asked(query, is_udp=False)
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 300


def test_what_nobody_asked_for_is_left_out_before_anything_is_truncated() -> None:
    """The addresses of services can be asked for."""
    directory = directory_of(*MANY[:10])
    answers = Answers(directory, ZoneSettings(dns.name.from_text("kvorum.")))
    query = dns.message.make_query("many.service.kvorum", "SRV")
    data = respond(query.to_wire(), answers.to, is_udp=True)
    assert data is not None
    answer = dns.message.from_wire(data)
    assert not answer.flags & dns.flags.TC
    assert (len(answer.answer[0]), answer.additional) == (10, [])


def test_not_even_tcp_has_room_for_everything() -> None:
    """What fits is told."""
    directory = directory_of(*(instance("huge", f"host-{n}.{'x' * 60}.example:80") for n in range(900)))
    answers = Answers(directory, ZoneSettings(dns.name.from_text("kvorum.")))
    query = dns.message.make_query("huge.service.kvorum", "SRV")
    data = respond(query.to_wire(), answers.to, is_udp=False)
    assert data is not None
    assert len(data) <= 65535
    answer = dns.message.from_wire(data)
    assert answer.flags & dns.flags.TC
    assert len(answer.answer[0]) > 400


def test_edns_of_a_later_version_is_told_ours() -> None:
    query = dns.message.make_query("web.service.kvorum", "A", use_edns=1)
    answer = asked(query)
    assert (answer.rcode(), answer.edns, answer.answer) == (dns.rcode.BADVERS, 0, [])


@pytest.mark.parametrize("edns", [0, 1])
def test_of_ednss_flags_the_wish_for_signatures_comes_back_and_no_other(edns: int) -> None:
    """RFC 3225; others are not known here (RFC 6891)."""
    query = dns.message.make_query("web.service.kvorum", "A", use_edns=edns, ednsflags=0xFFFF)
    assert asked(query).ednsflags & 0xFFFF == dns.flags.DO
    assert asked(dns.message.make_query("web.service.kvorum", "A", use_edns=edns)).ednsflags & 0xFFFF == 0


def test_unknown_edns_options_are_ignored() -> None:
    """Cookies, and the client's network."""
    options = [dns.edns.GenericOption(10, b"12345678"), dns.edns.ECSOption("192.0.2.0", 24)]
    answer = asked(dns.message.make_query("web.service.kvorum", "A", use_edns=0, options=options))
    assert (answer.rcode(), len(answer.answer), answer.edns) == (dns.rcode.NOERROR, 1, 0)


# ---- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("questions", "records", "section"),
    [(9000, 0, 0), (1, 4000, 0), (1, 4000, 1), (1, 4000, 2), (1, 65535, 2)],
)
def test_who_asks_with_a_burden_is_refused_at_once(
    questions: int, records: int, section: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read thousands of records takes half a second, in which nobody else would be answered."""
    counts = [questions, 0, 0, 0]
    counts[1 + section] = records
    question = b"\1a\0\0\1\0\1"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4abcd"
    head = b"id\1\0" + struct.pack("!4H", *counts)
    monkeypatch.setattr(dns.message, "from_wire", lambda *_: pytest.fail("it is read"))
    assert respond(head + question * questions + record * records, ANSWERS.to, is_udp=False) == (
        b"id\x81\x01" + bytes(8)
    )


def test_who_asks_at_length_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record may be as long as thousands."""
    options = [dns.edns.GenericOption(65001, b"")] * 15000
    query = dns.message.make_query("web.service.kvorum", "A", use_edns=0, options=options)
    wire = query.to_wire(max_size=65535)
    monkeypatch.setattr(dns.message, "from_wire", lambda *_: pytest.fail("it is read"))
    assert respond(wire, ANSWERS.to, is_udp=False) == wire[:2] + b"\x81\x01" + bytes(8)


def test_an_answer_gets_none() -> None:
    """Or two servers could talk to each other for ever."""
    query = dns.message.make_query("web.service.kvorum", "A")
    query.flags |= dns.flags.QR
    assert respond(query.to_wire(), ANSWERS.to, is_udp=True) is None


@pytest.mark.parametrize("length", range(12))
def test_what_has_no_header_gets_no_answer(length: int) -> None:
    assert respond(QUERY.to_wire()[:length], ANSWERS.to, is_udp=True) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:12],  # a question is announced
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:4] + b"\0\0" + data[6:],  # none is
        lambda data: data[:4] + b"\0\2" + data[6:] + data[12:],
        lambda data: data[:12] + b"\xc0\x0c" + data[-4:],  # a name that points to itself
        lambda data: data[:6] + b"\xff\xff" + data[8:],
    ],
)
def test_what_cannot_be_read_is_told_so(change: object) -> None:
    """With its own id, so that whoever made the mistake can find it."""
    data = change(QUERY.to_wire())  # type: ignore[operator]
    answer = respond(data, ANSWERS.to, is_udp=True)
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert (message.id, message.rcode(), message.question) == (QUERY.id, dns.rcode.FORMERR, [])
    assert message.flags & dns.flags.QR


@given(
    st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(lambda rest: QUERY.to_wire()[:20] + rest))
)
@example(QUERY.to_wire() + b"\0" * 11)
@example(bytes(12))
def test_any_bytes_are_answered_or_dropped(data: bytes) -> None:
    """And an answer is one that can be read, to this very message, and not much longer."""
    answer = respond(data, ANSWERS.to, is_udp=True)
    if answer is None:
        assert len(data) < 12 or data[2] & 0x80
        return
    message = dns.message.from_wire(answer)
    assert answer[:2] == data[:2]
    assert message.flags & dns.flags.QR
    assert message.rcode() != dns.rcode.SERVFAIL


def test_our_own_mistake_is_a_failure_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """Which the next question does not have to suffer from."""

    def ask(name: dns.name.Name, rdtype: dns.rdatatype.RdataType, most: int) -> Answer:
        raise RuntimeError("a mistake")

    answer = respond(QUERY.to_wire(), ask, is_udp=True)
    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.SERVFAIL
    assert "a mistake" in caplog.text
