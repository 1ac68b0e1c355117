"""Kvorum: a strongly consistent store for configuration and service discovery that speaks etcd v3.

Importing this imports nothing of the server (``raft``, ``kvstate``, ``watch``, ``api``): an
application may have packages of those names itself.
"""

__version__ = "0.1.0"
