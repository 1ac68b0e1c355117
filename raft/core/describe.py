"""The one text form of what consensus is made of: in scripts, traces and logs alike.

    n1@2 → n2 AppendEntries base=3@1 [4@2 5@2] commit=3
    n1 → n2 RequestPreVote for term 3, last=5@2
    n2@2 follower of n1, log 1..5, commit 4, applied 4, members 1,2,4 & 1,2,3 learners=5

A member is ``n1``; ``n1@2`` is member 1 in term 2. A log position is ``index@term``. The term of a
pre-vote is only one that may come, so it never stands beside the name of a member. Of two
halves of a joint membership the new one stands first. What is random, such as a server's
``life``, is never printed: the same run has the same text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, assert_never

from raft.core.membership import decode
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
from raft.core.types import NO_MEMBER, Entry, EntryType, Membership, Position, Role, SnapshotMeta

if TYPE_CHECKING:
    from raft.core.consensus import Consensus

DATA_SHOWN_MAX = 24
"""Longer data is shown by its beginning and its size."""


def describe(message: Message) -> str:
    """One line for one message."""
    return f"{_way(message)} {type(message).__name__}{_content(message)}"


def _way(message: Message) -> str:
    match message:
        case RequestPreVote() | RequestPreVoteResponse(vote_granted=True):
            source = f"n{message.source}"
        case _:
            source = describe_member(message.source, message.term)
    return f"{source} → n{message.target}"


def _content(message: Message) -> str:
    match message:
        case RequestPreVote(term=term, last_log_index=index, last_log_term=last_term):
            return f" for term {term}, last={Position(index, last_term)}"
        case RequestPreVoteResponse(term=term, vote_granted=granted):
            return f" granted for term {term}" if granted else " refused"
        case RequestVote(last_log_index=index, last_log_term=last_term, leadership_transfer=transfer):
            return f" last={Position(index, last_term)}{' transfer' if transfer else ''}"
        case RequestVoteResponse(vote_granted=granted):
            return " granted" if granted else " refused"
        case AppendEntries(prev_log_index=index, prev_log_term=term, entries=entries, leader_commit=commit):
            return f" base={Position(index, term)} {describe_entries(entries)} commit={commit}"
        case AppendEntriesResponse(success=True, index=index):
            return f" match={index}"
        case AppendEntriesResponse(index=index, hint_index=hint_index, hint_term=hint_term):
            return f" refused base={index} hint={Position(hint_index, hint_term)}"
        case Heartbeat(commit_index=commit, ctx=ctx):
            return f" commit={commit}{_round(ctx)}"
        case HeartbeatResponse(ctx=ctx):
            return _round(ctx)
        case InstallSnapshot(snapshot=snapshot):
            return f" {describe_snapshot(snapshot)}"
        case TimeoutNow():
            return ""
        case Propose(ctx=ctx, data=data):
            return f" ctx={ctx} [{' '.join(map(describe_data, data))}]"
        case ProposeRefused(ctx=ctx) | RequestReadIndex(ctx=ctx):
            return f" ctx={ctx}"
        case ReadIndexResponse(ctx=ctx, index=None):
            return f" ctx={ctx} refused"
        case ReadIndexResponse(ctx=ctx, index=index):
            return f" ctx={ctx} index={index}"
        case _:
            assert_never(message)


def _round(ctx: int) -> str:
    return f" round={ctx}" if ctx else ""


def describe_member(member: int, term: int) -> str:
    return f"n{member}@{term}"


def describe_data(data: bytes) -> str:
    text = data.decode("utf-8", "backslashreplace")
    if len(text) <= DATA_SHOWN_MAX:
        return text
    return f"{text[: DATA_SHOWN_MAX // 2]}…({len(data)} bytes)"


def describe_position(entry: Entry) -> str:
    """Where an entry stands; of one that changes the members, also to what."""
    position = str(Position(entry.index, entry.term))
    if entry.type is EntryType.MEMBERSHIP:
        return f"{position}({describe_membership(decode(entry.data))})"
    return position


def describe_entries(entries: Iterable[Entry]) -> str:
    return f"[{' '.join(map(describe_position, entries))}]"


def describe_entry(entry: Entry) -> str:
    """An entry with its data; a new leader's first entry has none."""
    position = describe_position(entry)
    if entry.type is EntryType.MEMBERSHIP or not entry.data:
        return position
    return f"{position} {describe_data(entry.data)}"


