"""What is known of all services, in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvorum.services.directory import Directory
from kvorum.services.records import BadRecord, Instance, decode, encode, instance
from kvorum.types import Event, KeyValue

KEYS = [b"/services/a/1", b"/services/a/2", b"/services/b/1", b"/services/b", b"/services/b/x/y"]
VALUES = [encode(instance("a", "h:1")), b'{"Addr":"h:2"}', b"no record"]


def put(key: bytes, value: bytes) -> Event:
    return Event("PUT", KeyValue(key, value, 1, 1, 1, 7))


def delete(key: bytes) -> Event:
    return Event("DELETE", KeyValue(key, b"", 0, 2, 0, 0))


@given(
    loaded=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)),
    changes=st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.sampled_from(VALUES))),
)
def test_it_is_what_a_dictionary_of_keys_says(
    loaded: dict[bytes, bytes], changes: list[tuple[bytes, bytes | None]]
) -> None:
    """After any changes, whatever was asked between: the records that can be read."""
    directory, keys = Directory(), dict(loaded)
    directory.load([KeyValue(b"/services/gone/1", VALUES[0], 1, 1, 1, 0)])
    directory.load([put(key, value).kv for key, value in loaded.items()])
    for key, value in changes:
        version = directory.version
        directory.instances("a")
        if value is None:
            directory.apply(delete(key))
            keys.pop(key, None)
        else:
            directory.apply(put(key, value))
            keys[key] = value
        assert directory.version > version
    expected: dict[str, list[Instance]] = {}
    for key, value in sorted(keys.items()):
        try:
            one = decode(key, value, 7)
        except BadRecord:
            continue
        expected.setdefault(one.name, []).append(one)
    assert directory.names() == sorted(expected)
    for name in ("a", "b", "gone"):
        assert directory.instances(name) == expected.get(name, [])
    assert directory.instances() == [one for name in sorted(expected) for one in expected[name]]
