"""Reading page by page: where each page begins, as of when, and how large it is."""

from __future__ import annotations

import json
from typing import Any

from kvorum.messages import b64, unb64
from kvorum.operations import LARGEST_PAGE_KEYS, SMALL_PAGE_BYTES, Pages
from tests.kvorum.fake_effects import Stage, answer


def page(*keys: str, more: bool, value: bytes = b"") -> Any:
    kvs = [{"key": b64(key.encode()), "value": b64(value)} for key in keys]
    return answer(header={"revision": "7"}, kvs=kvs, more=more)


def requests(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in stage.exchanges("/v3/kv/range")]


def read_all(stage: Stage, pages: Pages) -> list[bytes]:
    found = []
    while not pages.is_at_end:
        found += [kv.key for kv in stage.run(pages.next_page())]
    return found


def test_each_page_begins_behind_the_one_before_at_the_revision_of_the_first() -> None:
    stage = Stage(page("p/a", "p/b", more=True), page("p/c", more=False))
    assert read_all(stage, Pages(stage.core, "p/", 2)) == [b"p/a", b"p/b", b"p/c"]
    first, second = requests(stage)
    assert (unb64(first["key"]), first.get("revision")) == (b"p/", None)
    assert (unb64(second["key"]), second["revision"]) == (b"p/b\0", "7")
    assert unb64(first["range_end"]) == unb64(second["range_end"]) == b"p0"


def test_small_pages_grow_to_a_bound() -> None:
    """The server counts all that lies behind a page: few pages are cheaper than many."""
    stage = Stage(*[page("p/a", more=True)] * 30, page("p/b", more=False))
    read_all(stage, Pages(stage.core, "p/", 1000))
    limits = [int(one["limit"]) for one in requests(stage)]
    assert limits[:4] == [1000, 2000, 4000, 8000]
    assert limits[-1] == LARGEST_PAGE_KEYS


def test_pages_of_large_values_do_not_grow() -> None:
    stage = Stage(page("p/a", more=True, value=bytes(SMALL_PAGE_BYTES)), page("p/b", more=False))
    read_all(stage, Pages(stage.core, "p/", 1000))
    assert [one["limit"] for one in requests(stage)] == ["1000", "1000"]
