"""How messages reach the peers.

There is one transport yet: that of a cluster of one, which has nobody to talk to. The
one over WebSockets comes with clusters of three.
"""

from __future__ import annotations

from collections.abc import Sequence

from raft.core.messages import Message


class NoPeers:
    """The transport of a sole member."""

    def send(self, messages: Sequence[Message]) -> None:
        """A sole voter sends nothing: whatever comes here is a broken invariant."""
        raise AssertionError(f"a cluster of one has no peers, but these messages were sent: {messages}")
