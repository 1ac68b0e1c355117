"""What Prometheus is told of registered services."""

from __future__ import annotations

import base64
import http.client
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.discovery import target_groups
from kvstate.types import KeyValue
from tests.common.servers import Server

RECORD = (
    b'{"Op":0,"Addr":"10.0.0.1:80","Metadata":"{\\"version\\":\\"1.4\\",\\"git-sha\\":\\"ab\\"}","Name":"web","Id":"a",'
    b'"Tags":["v1","green"],"Weight":3,"Zone":"eu/1a","Since":"2026-11-26T12:00:00Z"}'
)


def kv(key: str, value: bytes = RECORD) -> KeyValue:
    return kv_of(key.encode(), value)


def kv_of(key: bytes, value: bytes) -> KeyValue:
    return KeyValue(key=key, value=value, create_revision=1, mod_revision=1, version=1, lease=0)


def targets(kvs: list[KeyValue], *, names: tuple[str, ...] = (), tags: tuple[str, ...] = ()) -> list[str]:
    return [one for group in target_groups(kvs, names, tags) for one in group["targets"]]


def test_an_instance_with_all_that_is_known_of_it() -> None:
    """The labels that docs/services.md promises."""
    assert target_groups([kv("/services/web/a")], (), ()) == [
        {
            "targets": ["10.0.0.1:80"],
            "labels": {
                "__meta_kvorum_service": "web",
                "__meta_kvorum_service_id": "a",
                "__meta_kvorum_address": "10.0.0.1:80",
                "__meta_kvorum_tags": ",v1,green,",
                "__meta_kvorum_weight": "3",
                "__meta_kvorum_zone": "eu/1a",
                "__meta_kvorum_metadata_version": "1.4",
                "__meta_kvorum_metadata_git_sha": "ab",
            },
        }
    ]


def test_an_instance_that_the_go_client_has_registered() -> None:
    """Metadata is what its user has given it: an object, or anything."""
    value = b'{"Op":0,"Addr":"h:1","Metadata":{"a":1,"b":null,"c":["x"]}}'
    [group] = target_groups([kv("/services/web/x/y", value)], (), ())
    labels = group["labels"]
    assert labels["__meta_kvorum_service_id"] == "x/y"
    assert [labels[f"__meta_kvorum_metadata_{name}"] for name in "abc"] == ["1", "", '["x"]']
    assert (labels["__meta_kvorum_tags"], labels["__meta_kvorum_zone"]) == ("", "")
    [group] = target_groups([kv("/services/web/1", b'{"Addr":"h:1","Metadata":"canary"}')], (), ())
    assert group["labels"]["__meta_kvorum_metadata_metadata"] == "canary"


def test_one_bad_writer_does_not_take_all_targets() -> None:
    """What cannot be told of an instance is left out, and all of it where its key or address can be none."""
    deep = b'{"Addr":"h:1","Metadata":{"deep":%b,"a":"b"}}' % (b"[" * 300 + b"]" * 300)
    [group] = target_groups([kv("/services/web/1", deep)], (), ())
    assert group["labels"]["__meta_kvorum_metadata_deep"] == ""
    assert group["labels"]["__meta_kvorum_metadata_a"] == "b"
    for addr in ("a\\n:1", "a b:1", "a\\u0000:1", "\\u2028:1"):
        bad = b'{"Addr":"%b"}' % addr.encode()
        assert targets([kv("/services/web/1", bad), kv("/services/web/2")]) == ["10.0.0.1:80"]
    huge = b'{"Addr":"h:1","Metadata":"%b"}' % (b"x" * 65536)
    assert targets([kv("/services/web/1", huge), kv("/services/web/2")]) == ["10.0.0.1:80"]
    assert targets([kv_of(b"/services/web/\xff", RECORD), kv_of(b"/services/\xff/1", RECORD)]) == []


@pytest.mark.parametrize(
    ("weight", "told"), [("0", "0"), ("65535", "65535"), ("65536", "65535"), ("-1", "0"), ("1e9", "1")]
)
def test_a_weight_is_what_it_is_to_clients(weight: str, told: str) -> None:
    [group] = target_groups([kv("/services/web/1", b'{"Addr":"h:1","Weight":%b}' % weight.encode())], (), ())
    assert group["labels"]["__meta_kvorum_weight"] == told


