"""Who is let in, who is refused, and what both sides hear."""

from __future__ import annotations

import pytest

from raft.handshake import CLUSTER, PROTOCOL, REASON, REFUSED, SENDER, Identity, Reason, Refused, accept

US = Identity(0xC1, 1, ("http://one:2380",))
THEM = Identity(0xC1, 2, ("http://two:2380", "http://two:2381"))


def admitted(headers: dict[str, str], *, removed: int = 9, started: int = 9) -> int:
    return accept(headers, US, frozenset({removed}), lambda member: member == started).member_id


def test_a_member_of_the_cluster_is_let_in() -> None:
    """And it is known where it is reached."""
    sender = accept(THEM.headers(1), US, frozenset(), lambda _: False)
    assert (sender.member_id, sender.peer_urls) == (2, THEM.peer_urls)


@pytest.mark.parametrize(
    ("headers", "reason", "said"),
    [
        ({}, Reason.NOT_A_MEMBER, "does not say which member"),
        ({**THEM.headers(1), SENDER: "no number"}, Reason.NOT_A_MEMBER, "does not say which member"),
        ({**THEM.headers(1), PROTOCOL: "7"}, Reason.PROTOCOL, "member 2 speaks 7, member 1 speaks 2"),
        (
            {**THEM.headers(1), CLUSTER: "c2"},
            Reason.CLUSTER,
            "member 2 is of cluster c2, member 1 of cluster c1",
        ),
        (THEM.headers(3), Reason.OTHER_MEMBER, "this is member 1, not member 3"),
        (US.headers(1), Reason.SAME_MEMBER, "both ends of the connection are member 1"),
    ],
)
def test_strangers_are_refused(headers: dict[str, str], reason: Reason, said: str) -> None:
    """Both sides hear why: the error here, the headers of the answer there."""
    with pytest.raises(Refused, match=said) as refused:
        admitted(headers)
    assert refused.value.reason is reason
    assert refused.value.headers() == {REFUSED: str(refused.value), REASON: reason.value}


def test_who_was_removed_is_refused() -> None:
    """For good."""
    with pytest.raises(Refused, match="permanently removed") as refused:
        admitted(THEM.headers(1), removed=2)
    assert refused.value.reason is Reason.REMOVED


def test_who_has_lost_its_log_is_refused() -> None:
    """Who has taken part and comes with an empty log has forgotten votes and entries that others count on;
    who is new, or has its log, is welcome."""
    with pytest.raises(Refused, match="empty log: it has forgotten what it promised") as refused:
        admitted(THEM.headers(1, log_is_empty=True), started=2)
    assert refused.value.reason is Reason.FORGETFUL
    assert admitted(THEM.headers(1, log_is_empty=True)) == 2
    assert admitted(THEM.headers(1), started=2) == 2
