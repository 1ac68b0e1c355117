"""Silent connections: probed as the client is told to."""

from __future__ import annotations

import socket

import pytest

from kvorum import Keepalive
from kvorum.connections import probe_when_idle
from tests.common.servers import Server
from tests.kvorum.clients import MakeClient

OPTIONS = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


@pytest.mark.parametrize(
    ("keepalive", "expected"),
    [
        (Keepalive(), (10, 5, 3)),
        (Keepalive(2.0, 6.0), (2, 2, 3)),
        (Keepalive(0.1, 0.1), (1, 1, 3)),
        (Keepalive(1e9, 1e9), (32_767, 32_767, 3)),
    ],
)
def test_a_socket_is_probed_in_whole_seconds(keepalive: Keepalive, expected: tuple[int, int, int]) -> None:
    """So many of silence, then three probes in the time that there is."""
    with socket.socket() as sock:
        probe_when_idle(sock, keepalive)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert tuple(sock.getsockopt(socket.IPPROTO_TCP, option) for option in OPTIONS) == expected


def test_a_client_s_connections_are_probed_as_it_is_told(
    kvorum_server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of both shells."""
    given = []
    for shell in ("sync", "async"):
        monkeypatch.setattr(f"kvorum.http_{shell}.probe_when_idle", lambda sock, one: given.append(one))
    with make_client(kvorum_server.url, keepalive=Keepalive(2.0, 6.0)) as client:
        client.get("a")
    assert given == [Keepalive(2.0, 6.0)]
