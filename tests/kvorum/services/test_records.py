"""What stands in the store for one instance of a service."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvorum.services.records import (
    BadRecord,
    Instance,
    decode,
    encode,
    instance,
    key_of,
    prefix_of,
    split_key,
)

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def test_a_record_to_the_letter() -> None:
    """The format that docs/services.md promises."""
    one = instance(
        "web",
        "10.0.0.1:8080",
        metadata={"version": "1.4"},
        tags=["v1", "green"],
        weight=2,
        zone="eu/1a",
        now=NOON,
    )
    assert one.key == b"/services/web/10.0.0.1:8080"
    assert encode(one).decode() == (
        '{"Op":0,"Addr":"10.0.0.1:8080","Metadata":"{\\"version\\":\\"1.4\\"}","Name":"web","Id":"10.0.0.1:8080",'
        '"Tags":["v1","green"],"Weight":2,"Zone":"eu/1a","Since":"2026-11-26T12:00:00Z"}'
    )


def test_without_metadata_there_is_null_for_it() -> None:
    assert json.loads(encode(instance("web", "a:1")))["Metadata"] is None


def test_no_field_of_ours_is_one_of_the_go_clients_in_other_letters() -> None:
    """Go's encoding/json takes names for equal in either case: ``op`` would overwrite ``Op``."""
    names = [name.lower() for name in json.loads(encode(instance("web", "a:1")))]
    assert len(set(names)) == len(names)
    assert {"op", "addr", "metadata"} <= set(names)


@given(
    metadata=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True), TEXTS),
    tags=st.lists(st.from_regex(r"[^\s,/\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,9}", fullmatch=True)),
    weight=st.integers(0, 65535),
    zone=st.sampled_from(["", "eu", "eu/1a", "ü/ö"]),
)
def test_what_was_written_is_read(metadata: dict[str, str], tags: list[str], weight: int, zone: str) -> None:
    one = instance("web", "[::1]:80", metadata=metadata, tags=tags, weight=weight, zone=zone, id="x")
    assert decode(one.key, encode(one)) == one


@pytest.mark.parametrize(
    ("metadata", "read"),
    [
        ("null", {}),
        ('{"a":"b","n":1,"o":{"p":null}}', {"a": "b", "n": "1", "o": '{"p": null}'}),
        ('"canary"', {"metadata": "canary"}),
        (r'"{\"a\":\"b\"}"', {"a": "b"}),
        ('"[1]"', {"metadata": "[1]"}),
        ("7", {"metadata": "7"}),
    ],
)
def test_metadata_of_any_form_is_read(metadata: str, read: dict[str, str]) -> None:
    """The Go client writes whatever its user gives it."""
    value = b'{"Op":0,"Addr":"1.2.3.4:5","Metadata":%b}' % metadata.encode()
    assert decode(b"/services/web/1", value) == Instance("web", "1", "1.2.3.4:5", read)


def test_fields_that_are_unknown_or_of_another_type_do_no_harm() -> None:
    value = b'{"Addr":"a","Tags":"x","Weight":"9","Zone":7,"Since":null,"Name":"other","Id":"2","Later":[1]}'
    one = decode(b"/services/web/1", value)
    assert (one.name, one.id, one.tags, one.weight, one.zone, one.since) == ("web", "1", (), 1, "", "")
    assert decode(b"/services/web/1", b'{"Addr":"a","Weight":99999999}').weight == 65535
    assert decode(b"/services/web/1", b'{"Addr":"a","Weight":true}').weight == 1


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"1.2.3.4:5", b"[]", b"{}", b'{"Addr":7}', b'{"Addr":""}', b"\xff", b"[" * 99999),
        # An address that would be two lines, that no terminal should be told, or that is no text.
        *(b'{"Addr":"a:1\\nb:2"}', b'{"Addr":"\\u001b[2J:1"}', b'{"Addr":"a b:1"}', b'{"Addr":"\\ud800:1"}'),
    ],
)
def test_what_is_no_record_is_refused(value: bytes) -> None:
    with pytest.raises(BadRecord, match="is no record of a service"):
        decode(b"/services/web/1", value)


def test_a_huge_value_is_no_record() -> None:
    """Whoever reads all of them is not held up by one."""
    with pytest.raises(BadRecord, match="is no record of a service: expected at most 65536 bytes"):
        decode(b"/services/web/1", b'{"Addr":"a:1","Metadata":"%b"}' % (b"x" * 65536))


def test_what_is_no_text_is_in_no_record() -> None:
    """Or whoever writes it to a terminal, a file or a packet would fail for all instances."""
    with pytest.raises(BadRecord):
        decode(b"/services/web/1", b'{"Addr":"a:1","Zone":"\\ud800"}')
    one = decode(b"/services/web/1", rb'{"Addr":"a:1","Metadata":"{\"a\":\"\\ud800\"}"}')
    assert one.metadata == {"metadata": r'{"a":"\ud800"}'}


