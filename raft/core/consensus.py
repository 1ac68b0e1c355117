"""One server's Raft state and how inputs change it. Pure: values in, one Ready out.

    core = Consensus(config, storage, last_applied=0)
    core.campaign()                         # or tick() until the election timeout
    ready = core.ready()                    # hard state: term 1, voted for ourselves
    ...make it durable...; core.advance(ready)   # a sole voter leads now
    core.propose([b"x"])
    ...the next Readys: persist, advance, and then committed_entries has it

State is that of Figure 2. Handlers live in ``election``, ``replication`` and ``reads``, each
branch under the rule it implements; this file owns the state, role changes and the
dispatch of messages.

Two things differ from the figure, both about durability. A server's own vote and its own
copy of an entry count only after ``advance`` has said that they are on disk; and what
promises something to a peer leaves in ``messages_after_persist``.

Not there yet: pre-vote, check-quorum, leadership transfer, learners, membership change,
snapshots, reads asked of a follower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from raft.core import election, reads, replication
from raft.core.config import Config
from raft.core.errors import InvariantViolated, NotLeader
from raft.core.log import RaftLog
from raft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
)
from raft.core.progress import Progress
from raft.core.quorum import committed_index
from raft.core.reads import PendingReads
from raft.core.ready import Ready
from raft.core.storage import LogStorage
from raft.core.types import NO_MEMBER, Entry, EntryType, HardState, Membership, ReadState, Role

# Who reacts to what. A pair that is missing is ignored on purpose: a vote for an election
# that is over, an acknowledgement to someone who does not lead any more.
_HANDLERS: dict[tuple[Role, type], Callable[[Consensus, Any], None]] = {}


class Consensus:
    """See the module's docstring. ``last_applied`` is what the state machine already holds
    durably: entries up to there are not handed out again."""

    def __init__(self, config: Config, storage: LogStorage, *, last_applied: int = 0) -> None:
        hard_state, membership = storage.initial_state()
        self.config = config
        self.id = config.id
        self.membership: Membership = membership
        self.current_term = hard_state.current_term
        self.voted_for = hard_state.voted_for
        # What was applied was committed, even if the commit index on disk lags behind.
        commit_index = max(hard_state.commit_index, last_applied, storage.first_index - 1)
        _check_start(storage, commit_index, last_applied)
        self.log = RaftLog(storage, commit_index, last_applied)
        self.role = Role.FOLLOWER
        self.leader_id = NO_MEMBER
        self.votes: dict[int, bool] = {}
        self.progress: dict[int, Progress] = {}
        self.pending_reads = PendingReads()
        self.elapsed_ticks = 0
        self.timeout_ticks = self._random_timeout()
        # Outbox of the next Ready.
        self._messages: list[Message] = []
        self._messages_after_persist: list[Message] = []
        self._read_states: list[ReadState] = []
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
    def peers(self) -> list[int]:
        """The other voters, ascending: the order of everything that is sent to all."""
        return sorted(self.membership.voters - {self.id})

    @property
    def is_voter(self) -> bool:
        return self.id in self.membership.voters

    # What comes in.

    def tick(self) -> None:
        """One unit of time passed."""
        self.elapsed_ticks += 1
        if self.role is Role.LEADER:
            if self.elapsed_ticks >= self.config.heartbeat_ticks:
                self.elapsed_ticks = 0
                self.broadcast_heartbeat()
        elif self.elapsed_ticks >= self.timeout_ticks and self.is_voter:
            self.campaign()

    def step(self, message: Message) -> None:
        """A peer's message arrived; it may be old, doubled or out of order."""
        if message.target != self.id:
            raise ValueError(f"a message for member {message.target} reached member {self.id}")
        # Figure 2, rules for all servers: a newer term makes a follower of everyone.
        if message.term > self.current_term:
            leads = isinstance(message, AppendEntries | Heartbeat)
            self.become_follower(message.term, message.source if leads else NO_MEMBER)
        elif message.term < self.current_term:
            self._refuse_old_term(message)
            return
        handler = _HANDLERS.get((self.role, type(message)))
        if handler is not None:
            handler(self, message)

    def campaign(self) -> None:
        """Stand for election now (§5.2). A leader stays one."""
        if self.role is not Role.LEADER and self.is_voter:
            election.campaign(self)

    def propose(self, data: Sequence[bytes]) -> int:
        """Append a batch of commands; returns the index of the first. Raises NotLeader."""
        if self.role is not Role.LEADER:
            raise NotLeader(self.leader_id)
        start, term = self.log.last_index + 1, self.current_term
        self.append([Entry(start + n, term, EntryType.NORMAL, one) for n, one in enumerate(data)])
        return start

    def read_index(self, ctx: int) -> None:
        """Ask for a ReadState with ``ctx`` (thesis §6.4). Contexts must ascend. Raises NotLeader."""
        if self.role is not Role.LEADER:
            raise NotLeader(self.leader_id)
        reads.request(self, ctx)

    def advance(self, ready: Ready) -> None:
        """Everything in ``ready`` is durable, and its entries are in the storage."""
        self.log.made_durable(ready.entries)
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
            or min(log.commit_index, log.durable_index) > log.handing_index
            or self._hard_state() != self._handed_hard_state
        )

    def ready(self) -> Ready | None:
        """Everything that is new since the last call, or None."""
        if not self.has_ready():
            return None
        entries = self.log.take_unhanded()
        hard_state, handed = self._hard_state(), self._handed_hard_state
        changed = hard_state != handed
        self._handed_hard_state = hard_state
        promises = hard_state[:2] != handed[:2]
        ready = Ready(
            hard_state if changed else None,
            entries,
            tuple(self._messages),
            tuple(self._messages_after_persist),
            self.log.take_committed(),
            tuple(self._read_states),
            bool(entries) or promises,
        )
        self._messages, self._messages_after_persist, self._read_states = [], [], []
        return ready

    # For the handlers.

    def send(self, message: Message) -> None:
        """Leaves at once: promises nothing."""
        self._messages.append(message)

    def send_after_persist(self, message: Message) -> None:
        """Leaves when everything up to here is durable."""
        self._messages_after_persist.append(message)

    def confirm_reads(self, read_states: Iterable[ReadState]) -> None:
        self._read_states.extend(read_states)

    def append(self, entries: Sequence[Entry]) -> None:
        """As the leader: take entries into the own log and send them out."""
        self.log.append(entries)
        replication.broadcast_append(self)

    def broadcast_heartbeat(self) -> None:
        replication.broadcast_heartbeat(self)

    def become_follower(self, term: int, leader_id: int) -> None:
        if term > self.current_term:
            self.current_term = term
            self.voted_for = NO_MEMBER
        self._change_role(Role.FOLLOWER, leader_id)

    def become_candidate(self) -> None:
        self.current_term += 1
        self.voted_for = self.id
        self._change_role(Role.CANDIDATE, NO_MEMBER)

    def become_leader(self) -> None:
        if self.role is not Role.CANDIDATE:
            raise InvariantViolated(f"a {self.role.value} became leader without an election")
        self._change_role(Role.LEADER, self.id)
        next_index, inflight = self.log.last_index + 1, self.config.inflight_max
        self.progress = {peer: Progress(next_index, inflight) for peer in self.peers}
        self.progress[self.id] = Progress(next_index, inflight, self.log.durable_index)
        # §8 and thesis §6.4: only an entry of the own term tells what is committed.
        self.append([Entry(next_index, self.current_term, EntryType.NORMAL, b"")])

    def heard_from_leader(self, leader_id: int) -> None:
        """A message of the current term's leader: Figure 2 makes a candidate follow it."""
        if self.role is Role.FOLLOWER and self.leader_id == leader_id:
            self.elapsed_ticks = 0
        else:
            self.become_follower(self.current_term, leader_id)

    def committed_in_own_term(self) -> bool:
        return self.log.has(self.log.commit_index, self.current_term)

    def quorum_index(self) -> int:
        matches = {member: progress.match_index for member, progress in self.progress.items()}
        return committed_index(self.membership.voters, matches)

    def _change_role(self, role: Role, leader_id: int) -> None:
        self.role = role
        self.leader_id = leader_id
        self.votes = {}
        self.progress = {}
        self.pending_reads = PendingReads()
        self.elapsed_ticks = 0
        self.timeout_ticks = self._random_timeout()

    def _random_timeout(self) -> int:
        # §5.2: randomised, so that split votes are rare and resolved quickly.
        return self.config.election_ticks + self.config.rng.randrange(self.config.election_ticks)

    def _hard_state(self) -> HardState:
        return HardState(self.current_term, self.voted_for, self.log.commit_index)

    def _refuse_old_term(self, message: Message) -> None:
        """Figure 2, receiver rule 1 of both RPCs. Whoever led or campaigned learns of the new term."""
        if isinstance(message, RequestVote):
            self.send_after_persist(RequestVoteResponse(self.id, message.source, self.current_term, False))
        elif isinstance(message, AppendEntries | Heartbeat):
            self.send_after_persist(
                AppendEntriesResponse(self.id, message.source, self.current_term, False, 0)
            )


