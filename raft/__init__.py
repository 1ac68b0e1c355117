"""Raft: a log that several servers agree on, and the disk that keeps each one's promises.

``core`` decides, without I/O: values in, one ``Ready`` out. ``wal`` keeps what was promised,
``driver`` runs the two with a state machine and a transport, in an order that lets nothing
leave before it may. ``proposals`` matches answers with who waits for them.

``restart`` says what a server begins with after a crash.

``transport``, ``link`` and ``peer_server`` are the way to the others, ``handshake`` says who is let in,
``stream`` and ``codec`` what travels; ``snapshot_transfer`` brings the state to who lags too far behind. What
waits for a leader is in ``outgoing`` and ``barriers``.

This package knows bytes and peers, never keys or HTTP. What it does not do yet is listed in
``DESIGN.md``.
"""
