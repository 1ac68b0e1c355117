"""Sentences of the Raft paper and thesis, each with the test that shows it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.core.config import Config
from raft.core.consensus import Consensus
from raft.core.errors import InvariantViolated, NotLeader
from raft.core.messages import AppendEntries, AppendEntriesResponse, RequestVote, RequestVoteResponse
from raft.core.quorum import Vote, committed_index, tally
from raft.core.storage import MemoryStorage
from raft.core.types import Entry, EntryType, HardState, Membership, Position, ReadState, Role
from tests.raft.cluster import Cluster


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    return Entry(index, term, EntryType.NORMAL, data)


def server(
    member: int = 1,
    size: int = 3,
    hard_state: HardState | None = None,
    log: list[Entry] | None = None,
    pre_vote: bool = True,
) -> tuple[Consensus, MemoryStorage]:
    storage = MemoryStorage(Membership(frozenset(range(1, size + 1))), hard_state, entries=log or [])
    return Consensus(Config(id=member, rng=random.Random(1), pre_vote=pre_vote), storage), storage


def persist(core: Consensus, storage: MemoryStorage) -> list:
    """Make everything durable; returns all messages that left."""
    sent: list = []
    while (ready := core.ready()) is not None:
        storage.append(ready.entries)
        sent += [*ready.messages, *ready.messages_after_persist]
        core.advance(ready)
        if ready.committed_entries:
            core.applied(ready.committed_entries[-1].index)
    return sent


def test_servers_begin_as_followers() -> None:
    """When servers start up, they begin as followers (§5.2)."""
    core, _ = server()
    assert core.role is Role.FOLLOWER
    assert core.leader_id == 0


def test_a_follower_that_hears_nothing_campaigns() -> None:
    """A follower that receives no communication over the election timeout begins an election: it
    increments its term, votes for itself and asks the others (§5.2)."""
    core, storage = server(pre_vote=False)
    for _ in range(2 * core.config.election_ticks):
        core.tick()
    assert core.role is Role.CANDIDATE
    requests = [m for m in persist(core, storage) if isinstance(m, RequestVote)]
    assert {m.target for m in requests} == {2, 3}
    assert core.voted_for == 1


def test_timeouts_are_random() -> None:
    """Election timeouts are chosen randomly, so that split votes are rare (§5.2)."""
    storage = MemoryStorage(Membership(frozenset({1, 2, 3})))
    timeouts = {Consensus(Config(id=1, rng=random.Random(s)), storage).timeout_ticks for s in range(50)}
    assert len(timeouts) > 5
    assert min(timeouts) >= 10
    assert max(timeouts) < 20


def test_a_server_votes_for_one_candidate_a_term() -> None:
    """Each server votes for at most one candidate in a term, first come first served (§5.2)."""
    core, storage = server()
    core.step(RequestVote(2, 1, 1, 0, 0))
    core.step(RequestVote(3, 1, 1, 0, 0))
    core.step(RequestVote(2, 1, 1, 0, 0))
    answers = [(m.target, m.vote_granted) for m in persist(core, storage)]
    assert answers == [(2, True), (3, False), (2, True)]


def test_a_vote_leaves_only_after_it_is_durable() -> None:
    """A vote that were forgotten in a crash could be given twice (Figure 2, persistent state)."""
    core, _ = server()
    core.step(RequestVote(2, 1, 1, 0, 0))
    ready = core.ready()
    assert ready is not None
    assert ready.messages == ()
    assert isinstance(ready.messages_after_persist[0], RequestVoteResponse)
    assert ready.hard_state == HardState(1, 2, 0)
    assert ready.must_sync


def test_a_vote_survives_a_restart() -> None:
    """A server that voted in a term refuses another candidate after a crash (thesis 3.8)."""
    core, storage = server(hard_state=HardState(5, 2, 0))
    core.step(RequestVote(3, 1, 5, 0, 0))
    [answer] = persist(core, storage)
    assert not answer.vote_granted


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(2, 1, False), (9, 1, False), (1, 2, False), (2, 2, True), (3, 2, True), (1, 3, True)],
)
def test_the_more_up_to_date_log_wins(last_index: int, last_term: int, granted: bool) -> None:
    """A voter denies its vote if its own log is more up to date: the later last term, or the longer
    log of the same (§5.4.1)."""
    core, storage = server(hard_state=HardState(2, 0, 0), log=[entry(1, 1), entry(2, 2)])
    core.step(RequestVote(2, 1, 4, last_index, last_term))
    [answer] = persist(core, storage)
    assert answer.vote_granted is granted


def test_a_candidate_yields_to_a_leader_of_its_term() -> None:
    """A candidate that hears from a legitimate leader becomes a follower (§5.2)."""
    core, _ = server()
    core.campaign()
    core.step(AppendEntries(2, 1, 1, 0, 0, (), 0))
    assert core.role is Role.FOLLOWER
    assert core.leader_id == 2


def test_a_stale_leader_steps_down() -> None:
    """If a server's term is out of date, it reverts to follower at once (§5.1)."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.core(1).step(AppendEntriesResponse(2, 1, 99, False, 0))
    assert cluster.core(1).role is Role.FOLLOWER
    assert cluster.core(1).current_term == 99


