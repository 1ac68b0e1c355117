"""Whom a node sends to, and whom it turns away, while members change."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from api.bootstrap import Origin
from api.config import ServerConfig
from api.peers import Peers
from api.roster import Details, Roster, removed_from
from kvstate.snapshot import StateDirectory
from raft.core.types import Membership
from raft.handshake import Reason

ROSTER = Roster({member: Details(f"n{member}", (f"http://127.0.0.1:{member}",)) for member in (1, 2, 3)})
BEFORE = Membership(frozenset({1, 2, 3}), context=ROSTER.pack())
JOINT = Membership(frozenset({1, 2}), frozenset(), BEFORE.voters, ROSTER.without(3).pack())


def test_who_is_being_removed_is_a_member_until_that_is_final() -> None:
    """As long as the membership is joint its vote counts; so it is not turned away, nor stops."""
    assert removed_from(JOINT) == frozenset()
    assert removed_from(JOINT.left()) == {3}


async def test_who_is_being_removed_is_reached_until_that_is_final(tmp_path: Path) -> None:
    """Its address is in the roster no more, but is known; behind the end it is reached for a moment."""
    config = ServerConfig(data_dir=tmp_path)
    peers = Peers(config, Origin(1, 1, BEFORE, {}), StateDirectory(tmp_path / "state"), lambda error: None)
    try:
        peers.membership_changed(BEFORE)
        peers.membership_changed(JOINT)
        assert peers.transport.links.keys() == {2, 3}
        assert not peers._departing
        peers.membership_changed(JOINT.left())
        assert peers.transport.links.keys() == {2, 3}
        assert peers._departing.keys() == {3}
        peers._depart(3)
        assert peers.transport.links.keys() == {2}
    finally:
        await peers.close()


@pytest.mark.parametrize(("last_index", "failures"), [(0, 1), (3, 0)])
async def test_a_refusal_for_an_empty_log_counts_as_long_as_it_is_empty(
    tmp_path: Path, last_index: int, failures: int
) -> None:
    """On a first start the other may hear that this node takes part before it answers the call that this
    node made with an empty log: then there is nothing to end over."""
    failed: list[BaseException] = []
    origin = Origin(1, 1, BEFORE, {})
    peers = Peers(ServerConfig(data_dir=tmp_path), origin, StateDirectory(tmp_path / "state"), failed.append)
    try:
        peers._driver = SimpleNamespace(core=SimpleNamespace(last_index=last_index))  # type: ignore[assignment]
        peers._refused(2, Reason.FORGETFUL, "member 1 comes back with an empty log")
        assert len(failed) == failures
    finally:
        await peers.close()