def test_metadata_may_be_as_deep_as_it_likes() -> None:
    """Where that is too deep to be told, nothing is told of it."""
    for depth in range(100, 1200, 100):
        deep = b"[" * depth + b"]" * depth
        try:
            one = decode(b"/services/web/1", b'{"Addr":"a:1","Metadata":{"deep":%b,"a":"b"}}' % deep)
        except BadRecord:
            continue
        assert one.metadata["a"] == "b"


@given(value=st.one_of(st.binary(max_size=50), JSON.map(lambda found: json.dumps(found).encode())))
def test_any_value_is_read_or_refused(value: bytes) -> None:
    with pytest.raises(BadRecord):
        decode(b"/services/web/1", b"?" + value)
    try:
        one = decode(b"/services/web/1", value)
    except BadRecord:
        return
    assert one.addr


@pytest.mark.parametrize(
    ("addr", "host", "port"),
    [
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("db.example:5432", "db.example", 5432),
        ("[fd00::1]:80", "fd00::1", 80),
        ("10.0.0.1", "10.0.0.1", 0),
        ("fd00::1", "fd00::1", 0),
        ("[fd00::1]", "fd00::1", 0),
        ("a:99999", "a", 0),
        ("a:x", "a", 0),
    ],
)
def test_host_and_port(addr: str, host: str, port: int) -> None:
    one = Instance("web", "1", addr)
    assert (one.host, one.port) == (host, port)


WRONG = [
    ({"name": "a/b"}, "the service name 'a/b' is wrong: expected 1 to 63 letters"),
    ({"name": ""}, "the service name '' is wrong"),
    ({"name": "-a"}, "the service name '-a' is wrong"),
    ({"name": "a" * 64}, "is wrong: expected 1 to 63"),
    ({"addr": "10.0.0.1"}, "the address '10.0.0.1' is wrong: expected HOST:PORT"),
    ({"addr": ":80"}, "the address ':80' is wrong"),
    ({"addr": "a:0"}, "the address 'a:0' is wrong"),
    ({"addr": "http://a:80"}, "the address 'http://a:80' is wrong"),
    ({"addr": "a b:80"}, "the address 'a b:80' is wrong"),
    ({"tags": ["a,b"]}, "the tag 'a,b' is wrong"),
    ({"addr": "a\0:80"}, "the address 'a\\x00:80' is wrong"),
    ({"tags": [""]}, "the tag '' is wrong"),
    ({"tags": ["\x1b[2J"]}, "the tag '\\x1b[2J' is wrong"),
    ({"id": "\x9b2J"}, "the id '\\x9b2J' is wrong"),
    ({"metadata": {"1": "a"}}, "the metadata name '1' is wrong"),
    ({"metadata": {"a": 1}}, "the metadata a is 1: expected a string"),
    ({"metadata": {"a": "\ud800"}}, "is no text"),
    ({"metadata": {"a": "x" * 65536}}, "bytes: expected no more than 65536"),
    ({"weight": -1}, "the weight -1 is wrong: expected a whole number from 0 to 65535"),
    ({"weight": 65536}, "the weight 65536 is wrong"),
    ({"weight": True}, "the weight True is wrong"),
    ({"id": "a/b"}, "the id 'a/b' is wrong"),
    ({"zone": "/eu"}, "the zone '/eu' is wrong"),
    ({"zone": "eu//a"}, "the zone 'eu//a' is wrong"),
]


@pytest.mark.parametrize(("given_", "said"), WRONG)
def test_what_cannot_be_registered_is_named(given_: dict[str, object], said: str) -> None:
    arguments: dict[str, object] = {"name": "web", "addr": "a:80", **given_}
    with pytest.raises(ValueError, match=re.escape(said)):
        instance(**arguments)  # type: ignore[arg-type]


def test_keys() -> None:
    """A prefix ends with a slash: web is not web-admin."""
    assert prefix_of() == b"/services/"
    assert prefix_of("web") == b"/services/web/"
    assert key_of("web", "1") == b"/services/web/1"
    assert split_key(b"/services/web/1") == ("web", "1")
    assert split_key(b"/services/web/a/b") == ("web", "a/b")


@pytest.mark.parametrize(
    "key",
    [
        *(
            b"",
            b"/services",
            b"/services/",
            b"/services/web",
            b"/services//1",
            b"/services/web/",
            b"/x/web/1",
        ),
        *(b"/services/web/\xff", b"/services/\xff/1"),  # two that are no text would be told as the same
    ],
)
def test_other_keys_are_refused(key: bytes) -> None:
    with pytest.raises(BadRecord, match="is none of a service"):
        split_key(key)
