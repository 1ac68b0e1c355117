"""Every kind of failure has its answer."""

from __future__ import annotations

import pytest

from api.errors import KINDS
from kvstate import errors as kv
from raft import errors as raft


@pytest.mark.parametrize("name", raft.__all__)
def test_every_failure_of_consensus_is_told(name: str) -> None:
    """What the driver can raise is in the table, or a client would read of an internal error."""
    assert getattr(raft, name) in KINDS


def test_every_refusal_of_the_state_is_told() -> None:
    """What the state machine can answer is in the table."""
    assert set(kv.RequestError.__subclasses__()) <= KINDS.keys()
