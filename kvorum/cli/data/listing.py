"""One level of a prefix, as a directory has it: without reading what lies deeper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from kvorum.cli.data.reading import at_one_revision
from kvorum.messages import prefix_end
from kvorum.types import KeyValue

if TYPE_CHECKING:
    from kvorum.client import Client

_FIRST_PAGE = 100
_PAGE_MIN, _PAGE_MAX = 10, 1_000
_FIRST_NAME = re.compile(rb"/*[^/]*/?")


@dataclass(frozen=True)
class Entry:
    """A key, or a directory: then ``path`` ends in a slash, and ``kvs`` are the keys in it that were read."""

    path: bytes
    is_directory: bool
    kvs: tuple[KeyValue, ...]


def entries(kvs: Iterable[KeyValue], prefix: bytes) -> Iterator[Entry]:
    """Of keys under a prefix, in their order."""
    for path, group in groupby(kvs, lambda kv: _entry_path(kv.key, prefix)):
        yield Entry(path, path != prefix and path.endswith(b"/"), tuple(group))


def _entry_path(key: bytes, prefix: bytes) -> bytes:
    """Slashes at the beginning belong to the first name; what ends in a slash is a key of that directory."""
    match = _FIRST_NAME.match(key, len(prefix))
    assert match is not None
    return prefix + match[0]


def level(client: Client, prefix: bytes, revision: int = 0) -> list[Entry]:
    """All entries, with keys only. A directory costs a page at most, however much it holds."""
    return at_one_revision(lambda: _level(client, prefix, revision), revision)


def _level(client: Client, prefix: bytes, revision: int) -> list[Entry]:
    found: list[Entry] = []
    limit = _FIRST_PAGE
    start, end = prefix or b"\0", prefix_end(prefix)
    while True:
        page = client.range(start, end, limit=limit, revision=revision, keys_only=True)
        revision = revision or page.revision
        here = list(entries(page.kvs, prefix))
        for entry in here:
            if not found or found[-1].path != entry.path:
                found.append(entry)
        if not page.more:
            return found
        last = found[-1]
        start = prefix_end(last.path) if last.is_directory else last.path + b"\0"
        # Of directories a few keys each tell enough; where there are only keys, all are needed.
        limit = max(_PAGE_MIN, min(_PAGE_MAX, _PAGE_MIN * len(here)))
