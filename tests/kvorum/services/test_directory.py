"""What is known of all services, in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvorum.services.directory import Change, Directory
from kvorum.services.records import BadRecord, Instance, decode, encode, instance
from kvorum.types import Event, KeyValue

KEYS = [b"/services/a/1", b"/services/a/2", b"/services/b/1", b"/services/b", b"/services/b/x/y"]
VALUES = [encode(instance("a", "h:1")), b'{"Addr":"h:2"}', b"no record"]


def put(key: bytes, value: bytes) -> Event:
    return Event("PUT", KeyValue(key, value, 1, 1, 1, 7))


def delete(key: bytes) -> Event:
    return Event("DELETE", KeyValue(key, b"", 0, 2, 0, 0))


@given(
    changes=st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.sampled_from(VALUES))),
)
def test_it_is_what_a_dictionary_of_keys_says(changes: list[tuple[bytes, bytes | None]]) -> None:
    """After any changes, whatever was asked between: the records that can be read. And what it says of each
    change is what makes of the instances before it those behind it."""
    directory, keys, told = Directory(), dict[bytes, bytes](), dict[bytes, Instance]()
    for key, value in changes:
        version = directory.version
        directory.instances("a")
        change = directory.apply(delete(key) if value is None else put(key, value))
        if value is None:
            keys.pop(key, None)
        else:
            keys[key] = value
        assert (directory.version > version) == (change is not None)
        if change is not None:
            assert (key in told) == (change.kind != "added")
            assert change.before == (told.get(key) if change.kind == "changed" else None)
            if change.kind == "removed":
                assert told.pop(key) == change.instance
            else:
                assert told.get(key) != change.instance
                told[key] = change.instance
        expected = readable(keys)
        assert directory.instances() == [one for name in sorted(expected) for one in expected[name]]
        assert sorted(told.values(), key=lambda one: (one.name, one.id)) == directory.instances()
        assert directory.names() == sorted(expected)
        for name in ("a", "b", "gone"):
            assert directory.instances(name) == expected.get(name, [])


def readable(keys: dict[bytes, bytes]) -> dict[str, list[Instance]]:
    found: dict[str, list[Instance]] = {}
    for key, value in sorted(keys.items()):
        try:
            one = decode(key, value, 7)
        except BadRecord:
            continue
        found.setdefault(one.name, []).append(one)
    return found


def test_those_who_see_only_some_are_told_of_those() -> None:
    """Who begins to be one of them is added, who ceases to be is removed."""
    big, small, larger = (Instance("a", "1", "h:1", weight=weight) for weight in (9, 1, 8))

    def is_big(one: Instance) -> bool:
        return one.weight > 5

    assert Change("added", big).among(is_big) == Change("added", big)
    assert Change("added", small).among(is_big) is None
    assert Change("removed", big).among(is_big) == Change("removed", big)
    assert Change("removed", small).among(is_big) is None
    assert Change("changed", larger, big).among(is_big) == Change("changed", larger, big)
    assert Change("changed", big, small).among(is_big) == Change("added", big)
    assert Change("changed", small, big).among(is_big) == Change("removed", big)
    assert Change("changed", small, small).among(is_big) is None


def test_a_record_that_can_no_longer_be_read_is_gone() -> None:
    directory, one = Directory(), instance("a", "h:1", id="1")
    assert directory.apply(put(one.key, VALUES[1])) == Change("added", Instance("a", "1", "h:2", lease=7))
    assert directory.apply(put(one.key, VALUES[2])) == Change("removed", Instance("a", "1", "h:2", lease=7))
    assert directory.apply(put(one.key, VALUES[2])) is None
    assert directory.names() == []
