"""What is said about a name below the domain, from a directory in memory. Pure but for whose turn it is.

    web.service.kvorum.             A, AAAA, SRV, TXT of all instances
    v2.web.service.kvorum.          of those with the tag v2
    _web._tcp.service.kvorum.       SRV (RFC 2782); _web._v2.service.kvorum. of those with the tag
    0a000001.addr.kvorum.           A of 10.0.0.1: what SRV records name, where an instance has no host name

Decisions: A and AAAA name only the nearest instances with such addresses, since resolvers do not keep an
order; SRV names all, the nearest with the lowest priority. Whose weight is 0 is named only where nobody has
any. A name exists as long as there is an instance for it. An instance with a host name has no address here:
where the nearest have nothing else, an A or AAAA question is answered with one of them as CNAME, which nobody
is to keep (TTL 0).
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import dns.exception
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdata import Rdata
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.HINFO import HINFO
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

from kvorum.services.choice import nearness
from kvorum.services.directory import Directory
from kvorum.services.records import Instance

T = TypeVar("T")
Groups = list[list[Rdata]]
"""Records in groups, the nearest first."""
RECORDS_MAX = 4000
"""More do not fit into any message."""
TXT_BYTES_MAX = 255
TEXTS_BYTES_MAX = 4000
"""Of one instance. More would leave no room for others."""
_NO_TAG = ("_tcp", "_udp")
_KEPT_MAX = 10_000
_REFRESH, _RETRY, _EXPIRE = 60, 10, 3600  # nobody transfers the zone, but an SOA record says these


@dataclass(frozen=True)
class ZoneSettings:
    """Times in seconds. ``zone``: what is nearest is judged from there. ``address``: the server's own."""

    domain: dns.name.Name
    ttl: int = 1
    negative_ttl: int = 1
    zone: str = ""
    address: str = ""


@dataclass
class Answer:
    """The sections of a response. ``authority`` has an SOA record where there is no answer."""

    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)
    additional: list[dns.rrset.RRset] = field(default_factory=list)


