"""From JSON to a verdict: what a server that lies would say is decoded, put together and rejected.

``tests/sim/test_linearizability.py`` tests the judges themselves. Here the lies are told in etcd's JSON,
as they would come from a socket, so that nothing is lost on the way from there to the judges.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from kvstate.commands import Compact, Compare, CompareResult, CompareTarget, DeleteRange, Put, Range, Txn
from kvstate.errors import Compacted, FutureRevision
from kvstate.types import EventType, KeyValue
from tests.sim.history import Operation, Outcome
from tests.sim.model import BadHistory
from tests.soak.evidence import EVERYTHING
from tests.soak.story import Json, Story, b64, delete, kv, put
from tests.soak.wire import BadAnswer, decode, encode, encode_watch, note_answer, state_error
from watch.watcher import WatchCreate

A1, B1, A2, B_GONE = put("a", "a1", 2, 2, 1), put("b", "b1", 3, 3, 1), put("a", "a2", 2, 4, 2), delete("b", 5)
EVENTS = {2: A1, 3: B1, 4: A2, 5: B_GONE}


def told(skip: int = 0, nodes: tuple[int, ...] = (1, 2), **changed: Json) -> Story:
    """Four writes, acknowledged, and every node's watch; of node 2's one revision may be left out."""
    story = Story()
    for node in nodes:
        story.watch(node)
    story.ask(Put(b"a", b"a1"), 2)
    story.ask(Put(b"b", b"b1"), 3)
    story.ask(Put(b"a", b"a2", prev_kv=True), 4, prev_kv=kv("a", "a1", 2, 2, 1))
    story.ask(DeleteRange(b"b"), 5, deleted="1")
    for node in nodes:
        for revision, event in EVENTS.items():
            if not (node == 2 and revision == skip):
                story.hear(node, revision, changed.get(f"n{node}_{revision}", event))
    return story


def rejected(
    match: str, story: Callable[[], Story], finals: dict[int, tuple[int, int]] | None = None
) -> None:
    with pytest.raises(BadHistory, match=match):
        story().judge(finals)


def test_a_good_history_passes() -> None:
    """What a good store says is accepted, with hashes, reads, errors and a transaction in it."""
    story = told()
    story.ask(Range(b"a"), 5, kvs=[kv("a", "a2", 2, 4, 2)], count="1")
    story.ask(
        Range(*EVERYTHING, revision=3), 5, kvs=[kv("a", "a1", 2, 2, 1), kv("b", "b1", 3, 3, 1)], count="2"
    )
    unheld = Compare(CompareResult.EQUAL, CompareTarget.MOD, b"a", operand=2)
    inner = {"header": {"revision": "5"}, "kvs": [kv("a", "a2", 2, 4, 2)], "count": "1"}
    story.ask(Txn((unheld,), (Put(b"a", b"a3"),), (Range(b"a"),)), 5, responses=[{"response_range": inner}])
    compact = story.ask(Compact(3), 5)
    refused = story.begin(Range(b"a", revision=2))
    story.end(refused, 400, {"message": "etcdserver: mvcc: required revision has been compacted", "code": 11})
    assert (compact.outcome, refused.outcome) == (Outcome.OK, Outcome.ERROR)
    story.judge({1: (5, 77), 2: (5, 77)})


def test_a_lost_acknowledged_write_is_rejected() -> None:
    """A write acknowledged at a revision that nobody was ever told of is lost."""

    def story() -> Story:
        lost = told()
        lost.ask(Put(b"c", b"c1"), 6)
        return lost

    rejected("lost write", story)


def test_a_write_whose_revision_is_anothers_is_rejected() -> None:
    """Two writes cannot both be revision 4; the one whose value is not there is lost."""

    def story() -> Story:
        lost = Story()
        lost.watch(1)
        lost.ask(Put(b"a", b"a1"), 2)
        lost.ask(Put(b"a", b"x"), 3)
        other = lost.begin(Put(b"b", b"b1"))
        other.returned = lost.load.stamp()
        lost.hear(1, 2, A1)
        lost.hear(1, 3, B1)
        return lost

    rejected("lost write", story)


def test_a_stale_read_is_rejected() -> None:
    """A linearizable read may not be of a revision that was past when it was asked."""

    def story() -> Story:
        stale = told()
        stale.ask(Range(b"a"), 3, kvs=[kv("a", "a1", 2, 2, 1)], count="1")
        return stale

    rejected("stale", story)


def test_a_serializable_read_may_be_stale_but_not_wrong() -> None:
    """A serializable read is judged by the model at its own revision."""
    story = told()
    story.ask(Range(b"a", serializable=True), 3, kvs=[kv("a", "a1", 2, 2, 1)], count="1")
    story.judge()
    story.ask(Range(b"a", serializable=True), 3, kvs=[kv("a", "a2", 2, 4, 2)], count="1")
    with pytest.raises(BadHistory, match="wrong answer"):
        story.judge()


def test_a_doubled_write_is_rejected() -> None:
    """A request that was sent once took effect at two revisions."""

    def story() -> Story:
        doubled = told()
        operation = doubled.begin(Put(b"c", b"c1"))
        operation.returned = doubled.load.stamp()
        doubled.ask(Put(b"a", b"a3"), 7)
        for node in (1, 2):
            doubled.hear(node, 6, put("c", "c1", 6, 6, 1))
            doubled.hear(node, 7, A2 | {"kv": kv("a", "a3", 2, 7, 3)})
            doubled.hear(node, 8, put("c", "c1", 6, 8, 2))
        return doubled

    rejected("doubled write", story)


def test_a_refused_write_that_happened_is_rejected() -> None:
    """No connection was made, so the request was never sent, and yet it took effect."""

    def story() -> Story:
        refused = told()
        operation = refused.begin(Put(b"c", b"c1"))
        operation.outcome, operation.returned = Outcome.REFUSED, refused.load.stamp()
        for node in (1, 2):
            refused.hear(node, 6, put("c", "c1", 6, 6, 1))
        return refused

    rejected("refused write took effect", story)


def test_a_phantom_is_rejected() -> None:
    """A value that no client wrote."""

    def story() -> Story:
        phantom = told()
        for node in (1, 2):
            phantom.hear(node, 6, put("c", "never written", 6, 6, 1))
        return phantom

    rejected("phantom", story)


@pytest.mark.parametrize("revision", [2, 3, 4, 5])
def test_a_skipped_watch_event_is_rejected(revision: int) -> None:
    """One node's watch was never told of one revision."""
    rejected("gap|missing the end|everything up to", lambda: told(skip=revision))