def test_filters() -> None:
    """Any of the names, all of the tags."""
    other = RECORD.replace(b"10.0.0.1", b"10.0.0.2").replace(b'"green"', b'"blue"')
    third = RECORD.replace(b"10.0.0.1", b"10.0.0.3")
    kvs = [kv("/services/web/a"), kv("/services/web/b", other), kv("/services/db/a", third)]
    assert targets(kvs) == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
    assert targets(kvs, names=("web",)) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert targets(kvs, names=("db", "x")) == ["10.0.0.3:80"]
    assert targets(kvs, tags=("green",)) == ["10.0.0.1:80", "10.0.0.3:80"]
    assert targets(kvs, names=("web",), tags=("v1", "blue")) == ["10.0.0.2:80"]
    assert targets(kvs, tags=("blue", "green")) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.fixed_dictionaries(
    {"Addr": st.just("h:1") | JSON}, optional=dict.fromkeys(("Metadata", "Tags", "Weight", "Zone"), JSON)
)


@given(
    key=st.binary(max_size=12),
    value=st.one_of(
        st.binary(max_size=40), st.one_of(JSON, RECORDS).map(lambda found: json.dumps(found).encode())
    ),
)
def test_whatever_stands_there_the_others_are_told(key: bytes, value: bytes) -> None:
    """And all that is told are strings, as Prometheus refuses the whole list otherwise."""
    strange = kv_of(b"/services/" + key, value)
    groups = target_groups([kv("/services/web/a"), strange, kv("/services/web/b")], (), ())
    assert [
        groups[0]["labels"]["__meta_kvorum_service_id"],
        groups[-1]["labels"]["__meta_kvorum_service_id"],
    ] == ["a", "b"]
    for group in groups:
        assert all(isinstance(one, str) and one for one in group["targets"])
        assert all(isinstance(text, str) for pair in group["labels"].items() for text in pair)


# ---- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture
def name(kvorum_server: Server) -> Iterator[str]:
    """A service with one instance."""
    name = f"p-{uuid.uuid4()}"
    ask(
        kvorum_server,
        "POST",
        "/v3/kv/put",
        {"key": b64(f"/services/{name}/a"), "value": b64(RECORD.decode())},
    )
    yield name
    ask(kvorum_server, "POST", "/v3/kv/deleterange", {"key": b64(f"/services/{name}/a")})


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def ask(server: Server, method: str, path: str, body: object = None) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        response = connection.getresponse()
        data, kind = response.read(), response.headers["Content-Type"]
        return response.status, kind, json.loads(data) if kind == "application/json" and data else data
    finally:
        connection.close()


def test_it_is_a_page_of_the_server(kvorum_server: Server, name: str) -> None:
    """Of the type that Prometheus demands."""
    status, kind, groups = ask(kvorum_server, "GET", f"/v1/services/prometheus?name={name}&tag=v1&tag=green")
    assert (status, kind, len(groups)) == (200, "application/json", 1)
    assert groups[0]["labels"]["__meta_kvorum_service"] == name
    assert ask(kvorum_server, "GET", f"/v1/services/prometheus?name={name}&tag=v2")[2] == []
    everything = ask(kvorum_server, "GET", "/v1/services/prometheus")[2]
    assert groups[0] in everything


def test_a_mistyped_filter_is_an_error_rather_than_no_filter(kvorum_server: Server) -> None:
    status, _, answer = ask(kvorum_server, "GET", "/v1/services/prometheus?service=web")
    assert status == 400
    assert answer["error"] == "unknown parameter 'service': expected name or tag"


def test_it_can_only_be_read(kvorum_server: Server) -> None:
    assert ask(kvorum_server, "POST", "/v1/services/prometheus", {})[0] == 405


def test_very_many_are_told_in_turns(kvorum_server: Server, name: str) -> None:
    """All of them, in order of their keys."""
    keys = [f"/services/{name}/b{n:04}" for n in range(450)]
    for begin in range(0, 450, 100):
        puts = [
            {"request_put": {"key": b64(key), "value": b64(RECORD.decode())}}
            for key in keys[begin : begin + 100]
        ]
        assert ask(kvorum_server, "POST", "/v3/kv/txn", {"success": puts})[0] == 200
    groups = ask(kvorum_server, "GET", f"/v1/services/prometheus?name={name}")[2]
    assert [group["labels"]["__meta_kvorum_service_id"] for group in groups] == [
        "a",
        *(key[-5:] for key in keys),
    ]
    end = f"/services/{name}/c"
    ask(
        kvorum_server,
        "POST",
        "/v3/kv/deleterange",
        {"key": b64(f"/services/{name}/b"), "range_end": b64(end)},
    )