def _check_start(storage: LogStorage, commit_index: int, last_applied: int) -> None:
    if commit_index > storage.last_index:
        raise InvariantViolated(
            f"the log ends at {storage.last_index}, but {commit_index} was committed and"
            f" {last_applied} applied: the log has lost entries it had promised to keep"
        )
    if last_applied < storage.first_index - 1:
        raise InvariantViolated(
            f"the state machine has applied {last_applied}, but the log begins at {storage.first_index}:"
            " the entries between are gone"
        )


for _role in Role:
    _HANDLERS[_role, RequestVote] = election.on_request_vote
for _role in (Role.FOLLOWER, Role.CANDIDATE):
    _HANDLERS[_role, AppendEntries] = replication.on_append_entries
    _HANDLERS[_role, Heartbeat] = replication.on_heartbeat
_HANDLERS[Role.CANDIDATE, RequestVoteResponse] = election.on_request_vote_response
_HANDLERS[Role.LEADER, AppendEntriesResponse] = replication.on_append_entries_response
_HANDLERS[Role.LEADER, HeartbeatResponse] = replication.on_heartbeat_response
# Two leaders in one term cannot be: Election Safety is broken if this is ever reached.
_HANDLERS[Role.LEADER, AppendEntries] = replication.on_second_leader
_HANDLERS[Role.LEADER, Heartbeat] = replication.on_second_leader