def test_a_gap_between_two_streams_is_rejected() -> None:
    """A watch that starts anew at revision 3 is told of 5 first."""

    def story() -> Story:
        gap = told(nodes=(1,))
        gap.watch(2, start=3)
        gap.hear(2, 5, B_GONE)
        return gap

    rejected("gap", story)


def test_a_hole_that_no_watch_saw_is_rejected() -> None:
    """Every node skips the same revision."""

    def story() -> Story:
        hole = Story()
        hole.watch(1)
        hole.hear(1, 2, A1)
        hole.hear(1, 4, A2)
        return hole

    rejected("a hole in the revisions", story)


def test_nodes_that_disagree_are_rejected() -> None:
    """Two nodes tell different things of one revision: rejected at once, whoever is right."""
    with pytest.raises(BadHistory, match="watches disagree about revision 4"):
        told(n2_4=put("a", "other", 2, 4, 2))


def test_a_split_brain_is_rejected() -> None:
    """Two nodes each acknowledge a write of their own at the same revision."""

    def story() -> Story:
        split = told()
        split.ask(Put(b"c", b"c1"), 6)
        split.ask(Put(b"d", b"d1"), 6)
        for node in (1, 2):
            split.hear(node, 6, put("c", "c1", 6, 6, 1))
        return split

    rejected("two writes were acknowledged at revision 6", story)


def test_hashes_that_differ_are_rejected() -> None:
    """All agree on every event, and yet their states are not the same."""
    rejected("hashes differ", told, {1: (5, 77), 2: (5, 78)})


def test_a_node_that_stays_behind_is_rejected() -> None:
    """A node that ends at another revision."""
    rejected("node 2 ends at revision 4", told, {1: (5, 77), 2: (4, 77)})


