"""What can go wrong between a client and a server.

KvorumError
├── ConnectionFailed        no answer came
├── ServerError             the server refused; ``message`` is its text, ``code`` the gRPC code
│   ├── Compacted           the revision is gone; ``compact_revision`` is the oldest there is, 0 if not told
│   ├── FutureRevision      the revision is not there yet
│   ├── LeaseNotFound
│   ├── LeaseExists
│   ├── AuthenticationFailed    the user or the password is wrong
│   ├── InvalidToken        the token is not known (any more), or the users have changed since it was made
│   ├── PermissionDenied
│   └── Unavailable         no leader, overloaded, or no answer in time
└── LeaseLost               what hung on the lease may be somebody else's by now

``maybe_done`` tells whether the request may have been carried out: where it is true of a write, look before
it is sent again.
"""

from __future__ import annotations

import re


class KvorumError(Exception):
    """Base of all errors of this package."""

    maybe_done = False


class ConnectionFailed(KvorumError):
    def __init__(self, message: str, *, maybe_done: bool = True) -> None:  # pickle gives the message only
        super().__init__(message)
        self.maybe_done = maybe_done


class ServerError(KvorumError):
    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Compacted(ServerError):
    def __init__(self, message: str, code: int = 11, compact_revision: int = 0) -> None:
        super().__init__(message, code)
        self.compact_revision = compact_revision


class FutureRevision(ServerError):
    pass


class LeaseNotFound(ServerError):
    pass


class LeaseExists(ServerError):
    pass


class AuthenticationFailed(ServerError):
    pass


class InvalidToken(ServerError):
    pass


class PermissionDenied(ServerError):
    pass


class Unavailable(ServerError):
    pass


class LeaseLost(KvorumError):
    pass


def is_unknown_path(error: ServerError) -> bool:
    """Whether the server has nothing at the path it was asked at: what it speaks is older, or less."""
    is_said = error.code == _CODES["NotFound"] and error.message == "Not Found"  # by gateways since etcd 3.6
    return is_said or error.message.startswith("the server answered 404 ")


_BY_TEXT: tuple[tuple[str, type[ServerError]], ...] = (
    ("required revision has been compacted", Compacted),
    ("required revision is a future revision", FutureRevision),
    ("requested lease not found", LeaseNotFound),
    ("lease already exists", LeaseExists),
    ("authentication failed", AuthenticationFailed),
    ("invalid auth token", InvalidToken),
    ("revision of auth store is old", InvalidToken),
    ("permission denied", PermissionDenied),
    ("too many requests", Unavailable),
)
_CODES = {
    name: code
    for code, name in enumerate(
        (
            *(
                "OK",
                "Canceled",
                "Unknown",
                "InvalidArgument",
                "DeadlineExceeded",
                "NotFound",
                "AlreadyExists",
            ),
            *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange"),
            *("Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated"),
        )
    )
}
UNKNOWN, UNAVAILABLE = _CODES["Unknown"], _CODES["Unavailable"]
_TELL_NOTHING = {
    UNKNOWN,
    UNAVAILABLE,
    *(_CODES[name] for name in ("Canceled", "DeadlineExceeded", "Internal")),
}
# Said before the request is passed on to anybody.
_NOT_DONE = (
    "no leader",
    "too many requests",
    "not capable",
    "unhealthy cluster",
    "rpc not supported for learner",
    "proposal dropped",
)
# etcd carries out the write that crosses the quota before it says so.
_DONE_ALL_THE_SAME = "database space exceeded"
_WRAPPED = re.compile(r"rpc error: code = (\w+) desc = ")


def server_error(message: str, code: int = UNKNOWN) -> ServerError:
    """The refusal as the class that fits it. Where another one is wrapped in the text, its code counts."""
    if wrapped := _WRAPPED.match(message):
        code = _CODES.get(wrapped[1], code)
    text = _WRAPPED.sub("", message)
    for part, kind in _BY_TEXT:
        if part in text:
            error = kind(text, code)
            break
    else:
        error = (Unavailable if code == UNAVAILABLE else ServerError)(text, code)
    is_refusal = code not in _TELL_NOTHING and _DONE_ALL_THE_SAME not in text
    error.maybe_done = not is_refusal and not any(part in text for part in _NOT_DONE)
    return error
