"""What templates can ask for, and what they say when they cannot be rendered."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kvorum.rendering.ranges import of_key, of_prefix
from kvorum.rendering.snapshot import Reads, Snapshot
from kvorum.rendering.templates import Template, TemplateFailed, nested
from kvorum.txn import Operation
from kvorum.types import KeyValue, RangeResult, TxnResult

KEYS = {
    "/app/name": "shop",
    "/app/db/host": "db1",
    "/app/db/port": "5432",
    "/app/list": '["a", {"b": 1}]',
    "/app/secret": "aGVsbG8=",
    "/apple": "x",
    "/services/web/a": '{"Op":0,"Addr":"h:1","Metadata":"{\\"v\\":\\"2\\"}"}',
    "/services/web/b": '{"Op":0,"Addr":"h:2","Metadata":{"v":""}}',
    "/services/web/c": "no record",
}


class Store:
    """A client's reads, of a dict."""

    def __init__(self, content: dict[bytes, bytes]) -> None:
        self.content = content
        self.asked = 0
        self.revision = 7

    def transact(
        self, compares: Sequence[Any], then: Sequence[Operation[Any]], *, idempotent: bool = False
    ) -> TxnResult:
        assert idempotent
        self.asked += 1
        requests = [one.message()["request_range"] for one in then]
        assert {int(one.get("revision", 0)) for one in requests} <= {0, 7}
        names = [b64decode(one["key"]) for one in requests]
        found = [[KeyValue(n, self.content[n], 1, 1, 1, 0)] if n in self.content else [] for n in names]
        return TxnResult(True, 7, tuple(RangeResult(tuple(kvs), len(kvs), False, 7) for kvs in found))

    def range(
        self, key: bytes, range_end: bytes | None = None, *, limit: int = 0, revision: int = 0
    ) -> RangeResult:
        assert revision in (0, 7), "all reads are of one revision"
        self.asked += 1
        assert range_end is not None
        found = sorted(name for name in self.content if key <= name < range_end)
        self.revision += 1  # others write meanwhile
        kvs = tuple(KeyValue(name, self.content[name], 1, 1, 1, 0) for name in found[:limit])
        return RangeResult(kvs, len(found), len(found) > limit, revision or self.revision - 1)


def rendered(folder: Path, text: str, content: dict[str, str] | None = None) -> str:
    (folder / "t.j2").write_text(text)
    store = Store({key.encode(): value.encode() for key, value in (content or KEYS).items()})
    return Template(folder / "t.j2").render(Reads(Snapshot(store)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{{ get("/app/name") }}', "shop"),
        ('{{ get("/app/nope", "none") }}', "none"),
        ('{{ get("/app/nope") | default("none") }}', "none"),
        ('{{ get("/app/nope") is defined }}', "False"),
        ('{{ exists("/app/name") }} {{ exists("/app") }}', "True False"),
        ('{{ ls("/app") | join(" ") }}', "db list name secret"),
        ('{{ ls("") | join(" ") }}', ""),
        ('{% for key, value in items("/app/db") %}{{ key }}={{ value }};{% endfor %}', None),
        ('{% for one in items("/app/db/") %}{{ one.name }};{% endfor %}', "host;port;"),
        ('{{ tree("/app").db.port }}', "5432"),
        ('{{ tree("/app/db") }}', "{'host': 'db1', 'port': '5432'}"),
        ('{{ (get("/app/list") | from_json)[1].b + 1 }}', "2"),
        ('{{ {"a": "ü"} | to_json }}', '{"a": "ü"}'),
        ('{{ ("a: [1, 2]" | from_yaml).a[1] }}', "2"),
        ('{{ {"a": [1]} | to_yaml }}', "a:\n- 1\n"),
        ('{{ get("/app/secret") | b64decode }} {{ "hello" | b64encode }}', "hello aGVsbG8="),
        ("{% if true %}\nx\n{% endif %}\ny\n", "x\ny\n"),
        ('{% for one in services("web") %}{{ one.addr }} {{ one.metadata.v }};{% endfor %}', "h:1 2;h:2 ;"),
        ('{{ services("none") }}', "[]"),
        ('{{ env("NO_SUCH", "unset") }}', "unset"),
    ],
)
def test_templates_ask_the_store(tmp_path: Path, text: str, expected: str | None) -> None:
    """Each function, and each filter that is not Jinja2's own."""
    expected = "/app/db/host=db1;/app/db/port=5432;" if expected is None else expected
    assert rendered(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('a\n{{ get("/app/nope") }}', "t.j2, line 2: there is no key '/app/nope'"),
        ('{{ get("/app/nope") + "x" }}', "t.j2, line 1: there is no key '/app/nope'"),
        ('{{ services("a/b") }}', "t.j2, line 1: the service name 'a/b' is wrong: expected 1 to 63 letters"),
        ("{{ nope }}", "t.j2, line 1: 'nope' is undefined"),
        ("a\nb\n{% if %}", "t.j2, line 3: Expected an expression, got 'end of statement block'"),
        ("\n{{ 1 / 0 }}", "t.j2, line 2: ZeroDivisionError('division by zero')"),
        ('{{ get("/app/name") | from_json }}', "t.j2, line 1: from_json: Expecting value: line 1 column 1"),
        ("{{ get(5) }}", "t.j2, line 1: a key is text, not 5"),
        (
            "{{ ''.__class__.__mro__ }}",
            "t.j2, line 1: access to attribute '__class__' of 'str' object is unsafe",
        ),
        ('{{ env("NO_SUCH") }}', "t.j2, line 1: there is no variable 'NO_SUCH' in the environment"),
        ('{% include "other.j2" %}', "t.j2, line 1: 'other.j2' not found in search path"),
    ],
)
def test_a_complaint_names_the_template_and_the_line(tmp_path: Path, text: str, complaint: str) -> None:
    """And the reason; nothing of our own program is in it."""
    with pytest.raises(TemplateFailed) as failure:
        rendered(tmp_path, text)
    assert str(failure.value).startswith(f"{tmp_path}/{complaint}")