class Answers:
    """``directory`` is somebody else's to fill; what it has at the moment is what is said."""

    def __init__(self, directory: Directory, settings: ZoneSettings) -> None:
        self._directory = directory
        self._settings = settings
        self._turns: dict[tuple[tuple[str, ...], int], int] = {}
        # What follows is of one version of the directory.
        self._version = -1
        self._names: dict[str, list[str]] = {}  # in lower case → as they were registered
        self._addresses: set[str] = set()
        self._known: dict[tuple[tuple[str, ...], int], Groups | None] = {}
        self._targets: dict[dns.name.Name, list[dns.rrset.RRset]] = {}

    def to(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, most: int = RECORDS_MAX) -> Answer:
        """With no more than ``most`` records. Refused where the name is not below the domain."""
        labels = self._asked(name)
        if labels is None:
            return Answer(dns.rcode.REFUSED)
        self._index()
        asked = labels, int(rdtype)
        if asked not in self._known:
            if len(self._known) >= _KEPT_MAX:
                self._known.clear()
            self._known[asked] = self._records(asked[0], rdtype)
        groups = self._known[asked]
        if groups is None:
            return Answer(dns.rcode.NXDOMAIN, authority=[self._soa()])
        if rdtype == dns.rdatatype.ANY:
            groups = [[_record(HINFO, dns.rdatatype.HINFO, b"RFC8482", b"")]]
        turn = self._turn(asked) if groups else 0
        found = [record for group in groups for record in _turned(group, turn)][:most]
        if not found:
            return Answer(authority=[self._soa()])
        ttl = self._settings.ttl
        if found[0].rdtype == dns.rdatatype.CNAME:
            found, ttl = found[:1], 0
        answer = Answer(answer=[dns.rrset.from_rdata_list(name, ttl, found)])
        if rdtype == dns.rdatatype.SRV:
            targets = dict.fromkeys(record.target for record in found if isinstance(record, SRV))
            answer.additional = [rrset for target in targets for rrset in self._of_target(target)]
        return answer

    def _records(self, labels: Sequence[str], rdtype: dns.rdatatype.RdataType) -> Groups | None:
        """None where there is no such name."""
        match labels:
            case []:
                return self._of_apex(rdtype)
            case ["ns"]:
                return [_addresses([self._settings.address], rdtype)]
            case ["service"] | ["addr"]:
                return []  # there are names below
            case [address, "addr"]:
                return self._of_address(address, rdtype)
            case [label, "service"] if label.startswith("_"):
                return []
            case [label, tag, "service"] if label.startswith("_") and tag.startswith("_"):
                instances = self._instances(label[1:], "" if tag in _NO_TAG else tag[1:])
                is_other = rdtype not in (dns.rdatatype.SRV, dns.rdatatype.ANY)
                return [] if is_other and instances else self._of_instances(instances, rdtype)
            case [*tags, service, "service"]:
                tag = ".".join(tags)
                found = self._of_instances(self._instances(service, tag), rdtype)
                return [] if found is None and self._has_below(service, tag) else found
        return None

    def _instances(self, service: str, tag: str) -> list[Instance]:
        return [
            one
            for name in self._names.get(service, ())
            for one in self._directory.instances(name)
            if not tag or tag in (each.lower() for each in one.tags)
        ]

    def _has_below(self, service: str, name: str) -> bool:
        """Whether a tag with dots stands for a name below this one, which exists then (RFC 8020)."""
        below = f".{name}"
        return any(tag.lower().endswith(below) for one in self._instances(service, "") for tag in one.tags)

    def _of_apex(self, rdtype: dns.rdatatype.RdataType) -> Groups:
        if rdtype == dns.rdatatype.SOA:
            return [list(self._soa())]
        if rdtype == dns.rdatatype.NS:
            return [[_record(NS, rdtype, self._below("ns"))]]
        return []

    def _of_address(self, label: str, rdtype: dns.rdatatype.RdataType) -> Groups | None:
        """Only of registered instances: with names for all, strangers could point ours where they like."""
        try:
            address = str(ipaddress.ip_address(bytes.fromhex(label)))
        except ValueError:
            return None
        return [_addresses([address], rdtype)] if address in self._addresses else None

    def _of_instances(self, instances: list[Instance], rdtype: dns.rdatatype.RdataType) -> Groups | None:
        """In groups, the nearest first; within each they take turns."""
        if not instances:
            return None
        groups = self._by_nearness([one for one in instances if one.weight] or instances)
        match rdtype:
            case dns.rdatatype.A | dns.rdatatype.AAAA | dns.rdatatype.CNAME:
                return [self._hosts(groups, rdtype)]
            case dns.rdatatype.SRV:
                return [self._services(group, priority) for priority, group in enumerate(groups)]
            case dns.rdatatype.TXT:
                return [[_record(TXT, rdtype, _texts(one)) for one in group] for group in groups]
        return []

    def _by_nearness(self, instances: list[Instance]) -> list[list[Instance]]:
        groups: dict[int, list[Instance]] = {}
        for one in instances:
            groups.setdefault(nearness(one, self._settings.zone), []).append(one)
        return [groups[common] for common in sorted(groups, reverse=True)]

    def _hosts(self, groups: list[list[Instance]], rdtype: dns.rdatatype.RdataType) -> list[Rdata]:
        """Of the nearest, and, where these have no address of the kind, of the nearest that have."""
        if any(_is_address(one.host) for one in groups[0]):
            found = (_addresses([one.host for one in group], rdtype) for group in groups)
            return next(filter(None, found), [])
        targets = [target for one in groups[0] if (target := self._target(one)) is not None]
        return [_record(CNAME, dns.rdatatype.CNAME, target) for target in targets]

    def _services(self, group: list[Instance], priority: int) -> list[Rdata]:
        records = [
            _record(SRV, dns.rdatatype.SRV, priority, one.weight, one.port, target)
            for one in group
            if (target := self._target(one)) is not None
        ]
        return list(dict.fromkeys(records))

    def _turn(self, asked: tuple[tuple[str, ...], int]) -> int:
        """How often the same was asked before: each time another instance is first. Counted for each
        question, as who always asks for A and then for AAAA would otherwise get every second answer only."""
        if len(self._turns) >= _KEPT_MAX:
            self._turns.clear()
        turn = self._turns.get(asked, 0)
        self._turns[asked] = turn + 1
        return turn

    def _target(self, one: Instance) -> dns.name.Name | None:
        """What an SRV record points to; None where the host can be no name."""
        if _is_address(one.host):
            return self._below(ipaddress.ip_address(one.host).packed.hex(), "addr")
        try:
            name = dns.name.from_text(one.host)
        except (dns.exception.DNSException, ValueError):
            return None
        return name if name != dns.name.root else None

    def _of_target(self, target: dns.name.Name) -> list[dns.rrset.RRset]:
        """The addresses of what an SRV record points to, if they are ours to tell."""
        if target not in self._targets:
            found = []
            match self._asked(target):
                case [address, "addr"]:
                    for rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                        [addresses] = self._of_address(address, rdtype) or [[]]
                        if addresses:
                            found.append(dns.rrset.from_rdata_list(target, self._settings.ttl, addresses))
            self._targets[target] = found
        return self._targets[target]

    def _asked(self, name: dns.name.Name) -> tuple[str, ...] | None:
        """Its labels below the domain, in lower case; None where it is not below it."""
        domain = self._settings.domain
        if not name.is_subdomain(domain):
            return None
        below = name.labels[: len(name.labels) - len(domain.labels)]
        return tuple(label.decode("utf-8", "surrogateescape").lower() for label in below)

    def _soa(self) -> dns.rrset.RRset:
        serial = self._directory.version % (1 << 32)
        negative_ttl = self._settings.negative_ttl
        names = self._below("ns"), self._below("hostmaster")
        soa = _record(SOA, dns.rdatatype.SOA, *names, serial, _REFRESH, _RETRY, _EXPIRE, negative_ttl)
        return dns.rrset.from_rdata(self._settings.domain, negative_ttl, soa)

    def _below(self, *labels: str) -> dns.name.Name:
        return dns.name.Name([*(label.encode() for label in labels), *self._settings.domain.labels])

    def _index(self) -> None:
        if self._version == self._directory.version:
            return
        self._names, self._addresses, self._known, self._targets = {}, set(), {}, {}
        for name in self._directory.names():
            self._names.setdefault(name.lower(), []).append(name)
        for one in self._directory.instances():
            if _is_address(one.host):
                self._addresses.add(str(ipaddress.ip_address(one.host)))
        self._version = self._directory.version


