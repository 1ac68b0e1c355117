"""AppendEntries, Heartbeat and InstallSnapshot: how the log gets to the followers (paper §5.3, §7),
and when an entry is committed (§5.3, §5.4.2)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from raft.core import membership, reads
from raft.core.errors import Compacted, InvariantViolated
from raft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    TimeoutNow,
)
from raft.core.progress import ProgressState
from raft.core.types import Entry, SnapshotMeta

if TYPE_CHECKING:
    from raft.core.consensus import Consensus

log = logging.getLogger(__name__)


# The leader's side.


def broadcast_append(c: Consensus) -> None:
    for peer in c.peers:
        send_append(c, peer)


def send_append(c: Consensus, peer: int) -> None:
    """Send what the follower lacks, as far as its window allows."""
    progress = c.progress[peer]
    while progress.may_send and progress.next_index <= c.log.last_index:
        try:
            entries = c.log.entries(progress.next_index, c.log.last_index + 1, c.config.append_bytes_max)
            _send_entries(c, peer, entries)
        except Compacted:
            _send_snapshot(c, peer)
            return
        last = entries[-1].index
        progress.sent(last, sum([len(entry.data) for entry in entries]))
        progress.told_commit = max(progress.told_commit, min(c.log.commit_index, last))


def _send_entries(c: Consensus, peer: int, entries: tuple[Entry, ...]) -> None:
    previous = c.progress[peer].next_index - 1
    c.send(
        AppendEntries(c.id, peer, c.current_term, previous, c.log.term(previous), entries, c.log.commit_index)
    )


def _ask(c: Consensus, peer: int) -> None:
    """What was sent last may be lost, and nothing may follow that would show it: ask with an
    AppendEntries without entries. It takes no room in the window, which may be full of what was lost."""
    progress = c.progress[peer]
    probed = progress.state is ProgressState.PROBE and progress.next_index <= c.log.last_index
    if not progress.may_ask or probed or progress.state is ProgressState.SNAPSHOT:
        return
    progress.may_ask = False
    try:
        _send_entries(c, peer, ())
    except Compacted:
        _send_snapshot(c, peer)


def _send_snapshot(c: Consensus, peer: int) -> None:
    """The follower needs entries that were compacted (§7)."""
    progress = c.progress[peer]
    position = c.log.storage.snapshot
    if position is None or position.index <= progress.match_index:
        progress.paused = True  # the next heartbeat's answer tries again
        return
    log.info("member %x gets a snapshot up to %s", peer, position)
    snapshot = SnapshotMeta(position, c.memberships.at(position.index))
    c.send(InstallSnapshot(c.id, peer, c.current_term, snapshot))
    progress.sent_snapshot(position.index)


def broadcast_heartbeat(c: Consensus) -> None:
    for peer in c.peers:
        _send_heartbeat(c, peer)


def _send_heartbeat(c: Consensus, peer: int) -> None:
    progress = c.progress[peer]
    # A follower may hold conflicting entries beyond its match index: they are not committed.
    commit_index = min(c.log.commit_index, progress.match_index)
    progress.told_commit = max(progress.told_commit, commit_index)
    c.send(Heartbeat(c.id, peer, c.current_term, commit_index, c.pending_reads.newest_round))


def on_append_entries_response(c: Consensus, m: AppendEntriesResponse) -> None:
    progress = c.progress.get(m.source)
    if progress is None:
        return  # not of our membership
    progress.recently_active = True
    if m.success:
        if m.index > c.log.last_index:
            raise InvariantViolated(f"member {m.source} acknowledged entry {m.index}, which was never sent")
        if progress.succeeded(m.index):
            maybe_commit(c)
        if m.source in c.progress:  # what was committed may have made it leave
            send_append(c, m.source)
            tell_commit(c, m.source)
            if m.source not in c.membership.members:
                membership.continue_change(c)
            finish_transfer(c, m.source)
        return
    # §5.3: decrement next_index and retry, skipping at once all that cannot agree.
    agreed = c.log.agreement_hint(m.hint_index, m.hint_term)
    if progress.failed(m.index, agreed.index + 1):
        send_append(c, m.source)


def finish_transfer(c: Consensus, follower: int) -> None:
    """Thesis 3.10: once the target of a transfer has the whole log, it may campaign."""
    if follower == c.transfer_target and c.progress[follower].match_index == c.log.last_index:
        c.send(TimeoutNow(c.id, follower, c.current_term))


def on_heartbeat_response(c: Consensus, m: HeartbeatResponse) -> None:
    progress = c.progress.get(m.source)
    if progress is None:
        return
    progress.recently_active = True
    progress.paused = False  # the follower lives: a probe that is not answered was lost
    if progress.match_index < c.log.last_index:
        send_append(c, m.source)
        _ask(c, m.source)
    finish_transfer(c, m.source)
    reads.acknowledge(c, m.source, m.ctx)


def maybe_commit(c: Consensus) -> None:
    """Figure 2, leaders: commit what a majority holds, but only entries of the own term are
    counted; older ones are committed along with them (§5.4.2, Figure 8)."""
    index = c.quorum_index()
    if index <= c.log.commit_index or c.log.term(index) != c.current_term:
        return
    first_of_term = not c.committed_in_own_term()
    c.log.commit_to(index)
    if first_of_term:
        reads.release_waiting(c)
    for peer in c.peers:
        tell_commit(c, peer)
    membership.continue_change(c)


def tell_commit(c: Consensus, peer: int) -> None:
    """Let a follower that has all entries know that more of them are committed, rather than with
    the next entries or heartbeat."""
    progress = c.progress[peer]
    commit_index = min(c.log.commit_index, progress.match_index)
    if progress.told_commit < commit_index and progress.next_index > c.log.last_index:
        _send_heartbeat(c, peer)


def on_second_leader(c: Consensus, m: AppendEntries | Heartbeat | InstallSnapshot) -> None:
    raise InvariantViolated(
        f"Election Safety: member {c.id} leads term {c.current_term}, and member {m.source} claims to as well"
    )


# The follower's side.


def on_append_entries(c: Consensus, m: AppendEntries) -> None:
    c.heard_from_leader(m.source)
    if m.prev_log_index < c.log.commit_index:
        # What is committed here is in the leader's log too (Leader Completeness), so an old or
        # late message is answered with what we hold rather than compared with compacted entries.
        _accept(c, m.source, c.log.commit_index)
        return
    # Figure 2, receiver rule 2: refuse unless our log has prev_log_index with
    # prev_log_term. The hint spares the leader a probe per entry.
    if not c.log.has(m.prev_log_index, m.prev_log_term):
        hint = c.log.agreement_hint(m.prev_log_index, m.prev_log_term)
        c.send_after_persist(
            AppendEntriesResponse(
                c.id, m.source, c.current_term, False, m.prev_log_index, hint.index, hint.term
            )
        )
        return
    # Rules 3 and 4: drop what conflicts, append what is new.
    added = c.log.merge(m.prev_log_index, m.entries)
    if added:
        c.memberships.truncate(added[0].index)
        c.memberships.append(added)
    # Rule 5: commit up to the leader's commit index, but not beyond the last entry known to agree.
    last_new = m.prev_log_index + len(m.entries)
    c.log.commit_to(min(m.leader_commit, last_new))
    _accept(c, m.source, last_new)


def on_heartbeat(c: Consensus, m: Heartbeat) -> None:
    c.heard_from_leader(m.source)
    c.log.commit_to(m.commit_index)
    c.send(HeartbeatResponse(c.id, m.source, c.current_term, m.ctx))


def on_install_snapshot(c: Consensus, m: InstallSnapshot) -> None:
    c.heard_from_leader(m.source)
    position, snapshot_membership = m.snapshot
    if position.index > c.log.commit_index:
        if c.log.has(*position):
            # Figure 13, rule 6: the log has what the snapshot stands for, and may go on after it.
            c.log.commit_to(position.index)
        else:
            # Rules 7 and 8: discard the entire log, take the snapshot's membership.
            c.log.restore(position)
            c.memberships.restore(position.index, snapshot_membership)
            c.install(m.snapshot)
    _accept(c, m.source, c.log.commit_index)


def _accept(c: Consensus, leader: int, index: int) -> None:
    c.send_after_persist(AppendEntriesResponse(c.id, leader, c.current_term, True, index))