def test_a_complaint_names_the_included_file(tmp_path: Path) -> None:
    """Where the error is in that one."""
    (tmp_path / "part.j2").write_text('\n\n{{ get("/x") }}')
    with pytest.raises(TemplateFailed, match=r"part\.j2, line 3: there is no key '/x'"):
        rendered(tmp_path, '{% include "part.j2" %}')


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    """Rather than written as something else."""
    (tmp_path / "t.j2").write_text('{{ get("k") }}')
    with pytest.raises(TemplateFailed, match=r"the value of 'k' is no UTF-8 text: b'\\xff'"):
        Template(tmp_path / "t.j2").render(Reads(Snapshot(Store({b"k": b"\xff"}))))


def test_macros_and_includes_ask_too(tmp_path: Path) -> None:
    """With the same functions, also when they are imported without context."""
    (tmp_path / "m.j2").write_text('{% macro host(name) %}{{ get("/app/" ~ name ~ "/host") }}{% endmacro %}')
    assert rendered(tmp_path, '{% import "m.j2" as m %}{{ m.host("db") }}') == "db1"


def test_all_that_was_read_is_known_also_of_a_template_that_fails(tmp_path: Path) -> None:
    """So that it is rendered again once the key that was missing is there."""
    (tmp_path / "t.j2").write_text('{{ get("/app/name") }}{% set x = ls("/app/db") %}{{ get("/nope") }}')
    reads = Reads(Snapshot(Store({b"/app/name": b"shop"})))
    with pytest.raises(TemplateFailed):
        Template(tmp_path / "t.j2").render(reads)
    assert reads.ranges == {of_key(b"/app/name"), of_prefix(b"/app/db/"), of_key(b"/nope")}


def test_reads_are_of_one_revision_and_made_once() -> None:
    """However many keys there are below a prefix, and however often they are asked for."""
    store = Store({b"p/%05d" % number: b"" for number in range(2500)})
    snapshot = Snapshot(store)
    for _ in range(2):
        assert len(Reads(snapshot).below(b"p/")) == 2500
        assert Reads(snapshot).key(b"q") is None
    assert store.asked == 4
    assert snapshot.revision == 7


def test_what_was_read_the_last_time_is_read_by_the_dozen() -> None:
    """A hundred keys by two requests, those that are missing too; and the same as one by one."""
    store = Store({b"%03d" % number: b"x" for number in range(0, 100, 2)})
    snapshot = Snapshot(store)
    keys = [b"%03d" % number for number in range(100)]
    snapshot.expect([of_key(key) for key in keys])
    found = [snapshot.key(key) for key in keys]
    assert store.asked == 2
    assert [one is not None for one in found] == [key in store.content for key in keys]
    assert [one.key for one in found if one] == sorted(store.content)


def test_a_key_that_is_a_folder_too_keeps_its_value() -> None:
    """Whichever comes first."""
    assert nested([("a", "1"), ("a/b", "2")]) == {"a": {"": "1", "b": "2"}}
    assert nested([("a/b", "2"), ("a", "1")]) == {"a": {"b": "2", "": "1"}}
