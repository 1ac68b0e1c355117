"""Messages on the wire: what comes out is what went in, and nothing else is taken for a message."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raft.codec import Malformed, decode, encode
from raft.core.messages import (
    AppendEntries,
    Heartbeat,
    InstallSnapshot,
    Message,
    Propose,
    ReadIndexResponse,
    RequestVote,
)
from raft.core.types import Entry, EntryType, Membership, Position, SnapshotMeta

numbers = st.integers(0, 2**64 - 1)
contents = st.tuples(st.sampled_from(EntryType), st.integers(0, 2**40), st.binary(max_size=30))


@st.composite
def append_entries(draw: st.DrawFn) -> AppendEntries:
    previous = draw(st.integers(0, 2**40))
    made = draw(st.lists(contents, max_size=4))
    entries = tuple(Entry(previous + n, term, kind, data) for n, (kind, term, data) in enumerate(made, 1))
    heads = [draw(numbers) for _ in range(5)]
    return AppendEntries(*heads[:3], previous, heads[3], entries, heads[4])


ids = st.frozensets(st.integers(1, 2**64 - 1), max_size=4)
snapshots = st.builds(
    SnapshotMeta,
    st.builds(Position, numbers, numbers),
    st.builds(Membership, ids, ids, ids, st.binary(max_size=20)),
)
kinds = {
    AppendEntries: append_entries(),
    InstallSnapshot: st.builds(InstallSnapshot, numbers, numbers, numbers, snapshots),
    Propose: st.builds(Propose, *[numbers] * 5, st.lists(st.binary(max_size=20)).map(tuple)),
    ReadIndexResponse: st.builds(ReadIndexResponse, *[numbers] * 5, st.none() | numbers),
}


def plain(kind: type[Message]) -> st.SearchStrategy[Message]:
    """A kind whose fields are numbers and booleans."""
    hints = get_type_hints(kind).values()
    return st.builds(kind, *[st.booleans() if hint is bool else numbers for hint in hints])


messages = st.one_of(*(kinds[kind] if kind in kinds else plain(kind) for kind in get_args(Message)))


@given(st.lists(messages, max_size=6))
def test_a_frame_brings_the_messages_it_was_made_of(batch: list[Message]) -> None:
    """In their order, of equal types and values."""
    assert decode(encode(batch)) == batch


def test_followers_that_get_different_entries_in_one_batch_get_their_own() -> None:
    """Packed entries are shared only where they are the same."""
    one, two, three = (Entry(n, 1, EntryType.NORMAL, b"%d" % n) for n in (1, 2, 3))
    batch = [
        AppendEntries(1, 2, 1, 0, 0, (one, two, three), 0),
        AppendEntries(1, 3, 1, 1, 1, (two, three), 0),
        AppendEntries(1, 4, 1, 0, 0, (one, two), 0),
        AppendEntries(1, 5, 1, 0, 0, (one, two, three), 0),
    ]
    assert decode(encode(batch)) == batch


def test_golden_bytes() -> None:
    """The protocol is what other members speak, perhaps of another version: it does not change unnoticed."""
    entry = Entry(8, 3, EntryType.NORMAL, b"x")
    frame = encode([Heartbeat(1, 2, 3, 7, 0), AppendEntries(1, 2, 3, 7, 2, (entry,), 7)])
    assert frame.hex() == "0292960601020307009804010203" + "0702c406" + "930003c40178" + "07"


@given(st.binary(max_size=60))
@example(b"\xa0")  # an empty text, where an array was expected
def test_any_other_bytes_are_refused(data: bytes) -> None:
    """Whatever they are, the answer is Malformed, never another error."""
    for frame in (data, b"\1" + data):
        try:
            decode(frame)
        except Malformed:
            continue
        assert msgpack.unpackb(frame[1:]) == []


@given(messages, st.data())
def test_a_frame_cut_short_is_refused(message: Message, data: st.DataObject) -> None:
    """Every prefix of it."""
    frame = encode([message])
    with pytest.raises(Malformed):
        decode(frame[: data.draw(st.integers(0, len(frame) - 1))])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([99], "tag 99"),
        (["x"], "tag 'x'"),
        ([6, 1, 2, 3], "Heartbeat has 3 fields, 5 were expected"),
        ([6, 1, 2, 3, "four", 5], "'four' where a number"),
        ([6, 1, 2, 3, True, 5], "True where a number"),
        ([6, 1, 2, 3, -4, 5], "-4 where a number"),
        ([2, 1, 2, 3, 4, 5, 1], "1 where true or false"),
        ([10, 1, 2, 3, 4, 5, [b"x", "y"]], "'y' where bytes"),
        ([8, 1, 2, 3, [1, 1, b"\7"]], "format version 7"),
        ([4, 1, 2, 3, 7, 2, msgpack.packb([0, 3]), 7], "2 parts: expected three each"),
        ([4, 1, 2, 3, 7, 2, msgpack.packb([9, 3, b""]), 7], "an entry has type 9"),
        ([4, 1, 2, 3, 7, 2, msgpack.packb([0, 3, "text"]), 7], "entry 8 of an AppendEntries is no entry"),
    ],
)
def test_a_message_that_is_none_is_refused(row: list[object], said: str) -> None:
    """With a sentence that says what was wrong with it."""
    with pytest.raises(Malformed, match=said):
        decode(b"\2" + msgpack.packb([row]))


def test_another_protocol_version_is_named() -> None:
    """Both numbers are told."""
    frame = encode([RequestVote(1, 2, 3, 4, 5)])
    with pytest.raises(Malformed, match="protocol version 3, this program speaks 2"):
        decode(b"\3" + frame[1:])
