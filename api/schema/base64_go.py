"""Base64: as it comes in, by Go's rules and with its words for what breaks them; and as it goes out."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from api.errors import BadRequest

_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def encode(data: bytes) -> bytes:
    """Standard, padded, in one line."""
    return b2a_base64(data, newline=False)


def decode(text: str) -> bytes:
    """Standard or URL-safe, padded or not; line breaks are passed over. Raises BadRequest."""
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        return _decode_unusual(text.encode("utf-8", "surrogatepass"))


def _decode_unusual(data: bytes) -> bytes:
    cleaned = data.replace(b"\r", b"").replace(b"\n", b"").translate(_FROM_URL_SAFE)
    bare = cleaned.rstrip(b"=")
    # With padding it must be complete; without, it is completed here.
    padded = cleaned if bare != cleaned else bare + b"=" * (-len(bare) % 4)
    try:
        return a2b_base64(padded, strict_mode=True)
    except ValueError:
        pass
    is_complete = len(bare) % 4 > 1 and padded == bare + b"=" * (-len(bare) % 4)
    if bare != cleaned and is_complete and not set(bare) - _ALPHABET:
        return a2b_base64(padded)  # bits behind the end that are not zero: Go does not mind
    raise BadRequest(f"illegal base64 data at input byte {_offset(data)}")


def _offset(data: bytes) -> int:
    """Where Go's decoder says that the data is illegal."""
    position = 0
    while True:
        for place in range(4):
            while position < len(data) and data[position] in b"\r\n":
                position += 1
            if position == len(data):
                return position - place
            byte = data[position]
            position += 1
            if byte in _ALPHABET:
                continue
            if byte != ord("=") or place < 2:
                return position - 1
            return _padding_offset(data, position, place)


def _padding_offset(data: bytes, position: int, place: int) -> int:
    if place == 2:
        while position < len(data) and data[position] in b"\r\n":
            position += 1
        if position == len(data) or data[position] != ord("="):
            return min(position, len(data))
        position += 1
    return position
