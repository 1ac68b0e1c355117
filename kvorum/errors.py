"""What can go wrong between a client and a server.

KvorumError
├── ServerError        the server refused; ``message`` is its text, ``code`` the gRPC code
└── ConnectionFailed   no answer came; ``maybe_done`` tells whether the request may have been carried out
"""

from __future__ import annotations


class KvorumError(Exception):
    """Base of all errors of this package."""


class ServerError(KvorumError):
    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ConnectionFailed(KvorumError):
    def __init__(self, message: str, *, maybe_done: bool) -> None:
        super().__init__(message)
        self.maybe_done = maybe_done