def test_the_answer_of_a_removed_server_deposes_nobody() -> None:
    """A removed server with a newer term refuses an old heartbeat that reaches it late: the leader, which
    does not know it any more, goes on (thesis 4.2.3; simulation, seed 204407). A member's answer counts."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.core(1).step(AppendEntriesResponse(9, 1, 99, False, 0))
    assert cluster.core(1).role is Role.LEADER
    cluster.core(1).step(AppendEntriesResponse(3, 1, 99, False, 0))
    assert cluster.core(1).role is Role.FOLLOWER


def test_an_old_message_is_refused_with_the_current_term() -> None:
    """A server rejects a request with a stale term, so that its sender learns of the new one (§5.1)."""
    core, storage = server(hard_state=HardState(7, 0, 0))
    core.step(AppendEntries(2, 1, 3, 0, 0, (entry(1, 3),), 0))
    [answer] = persist(core, storage)
    assert answer.term == 7
    assert not answer.success
    assert core.last_index == 0


def test_two_leaders_in_a_term_stop_the_server() -> None:
    """Election Safety: at most one leader in a term (§5.2); whoever sees it broken goes no further."""
    cluster = Cluster(3)
    cluster.elect(1)
    with pytest.raises(InvariantViolated, match="Election Safety"):
        cluster.core(1).step(AppendEntries(2, 1, 1, 0, 0, (), 0))


@pytest.mark.parametrize(
    "terms",
    [
        [1, 1, 1, 4, 4, 5, 5, 6, 6],
        [1, 1, 1, 4],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        [1, 1, 1, 4, 4, 4, 4],
        [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ],
)
def test_a_leader_makes_followers_logs_equal_its_own(terms: list[int]) -> None:
    """The six followers of Figure 7, whatever they lack or have too much (§5.3)."""
    leader_log = [entry(i + 1, t) for i, t in enumerate([1, 1, 1, 4, 4, 5, 5, 6, 6, 6])]
    cluster = Cluster(3)
    for member, log in (
        (1, leader_log),
        (2, leader_log),
        (3, [entry(i + 1, t) for i, t in enumerate(terms)]),
    ):
        cluster.nodes[member].disk_entries = list(log)
        cluster.nodes[member].disk_hard_state = HardState(7, 0, 0)
        cluster.restart(member)
    cluster.elect(1)
    logs = [[(e.index, e.term) for e in cluster.nodes[member].disk_entries] for member in (1, 2, 3)]
    assert logs[2] == logs[0]
    assert logs[1] == logs[0]
    assert len(logs[0]) == 11  # and the new leader's own first entry


def test_backtracking_takes_a_message_a_term_not_an_entry() -> None:
    """The protocol can be optimised to reduce the number of rejected AppendEntries (end of §5.3)."""
    cluster = Cluster(3)
    common = [entry(1, 1)]
    cluster.nodes[1].disk_entries = common + [entry(i, 5) for i in range(2, 200)]
    cluster.nodes[2].disk_entries = list(cluster.nodes[1].disk_entries)
    cluster.nodes[3].disk_entries = common + [entry(i, 3) for i in range(2, 300)]
    for member in (1, 2, 3):
        cluster.nodes[member].disk_hard_state = HardState(5, 0, 0)
        cluster.restart(member)
    refusals = []
    deliver = cluster.deliver
    cluster.deliver = lambda m: (  # type: ignore[method-assign]
        refusals.append(m) if isinstance(m, AppendEntriesResponse) and not m.success else None,
        deliver(m),
    )
    cluster.elect(1)
    assert len(refusals) <= 3
    assert cluster.nodes[3].disk_entries == cluster.nodes[1].disk_entries


def test_figure_8_an_older_entry_is_not_committed_by_counting() -> None:
    """Raft never commits log entries from previous terms by counting replicas (§5.4.2, Figure 8)."""
    core, storage = server(size=5, hard_state=HardState(3, 0, 1), log=[entry(1, 1), entry(2, 2)])
    core.campaign()
    persist(core, storage)
    for voter in (2, 3):
        core.step(RequestVoteResponse(voter, 1, 4, True))
    assert core.role is Role.LEADER
    persist(core, storage)
    for follower in (2, 3):
        core.step(AppendEntriesResponse(follower, 1, 4, True, 2))
    assert core.commit_index == 1  # a majority has entry 2, but it is of term 2
    for follower in (2, 3):
        core.step(AppendEntriesResponse(follower, 1, 4, True, 3))
    assert core.commit_index == 3  # with an entry of its own term, all before it are committed


def test_followers_alone_commit_but_the_leader_applies_what_is_durable() -> None:
    """The leader may write to its disk in parallel with the followers (thesis 10.2.1): its own copy
    counts only when it is durable, and until then it applies nothing of it."""
    cluster = Cluster(3)
    cluster.elect(1)
    before = len(cluster.nodes[1].applied)
    cluster.core(1).propose([b"x"])
    cluster.settle(apart_from={1})
    assert cluster.core(1).commit_index == cluster.core(1).last_index
    assert len(cluster.nodes[1].applied) == before
    assert cluster.commands(2) == [b"x"]
    cluster.settle()
    assert cluster.commands(1) == [b"x"]


def test_a_leader_alone_commits_nothing() -> None:
    """An entry is committed when a majority holds it (§5.3)."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    committed = cluster.core(1).commit_index
    cluster.core(1).propose([b"x"])
    cluster.settle()
    assert cluster.core(1).commit_index == committed