def _record(kind: Callable[..., Rdata], rdtype: dns.rdatatype.RdataType, *fields: object) -> Rdata:
    return kind(dns.rdataclass.IN, rdtype, *fields)


def _is_address(host: str) -> bool:
    try:
        return "%" not in host and bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _turned(found: list[T], turn: int) -> list[T]:
    at = turn % len(found) if found else 0
    return found[at:] + found[:at]


def _addresses(hosts: Sequence[str], rdtype: dns.rdatatype.RdataType) -> list[Rdata]:
    """Those of them that are of this kind, each once."""
    addresses = [ipaddress.ip_address(host) for host in dict.fromkeys(hosts) if _is_address(host)]
    if rdtype == dns.rdatatype.A:
        return [_record(A, rdtype, str(one)) for one in addresses if one.version == 4]
    if rdtype == dns.rdatatype.AAAA:
        return [_record(AAAA, rdtype, str(one)) for one in addresses if one.version == 6]
    return []


def _texts(one: Instance) -> list[bytes]:
    """What is longer than a string of a TXT record can be is left out, and so is all that is too much."""
    pairs = [("id", one.id), ("addr", one.addr), ("zone", one.zone), ("tags", ",".join(one.tags))]
    pairs += one.metadata.items()
    texts = [f"{name}={value}".encode() for name, value in pairs if value]
    texts = [text for text in texts if len(text) <= TXT_BYTES_MAX]
    ends = itertools.accumulate(len(text) + 1 for text in texts)
    return [text for text, end in zip(texts, ends, strict=True) if end <= TEXTS_BYTES_MAX] or [b""]
