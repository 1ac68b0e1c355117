"""One server's Raft state and how inputs change it. Pure: values in, one Ready out.

    core = Consensus(config, storage, last_applied=0)
    core.campaign()                         # or tick() until the election timeout
    ready = core.ready()                    # hard state: term 1, voted for ourselves
    ...make it durable...; core.advance(ready)   # a sole voter leads now
    core.propose([b"x"])
    ...the next Readys: persist, advance, and then committed_entries has it

State is that of Figure 2. Handlers live in ``election``, ``replication``, ``membership``,
``proposing`` and ``reads``, each branch under the rule it implements; this file owns the
state, role changes and the dispatch of messages.

Two things differ from the figure, both about durability. A server's own vote and its own
copy of an entry count only after ``advance`` has said that they are on disk; and what
promises something to a peer leaves in ``messages_after_persist``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from raft.core import election, membership, proposing, reads, replication
from raft.core.config import Config
from raft.core.errors import InvariantViolated, NotLeader, TransferRefused
from raft.core.log import RaftLog
from raft.core.membership import Change, Memberships
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
from raft.core.progress import Progress, ProgressState
from raft.core.quorum import committed_index, is_quorum
from raft.core.reads import Asked, PendingReads
from raft.core.ready import Ready
from raft.core.storage import LogStorage
from raft.core.types import (
    NO_MEMBER,
    Entry,
    HardState,
    Membership,
    ReadState,
    Role,
    SnapshotMeta,
)

# Who reacts to what. A pair that is missing is ignored on purpose: a vote for an election
# that is over, an acknowledgement to someone who does not lead any more.
_HANDLERS: dict[tuple[Role, type], Callable[[Consensus, Any], None]] = {}
# What is answered, or taken, whatever term it is of.
_OLD_TERM_HANDLERS: dict[type, Callable[[Consensus, Any], None]] = {}
_FROM_LEADERS = (AppendEntries, Heartbeat, InstallSnapshot)
_ANSWERS = (AppendEntriesResponse, HeartbeatResponse, RequestVoteResponse, RequestPreVoteResponse)


class Consensus:
    """See the module's docstring. ``last_applied`` is what the state machine already holds
    durably: entries up to there are not handed out again."""

    def __init__(self, config: Config, storage: LogStorage, *, last_applied: int = 0) -> None:
        hard_state, initial_membership = storage.initial_state()
        self.config = config
        self.id = config.id
        # Tells this life of the server from earlier ones, in messages whose answer must not be mistaken.
        self.life = config.rng.getrandbits(62)
        self.current_term = self.first_term = hard_state.current_term
        self.voted_for = hard_state.voted_for
        # What was applied was committed, even if the commit index on disk lags behind.
        commit_index = max(hard_state.commit_index, last_applied, storage.first_index - 1)
        _check_start(storage, hard_state.current_term, commit_index, last_applied)
        self.log = RaftLog(storage, commit_index, last_applied)
        self.memberships = Memberships(last_applied, initial_membership)
        self.memberships.append(self.log.entries(last_applied + 1, storage.last_index + 1))
        self.role = Role.FOLLOWER
        self.leader_id = NO_MEMBER
        self.votes: dict[int, bool] = {}
        self.progress: dict[int, Progress] = {}
        self.pending_reads = PendingReads()
        self.newest_forwarded: dict[tuple[int, int], int] = {}  # (member, its life) → context
        self.uncommitted_bytes = 0
        self.transfer_target = NO_MEMBER
        self.elapsed_ticks = 0  # since the leader was heard of; of a leader: since its last heartbeat
        self.office_ticks = 0  # of a leader: since it last checked that a quorum is there
        self.transfer_ticks = 0  # of a leader: since it began to hand over
        self.timeout_ticks = self._random_timeout()
        # Outbox of the next Ready.
        self._messages: list[Message] = []
        self._messages_after_persist: list[Message] = []
        self._read_states: list[ReadState] = []
        self._refused_reads: list[int] = []
        self._refused_proposals: list[int] = []
        self._snapshot: SnapshotMeta | None = None
        self._handed_hard_state = hard_state

    # What can be seen.

    @property
    def commit_index(self) -> int:
        return self.log.commit_index

    @property
    def last_applied(self) -> int:
        return self.log.last_applied

    @property
    def last_index(self) -> int:
        return self.log.last_index

    @property
    def membership(self) -> Membership:
        """The latest in the log, committed or not (paper §6)."""
        return self.memberships.latest

    @property
    def change_under_way(self) -> bool:
        """Whether a change of members has begun whose final membership is not known to be committed."""
        return self.memberships.latest_index > self.log.commit_index or self.membership.is_joint

    @property
    def peers(self) -> list[int]:
        """Whom this leader replicates to, ascending: the order of everything that is sent to all."""
        return sorted(self.progress.keys() - {self.id})

    @property
    def snapshot_under_way(self) -> int:
        """The lowest index up to which a follower is being sent a snapshot; 0 if none is."""
        sending = (one for one in self.progress.values() if one.state is ProgressState.SNAPSHOT)
        return min((one.snapshot_index for one in sending), default=0)

    @property
    def other_voters(self) -> list[int]:
        return sorted(self.membership.all_voters - {self.id})

    @property
    def may_stand(self) -> bool:
        """Whether this server stands for election. Also one that its latest membership leaves out, until
        that is committed: without it there may be no quorum to commit it (thesis 4.2.2)."""
        if self.id in self.membership.all_voters:
            return True
        return self.id in self.memberships.at(self.log.commit_index).all_voters

    # What comes in.

    def tick(self) -> None:
        """One unit of time passed."""
        self.elapsed_ticks += 1
        if self.role is Role.LEADER:
            self._tick_leader()
        elif self.elapsed_ticks >= self.timeout_ticks:
            if self.may_stand:
                election.timed_out(self)
            else:
                self.leader_id = NO_MEMBER  # nobody answers there

    def step(self, message: Message) -> None:
        """A peer's message arrived; it may be old, doubled or out of order."""
        if message.target != self.id:
            raise ValueError(f"a message for member {message.target} reached member {self.id}")
        if message.term > self.current_term:
            if self._keeps_its_leader(message):
                return
            self._follow_newer_term(message)
        elif message.term < self.current_term:
            old_handler = _OLD_TERM_HANDLERS.get(type(message))
            if old_handler is not None:
                old_handler(self, message)
            return
        handler = _HANDLERS.get((self.role, type(message)))
        if handler is not None:
            handler(self, message)

    def suspect(self, member: int) -> bool:
        """Where ``member`` runs, nobody takes connections any more. Returns whether it led: then there is no
        need to wait out the election timeout, and ``stand`` is to be called soon, at a time that is
        random. Only a hint: whoever still hears of the leader grants no pre-vote (thesis 9.6, 4.2.3)."""
        if self.role is not Role.FOLLOWER or member != self.leader_id:
            return False
        self.leader_id = NO_MEMBER
        return True

    def stand(self) -> None:
        """Stand for election if no leader is known, asking beforehand whether it could be won."""
        if self.role is Role.FOLLOWER and self.leader_id == NO_MEMBER and self.may_stand:
            election.timed_out(self)

    def campaign(self) -> None:
        """Stand for election now (§5.2). A leader stays one."""
        if self.role is not Role.LEADER and self.may_stand:
            election.campaign(self)

    def propose(self, data: Sequence[bytes], ctx: int = 0) -> int:
        """Append a batch of commands and return the index of the first; or pass it on to the leader
        and return 0. ``ctx`` then names the batch in ``Ready.refused_proposals``; contexts ascend.
        Raises NotLeader where no leader is known, or ProposalDropped."""
        if self.role is Role.LEADER:
            return proposing.append(self, data)
        proposing.forward(self, data, ctx)
        return 0

    def propose_membership(self, changes: Sequence[Change], context: bytes | None = None) -> int:
        """Begin a change of members (paper §6), or of the context alone; only one at a time. A ``context``
        of None stays as it is. Returns the index of the change's first entry. Raises NotLeader or
        MembershipRefused."""
        return membership.propose(self, changes, context)

    def read_index(self, ctx: int) -> None:
        """Ask for a ReadState with ``ctx`` (thesis §6.4), through the leader if that is another.
        Raises NotLeader where no leader is known."""
        if self.role is Role.LEADER:
            reads.request(self, Asked(self.id, self.life, ctx))
        elif self.leader_id == NO_MEMBER:
            raise NotLeader(NO_MEMBER)
        else:
            reads.forward(self, ctx)

    def transfer_leadership(self, target: int) -> None:
        """Let ``target`` lead (thesis 3.10). Proposals are dropped meanwhile; after an election timeout
        without success this leader goes on. Raises NotLeader or TransferRefused."""
        if self.role is not Role.LEADER:
            raise NotLeader(self.leader_id)
        if target not in self.membership.voters:
            raise TransferRefused(f"member {target} is not a voter: expected one of the voters")
        if target == self.id:
            return
        self.transfer_target = target
        self.transfer_ticks = 0
        replication.send_append(self, target)
        replication.finish_transfer(self, target)

    def report_snapshot(self, follower: int, index: int, *, arrived: bool) -> None:
        """The transfer of the InstallSnapshot up to ``index`` to ``follower`` is over. Whoever transports
        one must say so for each, or the follower gets nothing more from this leader."""
        progress = self.progress.get(follower)
        if progress is not None and progress.snapshot_index == index:
            progress.snapshot_ended(arrived=arrived)

    def advance(self, ready: Ready) -> None:
        """Everything in ``ready`` is durable, and its entries are in the storage."""
        if ready.snapshot is not None:
            self.log.installed(ready.snapshot.position)
        if ready.entries:
            self.log.made_durable()
        hard_state = ready.hard_state
        stands = hard_state is not None and hard_state[:2] == (self.current_term, self.id)
        if stands and self.role is Role.CANDIDATE:
            election.count_vote(self, self.id, granted=True)
        if self.role is Role.LEADER:
            self.progress[self.id].succeeded(self.log.durable_index)
            replication.maybe_commit(self)

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to ``index``."""
        self.log.applied(index)

    # What goes out.

    def has_ready(self) -> bool:
        log = self.log
        return bool(
            log.handed_index < log.last_index
            or self._messages
            or self._messages_after_persist
            or self._read_states
            or log.has_committed
            or self._hard_state() != self._handed_hard_state
            or self._snapshot is not None
            or self._refused_reads
            or self._refused_proposals
        )

    def ready(self) -> Ready | None:
        """Everything that is new since the last call, or None."""
        if not self.has_ready():
            return None
        entries = self.log.take_unhanded()
        hard_state, handed = self._hard_state(), self._handed_hard_state
        self._handed_hard_state = hard_state
        promises = hard_state[:2] != handed[:2]
        ready = Ready(
            hard_state if hard_state != handed else None,
            entries,
            tuple(self._messages),
            tuple(self._messages_after_persist),
            self._take_committed(),
            tuple(self._read_states),
            bool(entries) or promises or self._snapshot is not None,
            self._snapshot,
            tuple(self._refused_proposals),
            tuple(self._refused_reads),
        )
        self._messages, self._messages_after_persist, self._read_states = [], [], []
        self._refused_proposals, self._refused_reads, self._snapshot = [], [], None
        return ready

    # For the handlers.

    def send(self, message: Message) -> None:
        """Leaves at once: promises nothing."""
        self._messages.append(message)

    def send_after_persist(self, message: Message) -> None:
        """Leaves when everything up to here is durable."""
        self._messages_after_persist.append(message)

    def confirm_read(self, read_state: ReadState) -> None:
        self._read_states.append(read_state)

    def refuse_read(self, ctx: int) -> None:
        self._refused_reads.append(ctx)

    def refuse_proposal(self, ctx: int) -> None:
        self._refused_proposals.append(ctx)

    def install(self, snapshot: SnapshotMeta) -> None:
        self._snapshot = snapshot

    def append(self, entries: Sequence[Entry]) -> None:
        """As the leader: take entries into the own log and send them out."""
        self.log.append(entries)
        if self.memberships.append(entries):
            self._membership_changed()
        replication.broadcast_append(self)

    def broadcast_heartbeat(self) -> None:
        replication.broadcast_heartbeat(self)

    def become_follower(self, term: int, leader_id: int) -> None:
        if term > self.current_term:
            self.current_term = term
            self.voted_for = NO_MEMBER
        if self.role is Role.LEADER:
            reads.refuse_all(self)
        self._change_role(Role.FOLLOWER, leader_id)

    def become_pre_candidate(self) -> None:
        self._change_role(Role.PRE_CANDIDATE, NO_MEMBER)

    def become_candidate(self) -> None:
        self.current_term += 1
        self.voted_for = self.id
        self._change_role(Role.CANDIDATE, NO_MEMBER)

    def become_leader(self) -> None:
        if self.role is not Role.CANDIDATE:
            raise InvariantViolated(f"a {self.role.value} became leader without an election")
        self._change_role(Role.LEADER, self.id)
        # Also those that a membership not yet committed leaves out: they are to learn of it.
        members = self.membership.members | self.memberships.at(self.log.commit_index).members
        next_index = self.log.last_index + 1
        self.progress = {member: self._new_progress(next_index) for member in members | {self.id}}
        self.progress[self.id].match_index = self.log.durable_index
        # §8 and thesis §6.4: only an entry of the own term tells what is committed.
        self.append([membership.first_entry(self)])

    def heard_from_leader(self, leader_id: int) -> None:
        """A message of the current term's leader: Figure 2 makes a candidate follow it."""
        if self.role is Role.FOLLOWER and self.leader_id == leader_id:
            self.elapsed_ticks = 0
        else:
            self.become_follower(self.current_term, leader_id)

    def drop_departed(self, *, told: bool) -> None:
        """The membership is final and committed: stop replicating to whoever is no member any more; with
        ``told``, only if it holds the entry that says so, and was told that it is committed."""
        for member in sorted(self.progress.keys() - self.membership.members - {self.id}):
            if not told or self.progress[member].match_index >= self.memberships.latest_index:
                del self.progress[member]

    def committed_in_own_term(self) -> bool:
        return self.log.has(self.log.commit_index, self.current_term)

    def quorum_index(self) -> int:
        matches = {member: progress.match_index for member, progress in self.progress.items()}
        return committed_index(self.membership, matches)

    # Within.

    def _tick_leader(self) -> None:
        self.office_ticks += 1
        self.transfer_ticks += 1
        if self.transfer_ticks >= self.config.election_ticks:
            self.transfer_target = NO_MEMBER  # thesis 3.10: it has failed, take proposals again
        if self.office_ticks >= self.config.election_ticks:
            self.office_ticks = 0
            if not self.change_under_way:
                self.drop_departed(told=False)  # that was time enough to hear of it
            if not self._quorum_is_there():
                # Thesis 6.2: a leader that reaches no quorum steps down, so that clients try elsewhere.
                self.become_follower(self.current_term, NO_MEMBER)
                return
        if self.elapsed_ticks >= self.config.heartbeat_ticks:
            self.elapsed_ticks = 0
            for progress in self.progress.values():
                progress.may_ask = progress.may_fall_back = True
            self.broadcast_heartbeat()

    def _quorum_is_there(self) -> bool:
        """Whether a quorum was heard of since this was asked last."""
        active = [self.id]
        for peer in self.peers:
            if self.progress[peer].recently_active:
                active.append(peer)
                self.progress[peer].recently_active = False
        return is_quorum(self.membership, active)

    def _keeps_its_leader(self, message: Message) -> bool:
        """Thesis 4.2.3: who has heard from a leader within the minimum election timeout neither votes
        nor takes a newer term from a candidate, so a removed or returning server disturbs nobody. Nor
        from the answer of a stranger: a removed server may refuse what it was sent long ago."""
        if isinstance(message, RequestVote):
            if message.leadership_transfer:
                return False
        elif isinstance(message, _ANSWERS):
            if message.source in self.membership.members or message.source in self.progress:
                return False
        elif not isinstance(message, RequestPreVote):
            return False
        if self.role is Role.LEADER:
            return True
        return self.leader_id != NO_MEMBER and self.elapsed_ticks < self.config.election_ticks

    def _follow_newer_term(self, message: Message) -> None:
        """Figure 2, rules for all servers: a newer term makes a follower of everyone; but the term of
        a pre-vote that is asked for or granted is only one that may come (thesis 9.6)."""
        if isinstance(message, RequestPreVote):
            return
        if isinstance(message, RequestPreVoteResponse) and message.vote_granted:
            return
        leads = isinstance(message, _FROM_LEADERS)
        self.become_follower(message.term, message.source if leads else NO_MEMBER)

    def _membership_changed(self) -> None:
        """As the leader: follow whoever is new, and look anew at what a quorum is."""
        for member in self.membership.members.difference(self.progress):
            # Begin with the entry that makes it a member, so that it hears of it at once.
            self.progress[member] = self._new_progress(self.log.last_index)
        if self.transfer_target not in self.membership.voters:
            self.transfer_target = NO_MEMBER
        reads.confirm(self)

    def _new_progress(self, next_index: int) -> Progress:
        return Progress(next_index, self.config.inflight_max, self.config.inflight_bytes_max)

    def _change_role(self, role: Role, leader_id: int) -> None:
        self.role = role
        self.leader_id = leader_id
        self.votes = {}
        self.progress = {}
        self.pending_reads = PendingReads()
        self.uncommitted_bytes = 0
        self.transfer_target = NO_MEMBER
        self.elapsed_ticks = self.office_ticks = self.transfer_ticks = 0
        self.timeout_ticks = self._random_timeout()

    def hurry(self) -> None:
        """Nobody leads, others know it too, and this server may well win: do not wait a whole timeout."""
        soon = self.config.rng.randrange(1, 2 + self.config.election_ticks // 3)
        self.timeout_ticks = min(self.timeout_ticks, self.elapsed_ticks + soon)

    def _random_timeout(self) -> int:
        # §5.2: randomised, so that split votes are rare and resolved quickly.
        return self.config.election_ticks + self.config.rng.randrange(self.config.election_ticks)

    def _hard_state(self) -> HardState:
        return HardState(self.current_term, self.voted_for, self.log.commit_index)

    def _take_committed(self) -> tuple[Entry, ...]:
        committed = self.log.take_committed()
        if self.uncommitted_bytes and committed:
            # Entries of earlier leaders were not counted: never below zero.
            size = sum([len(entry.data) for entry in committed])
            self.uncommitted_bytes = max(0, self.uncommitted_bytes - size)
        return committed

    def refuse_old_leader(self, message: AppendEntries | Heartbeat | InstallSnapshot) -> None:
        """Figure 2, AppendEntries receiver rule 1: whoever led learns of the new term."""
        self.send_after_persist(AppendEntriesResponse(self.id, message.source, self.current_term, False, 0))

    def refuse_old_candidate(self, message: RequestVote) -> None:
        """Figure 2, RequestVote receiver rule 1."""
        self.send_after_persist(RequestVoteResponse(self.id, message.source, self.current_term, False))


def _check_start(storage: LogStorage, term: int, commit_index: int, last_applied: int) -> None:
    if commit_index > storage.last_index:
        raise InvariantViolated(
            f"the log ends at {storage.last_index}, but {commit_index} was committed and"
            f" {last_applied} applied: the log has lost entries it had promised to keep"
        )
    last_term = storage.term(storage.last_index)
    if last_term > term:
        raise InvariantViolated(
            f"the log ends with an entry of term {last_term}, but the server is only in term"
            f" {term}: the log has lost a term it had promised to remember"
        )
    if last_applied < storage.first_index - 1:
        raise InvariantViolated(
            f"the state machine has applied {last_applied}, but the log begins at {storage.first_index}:"
            " the entries between are gone"
        )


def _handle(roles: Iterable[Role], message: type, handler: Callable[[Consensus, Any], None]) -> None:
    for role in roles:
        _HANDLERS[role, message] = handler


_NOT_LEADING = (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE)
_handle(Role, RequestVote, election.on_request_vote)
_handle(Role, RequestPreVote, election.on_request_pre_vote)
_handle(Role, Propose, proposing.on_propose)
_handle(Role, ProposeRefused, proposing.on_propose_refused)
_handle(Role, RequestReadIndex, reads.on_request_read_index)
_handle(Role, ReadIndexResponse, reads.on_read_index_response)
_handle(_NOT_LEADING, AppendEntries, replication.on_append_entries)
_handle(_NOT_LEADING, Heartbeat, replication.on_heartbeat)
_handle(_NOT_LEADING, InstallSnapshot, replication.on_install_snapshot)
_handle([Role.PRE_CANDIDATE], RequestPreVoteResponse, election.on_request_pre_vote_response)
_handle([Role.CANDIDATE], RequestVoteResponse, election.on_request_vote_response)
_handle([Role.FOLLOWER], TimeoutNow, election.on_timeout_now)
_handle([Role.LEADER], AppendEntriesResponse, replication.on_append_entries_response)
_handle([Role.LEADER], HeartbeatResponse, replication.on_heartbeat_response)
# Two leaders in one term cannot be: Election Safety is broken if this is ever reached.
for _message in _FROM_LEADERS:
    _handle([Role.LEADER], _message, replication.on_second_leader)
    _OLD_TERM_HANDLERS[_message] = Consensus.refuse_old_leader
_OLD_TERM_HANDLERS[RequestVote] = Consensus.refuse_old_candidate
_OLD_TERM_HANDLERS[RequestPreVote] = election.on_request_pre_vote
_OLD_TERM_HANDLERS[Propose] = proposing.on_propose
_OLD_TERM_HANDLERS[ProposeRefused] = proposing.on_propose_refused
_OLD_TERM_HANDLERS[RequestReadIndex] = reads.refuse
_OLD_TERM_HANDLERS[ReadIndexResponse] = reads.on_read_index_response