def test_a_conflict_replaces_what_is_just_being_written() -> None:
    """A follower's unfinished write may be of entries that a new leader replaces: the old write's end
    must not make them durable (§5.3)."""
    core, storage = server(hard_state=HardState(1, 0, 0))
    core.step(AppendEntries(2, 1, 1, 0, 0, (entry(1, 1), entry(2, 1, b"old")), 0))
    first = core.ready()
    core.step(AppendEntries(3, 1, 2, 1, 1, (entry(2, 2, b"new"),), 2))
    second = core.ready()
    assert first is not None
    assert second is not None
    assert second.entries == (entry(2, 2, b"new"),)
    storage.append(first.entries)
    core.advance(first)
    third = core.ready()
    assert third is not None
    assert [e.data for e in third.committed_entries] == [b"x"]  # entry 2 as committed is not durable yet
    storage.append(second.entries)
    core.advance(second)
    fourth = core.ready()
    assert fourth is not None
    assert [e.data for e in fourth.committed_entries] == [b"new"]


def test_what_was_replaced_and_came_back_is_not_durable_by_the_older_write() -> None:
    """Entries that a conflict replaced and that a later leader brought back are durable by their own
    write only: the write between them takes them from the disk again (found in review; etcd-io/raft
    names the same trap where it acknowledges appends)."""
    core, storage = server(hard_state=HardState(2, 0, 0))
    old = tuple(entry(index, 2) for index in range(2, 6))
    core.step(AppendEntries(2, 1, 2, 0, 0, (entry(1, 1), *old), 0))
    first = core.ready()
    core.step(AppendEntries(3, 1, 3, 1, 1, (entry(2, 3),), 0))
    second = core.ready()
    core.step(AppendEntries(2, 1, 4, 1, 1, old, 5))
    third = core.ready()
    applied = []
    for ready in (first, second, third):
        assert ready is not None
        storage.append(ready.entries)
        core.advance(ready)
        assert core.log.durable_index <= storage.last_index
        while (more := core.ready()) is not None:
            applied.append([e.index for e in more.committed_entries])
    assert applied == [[1], [2, 3, 4, 5]]