def describe_membership(membership: Membership) -> str:
    """``1,2,4 & 1,2,3 learners=5``: new voters, the outgoing half while it is joint, learners."""
    text = _ids(membership.voters) or "nobody"
    if membership.voters_outgoing:
        text += f" & {_ids(membership.voters_outgoing)}"
    if membership.learners:
        text += f" learners={_ids(membership.learners)}"
    return text


def _ids(members: Iterable[int]) -> str:
    return ",".join(map(str, sorted(members)))


def describe_snapshot(snapshot: SnapshotMeta) -> str:
    return f"{snapshot.position} voters={describe_membership(snapshot.membership)}"


def describe_role(core: Consensus) -> str:
    """``n2@3 follower of n1``."""
    text = f"{describe_member(core.id, core.current_term)} {core.role.value}"
    if core.role is not Role.LEADER and core.leader_id != NO_MEMBER:
        text += f" of n{core.leader_id}"
    return text


def describe_status(core: Consensus) -> str:
    """One line: role, log, how far it is committed and applied, members."""
    log = core.log
    held = f"{log.first_index}..{log.last_index}" if log.first_index <= log.last_index else "empty"
    return (
        f"{describe_role(core)}, log {held},"
        f" commit {log.commit_index}, applied {log.last_applied},"
        f" members {describe_membership(core.membership)}"
    )


def describe_progress(core: Consensus) -> list[str]:
    """One line for each follower, as its leader sees it."""
    lines = []
    for peer in core.peers:
        progress = core.progress[peer]
        line = f"n{peer}: {progress.state.value} match={progress.match_index} next={progress.next_index}"
        if progress.inflight:
            line += f" inflight={progress.inflight} ({progress.inflight_bytes} bytes)"
        if progress.paused:
            line += " paused"
        if not progress.recently_active:
            line += " not heard of"
        lines.append(line)
    return lines


def describe_log(core: Consensus) -> str:
    """All entries; those after the bar are not durable yet. A compacted log begins with the position
    before its first entry, in parentheses."""
    log = core.log
    base = log.first_index - 1
    words = [f"({Position(base, log.term(base))})"] if base else []
    for entry in log.entries(log.first_index, log.last_index + 1):
        if entry.index == log.durable_index + 1:
            words.append("|")
        words.append(describe_position(entry))
    return " ".join(words) or "empty"


def describe_ready(ready: Ready) -> str:
    """One line for what is to be done; the messages themselves have lines of their own."""
    parts = []
    if ready.snapshot is not None:
        parts.append(f"install {describe_snapshot(ready.snapshot)}")
    if ready.hard_state is not None:
        term, vote, commit = ready.hard_state
        parts.append(f"term={term} vote={f'n{vote}' if vote else 'nobody'} commit={commit}")
    if ready.entries:
        parts.append(f"write {describe_entries(ready.entries)}")
    if ready.messages:
        parts.append(f"send {len(ready.messages)}")
    if ready.messages_after_persist:
        parts.append(f"then send {len(ready.messages_after_persist)}")
    if ready.committed_entries:
        parts.append(f"apply {describe_entries(ready.committed_entries)}")
    parts += [f"read {ctx}: index {index}" for ctx, index in ready.read_states]
    parts += [f"read {ctx}: refused" for ctx in ready.refused_reads]
    parts += [f"proposal {ctx}: refused" for ctx in ready.refused_proposals]
    return f"Ready{' (sync)' if ready.must_sync else ''}: {', '.join(parts) or 'nothing'}"
