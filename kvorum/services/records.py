"""What stands in the store for one instance of a service: JSON at ``/services/<name>/<id>``.

    {"Op":0,"Addr":"10.0.0.1:8080","Metadata":"{\\"version\\":\\"1.4\\"}",
     "Name":"web","Id":"10.0.0.1:8080","Tags":["v1"],"Weight":1,"Zone":"eu/1a","Since":"2026-11-26T09:00:00Z"}

``Op``, ``Addr`` and ``Metadata`` are what etcd's Go client writes and reads (client/v3/naming); it ignores
the rest. It takes letters of either case for equal in names, so no other field may be called ``op``,
``addr`` or ``metadata``. ``Metadata`` is null, or a *string* that holds JSON: gRPC for Go compares it with
``==``, and panics where it is an object (etcd issue 19700).

We read more than we write: what the Go client has written, with an object or anything else for ``Metadata``,
without our fields or with unknown ones. The key tells name and id, whatever the value says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

PREFIX = b"/services/"
WEIGHT_MAX = 65535
"""As in a DNS SRV record."""
RECORD_BYTES_MAX = 64 * 1024
"""Larger ones are ignored: whoever reads all of them, as Prometheus' page and the DNS server do, must not be
held up by one."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_TAG = re.compile(rf"[^\s,/{_CONTROLS}]{{1,63}}")
_ID = re.compile(rf"[^\s/{_CONTROLS}]{{1,255}}")
_NOT_OF_AN_ADDRESS = re.compile(rf"[\s{_CONTROLS}]")
_META_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")


class BadRecord(ValueError):
    """What stands at a key below ``/services/`` is no record of an instance."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One who offers a service. One with twice the ``weight`` gets twice as much, one with 0 nothing while
    there are others. ``zone`` is a path from the large to the small: ``eu/1a``. ``lease`` 0 is none."""

    name: str
    id: str
    addr: str
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    tags: tuple[str, ...] = ()
    weight: int = 1
    zone: str = ""
    since: str = ""
    lease: int = 0

    @property
    def host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return split_addr(self.addr)[0]

    @property
    def port(self) -> int:
        """0 where somebody else has written an address without one."""
        return split_addr(self.addr)[1]

    @property
    def key(self) -> bytes:
        return key_of(self.name, self.id)


def instance(
    name: str,
    addr: str,
    *,
    metadata: Mapping[str, str] | None = None,
    tags: Iterable[str] = (),
    weight: int = 1,
    zone: str = "",
    id: str = "",  # noqa: A002  # what it is called everywhere
    now: datetime | None = None,
) -> Instance:
    """A new one, whose id is its address where none is given. Raises ValueError, which says what is wrong."""
    check_name(name)
    host, port = split_addr(addr)
    if not host or not port or "/" in host or _NOT_OF_AN_ADDRESS.search(host):
        raise ValueError(
            f"the address {addr!r} is wrong: expected HOST:PORT, such as 10.0.0.1:8080 or [::1]:8080"
        )
    tags = tuple(dict.fromkeys(each_tag(tags)))
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise ValueError(
                f"the tag {tag!r} is wrong: expected up to 63 characters without spaces, commas and /"
            )
    metadata = dict(metadata or {})
    for meta_name, value in metadata.items():
        if not _META_NAME.fullmatch(meta_name):
            raise ValueError(
                f"the metadata name {meta_name!r} is wrong: expected letters, digits, _, - and ., the first a"
                " letter or _"
            )
        if not isinstance(value, str):
            raise ValueError(f"the metadata {meta_name} is {value!r}: expected a string")
    if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= WEIGHT_MAX:
        raise ValueError(f"the weight {weight!r} is wrong: expected a whole number from 0 to {WEIGHT_MAX}")
    if id and not _ID.fullmatch(id):
        raise ValueError(f"the id {id!r} is wrong: expected up to 255 characters without spaces and /")
    if not all(zone.split("/")) and zone:
        raise ValueError(
            f"the zone {zone!r} is wrong: expected a label, or labels with / between, such as eu/1a"
        )
    for text in (addr, id, zone, *tags, *metadata.values()):
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            raise ValueError(f"{text!r} is no text: expected characters that UTF-8 can encode")
    since = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    one = Instance(name, id or addr, addr, metadata, tags, weight, zone, since)
    if (size := len(encode(one))) > RECORD_BYTES_MAX:
        raise ValueError(f"the record has {size} bytes: expected no more than {RECORD_BYTES_MAX}")
    return one