def test_a_log_of_a_later_term_than_the_server_is_refused() -> None:
    """A server's term is never less than that of its last entry (§5.1): else it forgot a term."""
    with pytest.raises(InvariantViolated, match="has lost a term"):
        server(hard_state=HardState(1, 0, 0), log=[entry(1, 2)])


def test_a_committed_entry_is_never_replaced() -> None:
    """Leader Completeness: who is asked to drop a committed entry stops (§5.4)."""
    core, _ = server(hard_state=HardState(1, 0, 2), log=[entry(1, 1), entry(2, 1)])
    with pytest.raises(InvariantViolated, match="Leader Completeness"):
        core.log.merge(1, [entry(2, 2)])


def test_reads_wait_for_an_entry_of_the_own_term() -> None:
    """A new leader does not know what is committed until its no-op is (thesis 6.4, step 1); then one
    round of heartbeats confirms all reads."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.core(1).propose([b"x"])
    cluster.settle()
    cluster.forget_leader()
    cluster.nodes[1].core.become_follower(1, 0)
    cluster.nodes[2].core.campaign()
    cluster.post(cluster.nodes[2].take_ready())
    cluster.post(cluster.nodes[2].finish_write())
    for message in list(cluster.network):
        cluster.deliver(message)
    cluster.network.clear()
    cluster.post(cluster.nodes[3].take_ready() + cluster.nodes[3].finish_write())
    for message in list(cluster.network):
        cluster.deliver(message)
    assert cluster.core(2).role is Role.LEADER
    cluster.core(2).read_index(1)
    cluster.nodes[2].take_ready()
    assert cluster.nodes[2].read_states == []
    cluster.network.clear()
    cluster.tick(1)
    cluster.settle()
    [read_state] = cluster.nodes[2].read_states
    assert read_state == ReadState(1, cluster.core(2).commit_index)


def test_a_deposed_leader_confirms_no_read() -> None:
    """A leader that was replaced without knowing gets no majority for its round (thesis 6.4)."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(1)
    cluster.elect(2)
    cluster.core(2).propose([b"newer"])
    cluster.settle()
    assert cluster.core(1).role is Role.LEADER
    cluster.core(1).read_index(7)
    cluster.settle()
    assert cluster.nodes[1].read_states == []
    cluster.heal()
    cluster.tick(3)
    cluster.settle()
    assert cluster.nodes[1].read_states == []
    cluster.core(1).read_index(8)  # it is a follower now, and asks the new leader
    cluster.settle()
    assert cluster.nodes[1].read_states == [ReadState(8, cluster.core(2).commit_index)]


