"""The text form of everything in the core."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import get_args

import pytest

from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.describe import (
    describe,
    describe_data,
    describe_entry,
    describe_log,
    describe_membership,
    describe_ready,
    describe_role,
    describe_status,
)
from raft.core.membership import encode
from raft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    Propose,
    ProposeRefused,
    ReadIndexResponse,
    RequestPreVote,
    RequestPreVoteResponse,
    RequestReadIndex,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raft.core.ready import Ready
from raft.core.storage import MemoryStorage
from raft.core.types import Entry, EntryType, HardState, Membership, Position, ReadState, SnapshotMeta

JOINT = Membership(frozenset({1, 2, 4}), frozenset({5}), frozenset({1, 2, 3}))
ENTRY = Entry(4, 2, EntryType.NORMAL, b"x=1")
CHANGE = Entry(5, 2, EntryType.MEMBERSHIP, encode(replace(JOINT, context=b"who asked")))
SNAPSHOT = SnapshotMeta(Position(7, 2), Membership(frozenset({1, 2, 3})))
LIFE = 987654321

MESSAGES = [
    (RequestPreVote(1, 2, 3, 3, 1), "n1 → n2 RequestPreVote for term 3, last=3@1"),
    (RequestPreVoteResponse(2, 1, 3, True), "n2 → n1 RequestPreVoteResponse granted for term 3"),
    (RequestPreVoteResponse(2, 1, 2, False), "n2@2 → n1 RequestPreVoteResponse refused"),
    (RequestVote(1, 2, 3, 3, 1), "n1@3 → n2 RequestVote last=3@1"),
    (RequestVote(1, 2, 3, 3, 1, True), "n1@3 → n2 RequestVote last=3@1 transfer"),
    (RequestVoteResponse(2, 1, 3, True), "n2@3 → n1 RequestVoteResponse granted"),
    (RequestVoteResponse(2, 1, 3, False), "n2@3 → n1 RequestVoteResponse refused"),
    (
        AppendEntries(1, 2, 2, 3, 1, (ENTRY, CHANGE), 3),
        "n1@2 → n2 AppendEntries base=3@1 [4@2 5@2(1,2,4 & 1,2,3 learners=5)] commit=3",
    ),
    (AppendEntriesResponse(2, 1, 2, True, 4), "n2@2 → n1 AppendEntriesResponse match=4"),
    (
        AppendEntriesResponse(2, 1, 2, False, 4, 2, 1),
        "n2@2 → n1 AppendEntriesResponse refused base=4 hint=2@1",
    ),
    (Heartbeat(1, 2, 2, 3, 0), "n1@2 → n2 Heartbeat commit=3"),
    (Heartbeat(1, 2, 2, 3, 9), "n1@2 → n2 Heartbeat commit=3 round=9"),
    (HeartbeatResponse(2, 1, 2, 0), "n2@2 → n1 HeartbeatResponse"),
    (HeartbeatResponse(2, 1, 2, 9), "n2@2 → n1 HeartbeatResponse round=9"),
    (InstallSnapshot(1, 3, 2, SNAPSHOT), "n1@2 → n3 InstallSnapshot 7@2 voters=1,2,3"),
    (TimeoutNow(1, 2, 2), "n1@2 → n2 TimeoutNow"),
    (Propose(2, 1, 2, LIFE, 5, (b"x", b"y")), "n2@2 → n1 Propose ctx=5 [x y]"),
    (ProposeRefused(1, 2, 2, LIFE, 5), "n1@2 → n2 ProposeRefused ctx=5"),
    (RequestReadIndex(2, 1, 2, LIFE, 7), "n2@2 → n1 RequestReadIndex ctx=7"),
    (ReadIndexResponse(1, 2, 2, LIFE, 7, 4), "n1@2 → n2 ReadIndexResponse ctx=7 index=4"),
    (ReadIndexResponse(1, 2, 2, LIFE, 7, None), "n1@2 → n2 ReadIndexResponse ctx=7 refused"),
]


@pytest.mark.parametrize(("message", "text"), MESSAGES, ids=[text for _, text in MESSAGES])
def test_messages(message: Message, text: str) -> None:
    """A message is one line, with the sender's term beside its name unless it is only asked for."""
    assert describe(message) == text
    assert str(LIFE) not in text


def test_no_message_is_left_out() -> None:
    """Every class of message is among these examples."""
    assert {type(message) for message, _ in MESSAGES} == set(get_args(Message))


def test_memberships() -> None:
    """The new half stands first; without voters there is nobody."""
    assert describe_membership(JOINT) == "1,2,4 & 1,2,3 learners=5"
    assert describe_membership(JOINT.left()) == "1,2,4 learners=5"
    assert describe_membership(Membership()) == "nobody"


def test_entries() -> None:
    """An entry is its position and its data, if it has any; long data is cut."""
    assert describe_entry(ENTRY) == "4@2 x=1"
    assert describe_entry(ENTRY._replace(data=b"")) == "4@2"
    assert describe_entry(CHANGE) == "5@2(1,2,4 & 1,2,3 learners=5)"
    assert describe_data(b"a" * 100) == "aaaaaaaaaaaa…(100 bytes)"
    assert describe_data(b"\xff") == "\\xff"


def test_a_server() -> None:
    """Role, log and status are a line each; what is not durable stands behind a bar."""
    storage = MemoryStorage(JOINT, HardState(2, 0, 4), Position(3, 1), [ENTRY])
    core = Consensus(Config(id=1, rng=random.Random(1)), storage, last_applied=3)
    core.step(AppendEntries(2, 1, 2, 4, 2, (CHANGE,), 4))
    assert describe_role(core) == "n1@2 follower of n2"
    assert describe_log(core) == "(3@1) 4@2 | 5@2(1,2,4 & 1,2,3 learners=5)"
    assert describe_status(core) == (
        "n1@2 follower of n2, log 4..5, commit 4, applied 3, members 1,2,4 & 1,2,3 learners=5"
    )


def test_readys() -> None:
    """A Ready tells what is to be done, and how many messages leave before and after."""
    ready = Ready(
        HardState(2, 1, 3), (ENTRY,), (TimeoutNow(1, 2, 2),), (), (ENTRY,), (ReadState(7, 4),), True, SNAPSHOT
    )
    assert describe_ready(ready) == (
        "Ready (sync): install 7@2 voters=1,2,3, term=2 vote=n1 commit=3, write [4@2], send 1,"
        " apply [4@2], read 7: index 4"
    )
    assert describe_ready(Ready(None, (), (), (), (), (), False)) == "Ready: nothing"