def each_tag(tags: Iterable[str]) -> tuple[str, ...]:
    """A text is one tag, and not one for each of its letters."""
    return (tags,) if isinstance(tags, str) else tuple(tags)


def check_name(name: str) -> str:
    """The name itself. Raises ValueError where it can be none of a service: it must be a label of DNS."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the service name {name!r} is wrong: expected 1 to 63 letters, digits, - and _, the first and"
            " the last a letter or digit"
        )
    return name


def prefix_of(name: str = "") -> bytes:
    """What the keys of all instances of a service begin with; or those of all services."""
    return PREFIX + name.encode() + b"/" if name else PREFIX


def key_of(name: str, id: str) -> bytes:  # noqa: A002
    return prefix_of(name) + id.encode()


def split_key(key: bytes) -> tuple[str, str]:
    """Name and id. Raises BadRecord."""
    name, slash, rest = key.removeprefix(PREFIX).partition(b"/")
    if not key.startswith(PREFIX) or not name or not slash or not rest:
        raise BadRecord(f"the key {key!r} is none of a service: expected {PREFIX.decode()}NAME/ID")
    try:
        return name.decode(), rest.decode()
    except UnicodeDecodeError:
        raise BadRecord(f"the key {key!r} is none of a service: expected UTF-8") from None


def encode(one: Instance) -> bytes:
    record = {
        "Op": 0,
        "Addr": one.addr,
        "Metadata": json.dumps(dict(one.metadata), ensure_ascii=False, separators=(",", ":"))
        if one.metadata
        else None,
        "Name": one.name,
        "Id": one.id,
        "Tags": list(one.tags),
        "Weight": one.weight,
        "Zone": one.zone,
        "Since": one.since,
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def decode(key: bytes, value: bytes, lease: int = 0) -> Instance:
    """Raises BadRecord where there is no address. What else is not as we write it counts as not there."""
    name, id_ = split_key(key)
    if len(value) > RECORD_BYTES_MAX:
        raise BadRecord(
            f"{key!r} is no record of a service: expected at most {RECORD_BYTES_MAX} bytes, got {len(value)}"
        )
    try:
        # json would take half of a surrogate pair for text, which nobody could write anywhere.
        record = orjson.loads(value)
    except ValueError:
        raise BadRecord(f"{key!r} is no record of a service: expected JSON, got {value[:40]!r}") from None
    addr = record.get("Addr") if isinstance(record, dict) else None
    if not isinstance(addr, str) or not addr or _NOT_OF_AN_ADDRESS.search(addr):
        raise BadRecord(
            f"{key!r} is no record of a service: expected an object with an Addr, got {value[:40]!r}"
        )
    tags, weight = record.get("Tags"), record.get("Weight")
    return Instance(
        name,
        id_,
        addr,
        _metadata(record.get("Metadata")),
        tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        min(max(weight, 0), WEIGHT_MAX) if isinstance(weight, int) and not isinstance(weight, bool) else 1,
        _text(record.get("Zone")),
        _text(record.get("Since")),
        lease,
    )


def _metadata(found: Any) -> dict[str, str]:
    """Of whatever form: what is no object is one of the only name ``metadata``."""
    if found is None:
        return {}
    if isinstance(found, str):
        try:
            inner = orjson.loads(found)
        except ValueError:
            inner = None
        found = inner if isinstance(inner, dict) else {"metadata": found}
    if not isinstance(found, dict):
        found = {"metadata": found}
    return {name: value if isinstance(value, str) else _written(value) for name, value in found.items()}


def _written(value: Any) -> str:
    """Empty where it is nested too deeply to be written."""
    try:
        return json.dumps(value)
    except RecursionError:
        return ""


def _text(found: Any) -> str:
    return found if isinstance(found, str) else ""


def split_addr(addr: str) -> tuple[str, int]:
    """Host and port; port 0 where there is none that could be one."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", addr)
    host, port = bracketed.groups() if bracketed else (addr, None)
    if not bracketed and addr.count(":") == 1:
        host, _, port = addr.partition(":")
    if port is None or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        return host, 0
    return host, int(port)
