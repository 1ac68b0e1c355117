"""A message that came, and the bytes that answer it: RFC 1035, EDNS (RFC 6891), truncation. Pure.

Nothing that comes can do harm: what has no header, or is itself an answer, gets none; what else cannot be
read gets FORMERR with its own id.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from kvorum.nameserver.answers import Answer

UDP_BYTES_MAX = 1232
"""More would be sent in fragments on many networks, and fragments are lost or forged."""
PLAIN_BYTES_MAX = 512
TCP_BYTES_MAX = 65535
HEADER_BYTES = 12
QUERY_BYTES_MAX = 4096
QUERY_RECORDS_MAX = 4
"""Beside the question: EDNS and a signature. To read thousands takes half a second in which nobody else is
answered."""
RECORD_BYTES_MIN = 16
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)

log = logging.getLogger(__name__)

Ask = Callable[[dns.name.Name, dns.rdatatype.RdataType, int], Answer]
"""What is said about a name, in no more than so many records."""


def respond(data: bytes, ask: Ask, *, is_udp: bool) -> bytes | None:
    """The answer to a message, or None where it gets none."""
    if len(data) < HEADER_BYTES or data[2] & 0x80:
        return None
    if data[2] >> 3 & 0xF != dns.opcode.QUERY:
        return _bare(data, dns.rcode.NOTIMP)
    questions, *records = struct.unpack("!4H", data[4:HEADER_BYTES])
    if questions != 1 or sum(records) > QUERY_RECORDS_MAX or len(data) > QUERY_BYTES_MAX:
        return _bare(data, dns.rcode.FORMERR)
    try:
        query = dns.message.from_wire(data)
    except Exception as error:  # dnspython has more than its own for some malformed messages
        log.debug("a message cannot be read: %r", error)
        return _bare(data, dns.rcode.FORMERR)
    size = _size_max(query) if is_udp else TCP_BYTES_MAX
    try:
        return _encoded(_response(query, ask, size), size)
    except Exception:
        log.exception("a question failed in an unforeseen way: %s", query.question[0])
        return _bare(data, dns.rcode.SERVFAIL)


def _response(query: dns.message.Message, ask: Ask, size: int) -> dns.message.Message:
    [question] = query.question
    response = dns.message.make_response(query, our_payload=UDP_BYTES_MAX)
    if query.edns > 0:
        response.use_edns(0, payload=UDP_BYTES_MAX)
    if query.edns >= 0:
        response.ednsflags |= query.ednsflags & dns.flags.DO
    if query.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
        return response
    most = size // RECORD_BYTES_MIN  # more would not fit
    is_ours = question.rdclass == dns.rdataclass.IN and question.rdtype not in _TRANSFERS
    answer = ask(question.name, question.rdtype, most) if is_ours else Answer(dns.rcode.REFUSED)
    response.set_rcode(answer.rcode)
    if answer.rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        response.flags |= dns.flags.AA
    response.answer, response.authority, response.additional = (
        answer.answer,
        answer.authority,
        answer.additional,
    )
    return response


def _size_max(query: dns.message.Message) -> int:
    """How much may be sent in one datagram."""
    return max(PLAIN_BYTES_MAX, min(query.payload, UDP_BYTES_MAX)) if query.edns >= 0 else PLAIN_BYTES_MAX


def _encoded(response: dns.message.Message, size: int) -> bytes:
    """What does not fit is left out: first what nobody has asked for, then records of the answer. Of the
    latter the client is told, so that it asks by TCP."""
    while True:
        try:
            return response.to_wire(max_size=size, want_shuffle=False)
        except dns.exception.TooBig:
            if response.additional:
                response.additional = []
                continue
        [rrset] = response.answer
        half = list(rrset)[: len(rrset) // 2]
        response.answer = [dns.rrset.from_rdata_list(rrset.name, rrset.ttl, half)] if half else []
        response.flags |= dns.flags.TC


def _bare(data: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """A header only: an answer to what could not be read, or what we do not do."""
    opcode_and_rd = data[2] & 0x79
    return data[:2] + bytes([0x80 | opcode_and_rd, rcode]) + bytes(8)