# Decoding.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b"{}",
        b'{"header":{}}',
        b'{"header":{"revision":"0"}}',
        b'{"header":{"revision":"1"',
    ],
)
def test_an_answer_that_is_none_is_a_violation(body: bytes) -> None:
    """A 200 without a revision is not taken for anything."""
    with pytest.raises(BadAnswer):
        decode(Put(b"a", b"1"), body)


def test_a_transaction_must_be_answered_operation_by_operation() -> None:
    """Too few answers, or those of other kinds, are no answer."""
    txn = Txn((), (Put(b"a", b"1"), Range(b"a")), ())
    head: Json = {"header": {"revision": "2"}, "succeeded": True}
    answers: tuple[list[Json], ...] = (
        [],
        [{"response_put": {}}],
        [{"response_range": {}}, {"response_put": {}}],
        [{"response_put": {}}, {"response_range": {}, "response_put": {}}],
    )
    for responses in answers:
        with pytest.raises(BadAnswer):
            decode(txn, orjson.dumps({**head, "responses": responses}))


def test_only_what_the_state_decided_is_an_error() -> None:
    """Whatever might have happened all the same is unknown."""
    compacted = orjson.dumps({"message": Compacted.message})
    assert isinstance(state_error(400, compacted), Compacted)
    assert isinstance(state_error(400, orjson.dumps({"message": FutureRevision.message})), FutureRevision)
    assert state_error(503, compacted) is None
    assert state_error(400, b"no JSON") is None
    for text in ("no leader", "leader changed", "request timed out", "too many requests", "server stopped"):
        for status in (400, 429, 500, 503):
            assert state_error(status, orjson.dumps({"message": f"etcdserver: {text}"})) is None
    operation = Operation(0, 1, Put(b"a", b"1"), 1)
    assert note_answer(operation, 503, b'{"message":"etcdserver: no leader"}') == "etcdserver: no leader"
    assert operation.outcome is Outcome.UNKNOWN


def test_requests_are_sent_as_they_are_noted() -> None:
    """What is judged is what was sent: every option of a request is in its JSON."""
    path, body = encode(
        Range(b"a", b"\0", limit=2, revision=7, serializable=True, keys_only=True, count_only=True)
    )
    assert path == "/v3/kv/range"
    assert orjson.loads(body) == {
        "key": b64("a"),
        "range_end": "AA==",
        "limit": "2",
        "revision": "7",
        "serializable": True,
        "keys_only": True,
        "count_only": True,
    }
    compare = Compare(CompareResult.NOT_EQUAL, CompareTarget.VALUE, b"a", operand=b"x")
    _, body = encode(Txn((compare,), (Put(b"a", b"y", prev_kv=True),), (DeleteRange(b"b", b"c", True),)))
    assert orjson.loads(body) == {
        "compare": [{"key": b64("a"), "result": "NOT_EQUAL", "target": "VALUE", "value": b64("x")}],
        "success": [{"request_put": {"key": b64("a"), "value": b64("y"), "prev_kv": True}}],
        "failure": [{"request_delete_range": {"key": b64("b"), "range_end": b64("c"), "prev_kv": True}}],
    }
    assert orjson.loads(encode(Put(b"a", ignore_value=True))[1]) == {"key": b64("a"), "ignore_value": True}
    request = WatchCreate(b"a", b"b", 5, True, frozenset({EventType.DELETE}), prev_kv=True)
    assert orjson.loads(encode_watch(request)) == {
        "create_request": {
            "key": b64("a"),
            "range_end": b64("b"),
            "start_revision": "5",
            "progress_notify": True,
            "prev_kv": True,
            "filters": ["NODELETE"],
        }
    }


def test_key_values_are_decoded_in_full() -> None:
    """Every field of a key-value arrives, and what JSON omits is zero."""
    body = orjson.dumps({"header": {"revision": "9"}, "prev_kv": {**kv("a", "x", 2, 4, 3), "lease": "12"}})
    answer = decode(Put(b"a", b"y", prev_kv=True), body)
    assert answer.revision == 9
    assert answer.response == (KeyValue(b"a", 2, 4, 3, b"x", 12),)
