"""What is asked of the list of services: the plans. With servers: test_client.py."""

from __future__ import annotations

from kvorum.messages import b64
from kvorum.plans import Reply
from kvorum.services import asking
from tests.kvorum.fake_effects import Stage, answer, refusal


def page(key: str, *, more: bool) -> Reply:
    kv = {"key": b64(key.encode()), "value": b64(b'{"Addr":"h:1"}'), "mod_revision": "1"}
    return answer(header={"revision": "5"}, kvs=[kv], more=more, count="2")


def test_a_list_whose_beginning_is_history_before_its_end_is_read_is_read_anew() -> None:
    """All of it is as of one moment, or two services that have changed places would be missed."""
    compacted = refusal("etcdserver: mvcc: required revision has been compacted", 11, 400)
    first, second = page("/services/web/1", more=True), page("/services/web/2", more=False)
    stage = Stage(first, compacted, first, second)
    assert [one.id for one in stage.run(asking.resolve(stage.core, "web"))] == ["1", "2"]
