"""What bounds a core: windows, questions, fall-backs, proposals, commits; and what it refuses to take in."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.errors import InvariantViolated, MembershipRefused, ProposalDropped
from raft.core.membership import Change, ChangeKind, decode, encode
from raft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    Message,
    Propose,
    ProposeRefused,
    RequestPreVote,
    RequestVoteResponse,
)
from raft.core.progress import ProgressState
from raft.core.quorum import Vote, committed_index, is_quorum, tally
from raft.core.storage import MemoryStorage
from raft.core.types import Entry, EntryType, HardState, Membership, Role

THREE = Membership(frozenset({1, 2, 3}))


def entry(index: int, term: int = 1, data: bytes = b"x") -> Entry:
    return Entry(index, term, EntryType.NORMAL, data)


class Server:
    """A core with a disk that takes no time."""

    def __init__(self, member: int = 1, log: list[Entry] | None = None, **limits: int) -> None:
        term = log[-1].term if log else 0
        self.storage = MemoryStorage(THREE, HardState(term, 0, 0), entries=log or [])
        self.core = Consensus(Config(id=member, rng=random.Random(member), **limits), self.storage)

    def settle(self) -> list[Message]:
        """All becomes durable and is applied; returns what left."""
        sent: list[Message] = []
        while (ready := self.core.ready()) is not None:
            self.storage.append(ready.entries)
            sent += [*ready.messages, *ready.messages_after_persist]
            self.core.advance(ready)
            if ready.committed_entries:
                self.core.applied(ready.committed_entries[-1].index)
        return sent

    def step(self, message: Message) -> list[Message]:
        self.core.step(message)
        return self.settle()


def appends(messages: list[Message], to: int) -> list[AppendEntries]:
    return [m for m in messages if isinstance(m, AppendEntries) and m.target == to]


def leader(log: list[Entry] | None = None, **limits: int) -> Server:
    """Member 1 leads; what it begins its term with is acknowledged by member 2, and sent to member 3."""
    server = Server(log=log, **limits)
    core = server.core
    core.campaign()
    server.settle()
    server.step(RequestVoteResponse(2, 1, core.current_term, True))
    assert core.role is Role.LEADER
    server.step(AppendEntriesResponse(2, 1, core.current_term, True, core.last_index))
    assert core.commit_index == core.last_index
    return server


# Windows.


def test_so_many_appends_are_under_way() -> None:
    """No more than inflight_max AppendEntries are sent ahead of their acknowledgements; each of these makes
    room for what it acknowledges."""
    server = leader(inflight_max=4, append_bytes_max=1)
    sent = []
    for n in range(10):
        server.core.propose([b"%d" % n])
        sent += appends(server.settle(), 2)
    assert [[e.index for e in m.entries] for m in sent] == [[2], [3], [4], [5]]
    assert server.core.progress[2].inflight == 4
    sent = appends(server.step(AppendEntriesResponse(2, 1, 1, True, 3)), 2)
    assert [[e.index for e in m.entries] for m in sent] == [[6], [7]]
    assert appends(server.step(AppendEntriesResponse(2, 1, 1, True, 3)), 2) == []  # doubled
    sent = appends(server.step(AppendEntriesResponse(2, 1, 1, True, 7)), 2)
    assert [[e.index for e in m.entries] for m in sent] == [[8], [9], [10], [11]]


def test_so_many_bytes_are_under_way() -> None:
    """When inflight_bytes_max is reached no more is sent; the message that reaches it may go beyond it."""
    server = leader(inflight_bytes_max=100, append_bytes_max=1)
    server.core.propose([bytes(60)] * 5)
    sent = appends(server.settle(), 2)
    assert [m.entries[0].index for m in sent] == [2, 3]
    assert server.core.progress[2].inflight_bytes == 120
    sent = appends(server.step(AppendEntriesResponse(2, 1, 1, True, 2)), 2)
    assert [m.entries[0].index for m in sent] == [4]
    server.step(AppendEntriesResponse(2, 1, 1, True, 4))
    sent = appends(server.step(AppendEntriesResponse(2, 1, 1, True, 6)), 2)
    assert sent == []
    assert server.core.progress[2].inflight_bytes == 0
    server.core.propose([bytes(1000)])
    assert len(appends(server.settle(), 2)) == 1  # however large, one entry goes


@pytest.mark.parametrize("arrived", [True, False])
def test_a_full_window_is_asked_about_once_a_heartbeat(arrived: bool) -> None:
    """A follower that lives and acknowledges nothing is asked, without entries, what it has: once a
    heartbeat, however often it answers that. What is under way stays so until the answer to that comes."""
    server = leader(inflight_max=4, append_bytes_max=1)
    core, progress = server.core, server.core.progress[2]
    core.propose([b"x"] * 10)
    server.settle()
    for _ in range(3):
        core.tick()
        server.settle()
        sent = []
        for _ in range(5):
            sent += appends(server.step(HeartbeatResponse(2, 1, 1, 0)), 2)
        [asked] = sent
        assert (asked.prev_log_index, asked.entries) == (5, ())
        assert progress.inflight == 4
        assert progress.state is ProgressState.REPLICATE
    if arrived:
        sent = appends(server.step(AppendEntriesResponse(2, 1, 1, True, 5)), 2)
        assert [m.entries[0].index for m in sent] == [6, 7, 8, 9]
    else:
        sent = appends(server.step(AppendEntriesResponse(2, 1, 1, False, 5, 1, 1)), 2)
        assert [m.entries[0].index for m in sent] == [2]
        assert progress.state is ProgressState.PROBE
        assert progress.inflight == 0


def test_a_follower_that_lacks_nothing_is_asked_nothing() -> None:
    """In a quiet cluster there are heartbeats and their answers, and nothing else."""
    server = leader()
    for _ in range(3):
        server.core.tick()
        sent = server.settle() + server.step(HeartbeatResponse(2, 1, 1, 0))
        assert appends(sent, 2) == []


def test_a_pipeline_is_given_up_once_a_heartbeat() -> None:
    """A refusal of something under way makes the leader begin anew where the follower is known to be; those
    that follow it are of the same storm and change nothing until the next heartbeat."""
    server = leader(append_bytes_max=1)
    core, progress = server.core, server.core.progress[2]
    core.propose([b"x"] * 10)
    server.settle()
    refusal = AppendEntriesResponse(2, 1, 1, False, 8, 1, 1)
    assert len(appends(server.step(refusal), 2)) == 1
    assert progress.state is ProgressState.PROBE
    assert len(appends(server.step(AppendEntriesResponse(2, 1, 1, True, 2)), 2)) == 9
    for index in (8, 5, 3):
        assert server.step(AppendEntriesResponse(2, 1, 1, False, index, 1, 1)) == []
    assert progress.state is ProgressState.REPLICATE
    core.tick()
    server.settle()
    assert len(appends(server.step(refusal), 2)) == 1
    assert progress.state is ProgressState.PROBE


class Reordered:
    """Member 1 leads, and member 3 gets its log over a network that delivers in any order. A heartbeat
    comes when nothing else is under way."""

    def __init__(self, seed: int, append_bytes_max: int, count: int) -> None:
        self.rng = random.Random(seed)
        self.servers = {1: leader(append_bytes_max=append_bytes_max), 3: Server(member=3)}
        self.leader, self.follower = self.servers[1].core, self.servers[3].core
        self.network: list[Message] = []
        self.sent = self.heartbeats = 0
        for _ in range(2):  # the follower answers the first: its log is known from there on
            self.tick()
            while self.network:
                self.deliver()
        assert self.leader.progress[3].state is ProgressState.REPLICATE
        for _ in range(count):
            self.leader.propose([b"x"])
            self.post(self.servers[1].settle())

    def post(self, messages: list[Message]) -> None:
        self.sent += len(appends(messages, 3))
        self.network += [m for m in messages if m.target in self.servers]

    def deliver(self) -> None:
        message = self.network.pop(self.rng.randrange(len(self.network)))
        self.post(self.servers[message.target].step(message))

    def tick(self) -> None:
        self.heartbeats += 1
        self.leader.tick()
        # Member 2 is there as well, so that the leader stays one.
        answer = HeartbeatResponse(2, 1, self.leader.current_term, 0)
        self.post(self.servers[1].settle() + self.servers[1].step(answer))

    def run(self) -> None:
        while self.follower.last_index < self.leader.last_index:
            if self.network:
                self.deliver()
            else:
                self.tick()
            assert self.sent < 50_000, "a storm"
        last = self.leader.last_index
        assert self.follower.log.entries(1, last + 1) == self.leader.log.entries(1, last + 1)


@pytest.mark.parametrize("seed", range(10))
def test_reordering_makes_no_storm(seed: int) -> None:
    """A follower 300 entries behind gets them over a network that delivers in any order with a few
    messages for each at most: a refusal does not bring a window that brings more refusals (seed 10433 of
    the simulator)."""
    game = Reordered(seed, append_bytes_max=10, count=300)
    game.run()
    assert game.sent < 3 * 300


@pytest.mark.parametrize("seed", range(2))
def test_a_heartbeat_brings_one_window_at_most(seed: int) -> None:
    """At worst, with one entry a message and no order at all, a leader sends each entry once and after
    that no more than a window for each heartbeat."""
    game = Reordered(seed, append_bytes_max=1, count=300)
    game.run()
    window = game.leader.config.inflight_max
    assert game.sent <= 300 + (game.heartbeats + 1) * (window + 2)


# Proposals.


def test_what_is_not_committed_is_limited() -> None:
    """Beyond uncommitted_bytes_max a proposal is dropped as a whole, until something was committed; where
    nothing waits any one is taken, however large."""
    server = leader(uncommitted_bytes_max=100)
    core = server.core
    core.propose([bytes(500)])
    assert core.uncommitted_bytes == 500
    with pytest.raises(
        ProposalDropped, match="500 bytes are proposed and not committed yet: expected at most 100"
    ):
        core.propose([b"x"])
    server.settle()
    server.step(AppendEntriesResponse(2, 1, 1, True, 2))
    assert core.uncommitted_bytes == 0
    core.propose([bytes(30), bytes(30)])
    core.propose([bytes(40)])
    with pytest.raises(ProposalDropped):
        core.propose([b"", b"x"])
    assert core.last_index == 5
    core.propose([b""])  # adds no bytes
    server.settle()
    server.step(AppendEntriesResponse(2, 1, 1, True, 4))
    assert core.uncommitted_bytes == 40
    core.propose([bytes(60)])


def test_a_proposal_passed_on_meets_the_same_limit() -> None:
    """Whoever passed it on is told that nothing of it was taken."""
    server = leader(uncommitted_bytes_max=100)
    server.core.propose([bytes(90)])
    server.settle()
    last = server.core.last_index
    answer = server.step(Propose(2, 1, 1, 77, 1, (bytes(11),)))
    assert answer == [ProposeRefused(1, 2, 1, 77, 1)]
    assert server.core.last_index == last
    assert ProposeRefused(1, 2, 1, 77, 2) not in server.step(Propose(2, 1, 1, 77, 2, (bytes(10),)))
    assert server.core.last_index == last + 1


def test_who_leads_no_more_counts_nothing() -> None:
    """What a leader of before had not committed is no burden to the leader of now."""
    server = leader(uncommitted_bytes_max=100)
    server.core.propose([bytes(90)])
    server.settle()
    server.core.become_follower(1, 0)
    assert server.core.uncommitted_bytes == 0


# What is told wrong.


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ({"id": 0}, "Config.id is 0, which means nobody"),
        ({"heartbeat_ticks": 0}, "heartbeat_ticks is 0: expected 1 or more"),
        ({"election_ticks": 1}, "election_ticks is 1: expected more than heartbeat_ticks"),
        ({"election_ticks": 5, "heartbeat_ticks": 5}, r"expected more than heartbeat_ticks \(5\)"),
        ({"append_bytes_max": 0}, "append_bytes_max is 0: expected 1 or more"),
        ({"inflight_max": 0}, "inflight_max is 0: expected 1 or more"),
        ({"inflight_bytes_max": -1}, "inflight_bytes_max is -1: expected 1 or more"),
        ({"uncommitted_bytes_max": 0}, "uncommitted_bytes_max is 0: expected 1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(chosen: dict[str, int], problem: str) -> None:
    """The message names the setting, its value and what was expected."""
    with pytest.raises(ValueError, match=problem):
        Config(**{"id": 1, "rng": random.Random(0), **chosen})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prev", "new", "leader_commit", "committed"),
    [(2, [], 5, 2), (2, [3], 5, 3), (0, [1, 2], 9, 2), (5, [], 4, 4), (3, [4, 5], 1, 1), (0, [], 5, 0)],
)
def test_a_follower_commits_only_what_is_known_to_agree(
    prev: int, new: list[int], leader_commit: int, committed: int
) -> None:
    """Figure 2, AppendEntries, rule 5: up to the leader's commit index, but not beyond the last entry of the
    message; what the follower has behind that may be of another leader."""
    follower = Server(log=[entry(n) for n in range(1, 6)])
    message = AppendEntries(2, 1, 2, prev, 1 if prev else 0, tuple(entry(n) for n in new), leader_commit)
    [answer] = follower.step(message)
    assert follower.core.commit_index == committed
    assert answer == AppendEntriesResponse(1, 2, 2, True, prev + len(new))
    assert follower.core.last_index == 5


def test_a_conflict_behind_what_agrees_is_not_committed() -> None:
    """The same where it matters: the leader has committed something else at those places."""
    follower = Server(log=[entry(n) for n in range(1, 6)])
    follower.step(AppendEntries(2, 1, 2, 2, 1, (), 5))
    assert follower.core.commit_index == 2
    theirs = tuple(entry(n, 2, b"theirs") for n in range(3, 6))
    follower.step(AppendEntries(2, 1, 2, 2, 1, theirs, 5))
    assert follower.core.commit_index == 5
    assert follower.core.log.entries(3, 6) == theirs


# Memberships.


ids = st.frozensets(st.integers(1, 2**64 - 1), max_size=5)
memberships = st.builds(Membership, ids, ids, ids, st.binary(max_size=20))


@given(memberships)
def test_a_membership_survives_the_log(membership: Membership) -> None:
    """What is decoded is what was encoded; equal memberships have equal bytes."""
    data = encode(membership)
    assert decode(data) == membership
    assert encode(decode(data)) == data


def test_a_membership_that_cannot_be_read_stops_the_server() -> None:
    """Cut short anywhere, or of a later version, it is not guessed at: who cannot tell who votes must not
    go on."""
    data = encode(Membership(frozenset({1, 2, 3}), frozenset({4}), frozenset({1, 2})))
    for length in range(len(data)):
        with pytest.raises(InvariantViolated, match="membership entry"):
            decode(data[:length])
    with pytest.raises(
        InvariantViolated, match="format version 2 cannot be read; this program knows version 1"
    ):
        decode(b"\2" + data[1:])
    with pytest.raises(InvariantViolated, match=f"has {len(data) - 1} bytes, {len(data)} were expected"):
        decode(data[:-1])


voters = st.frozensets(st.integers(1, 5), min_size=1, max_size=4)
learners = st.frozensets(st.integers(5, 7), max_size=1)
joint = st.builds(Membership, voters, learners, voters | st.just(frozenset()))
thorough = settings(max_examples=500)


def halves(membership: Membership) -> list[frozenset[int]]:
    return [half for half in (membership.voters, membership.voters_outgoing) if half]


def agree(membership: Membership, members: set[int]) -> bool:
    """More than half of each half, by counting."""
    return all(2 * len(half & members) > len(half) for half in halves(membership))


@thorough
@given(joint, st.sets(st.integers(1, 7)))
def test_a_quorum_is_more_than_half_of_each_half(membership: Membership, members: set[int]) -> None:
    """In a joint membership both must agree (§6); learners and strangers do not count."""
    assert is_quorum(membership, members) is agree(membership, members)


@thorough
@given(joint, st.dictionaries(st.integers(1, 7), st.integers(0, 4)))
def test_committed_is_what_a_quorum_holds(membership: Membership, matches: Mapping[int, int]) -> None:
    """The highest index that a quorum of each half has: found by trying every index."""
    held = [i for i in range(5) if agree(membership, {m for m in range(1, 8) if matches.get(m, 0) >= i})]
    assert committed_index(membership, matches) == max(held)


@thorough
@given(joint, st.dictionaries(st.integers(1, 7), st.booleans()))
def test_an_election_stands_as_its_possible_ends_do(membership: Membership, votes: dict[int, bool]) -> None:
    """Won if it is won however those vote that have not yet, lost if it is lost however they do: found
    by letting them vote in every way."""
    silent = sorted(membership.all_voters - votes.keys())
    ends = set()
    for answers in itertools.product([True, False], repeat=len(silent)):
        granted = {**votes, **dict(zip(silent, answers, strict=True))}
        ends.add(agree(membership, {voter for voter, yes in granted.items() if yes}))
    expected = {True: Vote.WON, False: Vote.LOST}[ends.pop()] if len(ends) == 1 else Vote.PENDING
    assert tally(membership, votes) is expected


def test_without_voters_nothing_is_committed() -> None:
    """An empty membership is a mistake, not a quorum of nobody."""
    with pytest.raises(ValueError, match="without voters"):
        committed_index(Membership(), {1: 5})
    assert not is_quorum(Membership(), [1])


def test_a_change_carries_its_context_through_the_joint_membership() -> None:
    """What the proposer wants known of the members is in force with the membership, joint and final."""
    server = leader()
    server.step(AppendEntriesResponse(2, 1, 1, True, server.core.last_index))
    server.core.propose_membership([Change(ChangeKind.REMOVE, 3)], b"where they are")
    assert server.core.membership.is_joint
    assert server.core.membership.context == b"where they are"
    server.settle()
    server.step(AppendEntriesResponse(2, 1, 1, True, server.core.last_index))
    assert server.core.membership == Membership(frozenset({1, 2}), context=b"where they are")


def test_the_context_alone_can_be_changed() -> None:
    """Without a joint membership, and only where it differs; None leaves it as it is."""
    server = leader()
    server.step(AppendEntriesResponse(2, 1, 1, True, server.core.last_index))
    server.core.propose_membership([], b"moved")
    assert server.core.membership == Membership(THREE.voters, context=b"moved")
    server.settle()
    server.step(AppendEntriesResponse(2, 1, 1, True, server.core.last_index))
    with pytest.raises(MembershipRefused, match="would change nothing"):
        server.core.propose_membership([])
    with pytest.raises(MembershipRefused, match="would change nothing"):
        server.core.propose_membership([], b"moved")


# Hints that shorten the wait for a leader.


def follower_of(leader_id: int, log: list[Entry] | None = None) -> Server:
    server = Server(1, log)
    server.step(Heartbeat(leader_id, 1, max(1, server.core.current_term), 0, 0))
    return server


def test_only_the_leader_can_be_suspected() -> None:
    """And only by who follows it; then any other candidate may have this vote."""
    server = follower_of(2)
    assert not server.core.suspect(3)
    assert server.core.leader_id == 2
    assert server.step(RequestPreVote(3, 1, 2, 0, 0)) == []
    assert server.core.suspect(2)
    assert server.core.leader_id == 0
    assert [m.vote_granted for m in server.step(RequestPreVote(3, 1, 2, 0, 0))] == [True]
    assert not server.core.suspect(2)


def test_who_stands_without_a_leader_asks_first() -> None:
    """As after an election timeout; who knows of a leader does not stand."""
    server = follower_of(2)
    server.core.stand()
    assert server.settle() == []
    server.core.suspect(2)
    server.core.stand()
    assert [type(m) for m in server.settle()] == [RequestPreVote, RequestPreVote]


def test_who_refuses_a_pre_vote_for_its_log_stands_soon() -> None:
    """Whoever asks has lost its leader too and cannot win; this server can."""
    server = follower_of(2, [entry(1)])
    server.core.suspect(2)
    assert [m.vote_granted for m in server.step(RequestPreVote(3, 1, 9, 0, 0))] == [False]
    assert server.core.timeout_ticks <= server.core.elapsed_ticks + 1 + server.core.config.election_ticks // 3


def test_a_vote_that_may_be_split_is_tried_again_soon() -> None:
    """One of three is gone, and the other has voted for itself."""
    server = Server(1)
    server.core.campaign()
    server.settle()
    server.step(RequestVoteResponse(2, 1, 1, False))
    assert server.core.role is Role.CANDIDATE
    assert server.core.timeout_ticks <= server.core.elapsed_ticks + 1 + server.core.config.election_ticks // 3