def test_a_minority_confirms_no_read() -> None:
    """A leader that reaches fewer than a majority cannot know that nobody replaced it (thesis 6.4)."""
    cluster = Cluster(5)
    cluster.elect(1)
    cluster.cut |= {(a, b) for a in range(1, 6) for b in range(1, 6) if (a <= 2) != (b <= 2)}
    cluster.core(1).read_index(1)
    cluster.tick(2)
    cluster.settle()
    assert cluster.nodes[1].read_states == []
    cluster.heal()
    cluster.tick(2)
    cluster.settle()
    assert cluster.nodes[1].read_states == [ReadState(1, cluster.core(1).commit_index)]


def test_only_the_leader_takes_proposals() -> None:
    """A follower passes on what it is asked to the leader (thesis 6.2); where none is known it says so."""
    cluster = Cluster(3)
    with pytest.raises(NotLeader) as caught:
        cluster.core(1).propose([b"x"])
    assert caught.value.leader_id == 0
    cluster.elect(2)
    assert cluster.core(1).propose([b"x"], 7) == 0
    cluster.settle()
    assert cluster.commands(1) == [b"x"]
    with pytest.raises(NotLeader) as caught:
        cluster.core(1).transfer_leadership(3)
    assert caught.value.leader_id == 2


def test_a_sole_voter_needs_no_message() -> None:
    """A cluster of one elects itself once its vote is durable, and commits what is."""
    core, storage = server(size=1)
    core.campaign()
    assert core.role is Role.CANDIDATE
    assert persist(core, storage) == []
    assert core.role is Role.LEADER
    core.propose([b"x"])
    ready = core.ready()
    assert ready is not None
    assert ready.committed_entries == ()
    storage.append(ready.entries)
    core.advance(ready)
    last = core.ready()
    assert last is not None
    assert [e.data for e in last.committed_entries] == [b"x"]
    core.read_index(1)
    reads = core.ready()
    assert reads is not None
    assert reads.read_states == (ReadState(1, 2),)


def test_compacted_entries_stay_known_by_their_position() -> None:
    """A compacted log goes on where it was cut (§7)."""
    log = [entry(6, 3), entry(7, 3)]
    storage = MemoryStorage(Membership(frozenset({1})), HardState(3, 0, 0), Position(5, 2), log)
    storage.compact(6)
    assert (storage.first_index, storage.last_index) == (7, 7)
    assert storage.term(6) == 3
    core = Consensus(Config(id=1, rng=random.Random(1)), storage, last_applied=6)
    assert core.commit_index == 6


def test_a_log_that_lost_what_was_applied_is_refused() -> None:
    """A server whose log ends before what its state machine has applied does not start."""
    storage = MemoryStorage(Membership(frozenset({1})), entries=[entry(1, 1)])
    with pytest.raises(InvariantViolated, match="lost entries"):
        Consensus(Config(id=1, rng=random.Random(1)), storage, last_applied=2)


members = st.integers(1, 7)


@given(st.sets(members, min_size=1), st.dictionaries(members, st.integers(0, 20)))
def test_the_commit_index_is_what_a_majority_holds(voters: set[int], matches: dict[int, int]) -> None:
    """Committed is what more than half of the voters hold, by plain counting."""
    index = committed_index(Membership(frozenset(voters)), matches)
    holders = sum(matches.get(voter, 0) >= index for voter in voters)
    more = sum(matches.get(voter, 0) >= index + 1 for voter in voters)
    assert holders * 2 > len(voters)
    assert more * 2 <= len(voters)


@given(st.sets(members, min_size=1), st.dictionaries(members, st.booleans()))
def test_an_election_is_won_by_more_than_half(voters: set[int], votes: dict[int, bool]) -> None:
    """Won with a majority, lost when a majority has become impossible."""
    yes = sum(votes.get(voter, False) for voter in voters)
    no = sum(votes.get(voter, True) is False for voter in voters)
    expected = Vote.WON if yes * 2 > len(voters) else Vote.LOST if no * 2 >= len(voters) else Vote.PENDING
    assert tally(Membership(frozenset(voters)), votes) is expected
