"""Arguments, keys and values as text that may hold bytes that are none, as ``sys.argv`` does."""

from __future__ import annotations


def to_bytes(text: str) -> bytes:
    """An argument as the bytes it was typed as; what ``to_text`` was given."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """All of it, whatever its bytes are."""
    return data.decode("utf-8", "surrogateescape")


def is_text(text: str) -> bool:
    """Whether its bytes are UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:  # other bytes are surrogates
        return False
    return True
