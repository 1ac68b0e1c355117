"""Sequences of requests made by Hypothesis get etcd's answers, and leave etcd's hash.

Both servers live through all examples. Each example begins with an empty key space and no leases, and
speaks of revisions relative to where it begins, so it fails the same way when it is run again.
"""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.common.servers import Server
from tests.differential import corpus
from tests.differential.compare import Request, ask, assert_same, post
from tests.differential.corpus import b64

# Go sorts more than six equal elements in no stable order: there are six keys.
KEYS = st.sampled_from([b"a", b"a\0", b"ab", b"\xff", b"k" * 600, b"k" * 600 + b"x"])
ENDS = st.one_of(st.just(b""), st.just(b"\0"), KEYS)
VALUES = st.sampled_from([b"", b"1", b"2", b"\0\xff", b"v" * 300])
FLAGS = st.sampled_from([{}, {}, {"prev_kv": True}])
# Revisions are relative to the first of the example; 0 asks for the latest.
RELATIVE = st.one_of(st.none(), st.integers(-3, 12))


def near(base: int, relative: int | None) -> int:
    return 0 if relative is None else max(base + relative, 1)


READ_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(-1, 4),
        "sort_order": st.integers(0, 2),
        "sort_target": st.integers(0, 4),
        "keys_only": st.booleans(),
        "count_only": st.booleans(),
        "serializable": st.booleans(),
    },
)
BOUNDS = st.fixed_dictionaries(
    {},
    optional={
        name: st.integers(-3, 12)
        for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision")
    },
)


@st.composite
def reads(draw: st.DrawFn) -> tuple:
    return ("range", draw(KEYS), draw(ENDS), draw(RELATIVE), draw(READ_OPTIONS), draw(BOUNDS))


LEASES = st.integers(1, 3)
# Mostly none, so that not everything fails where there is no such lease.
PUT_LEASES = st.one_of(st.just(0), st.just(0), LEASES, st.just("ignored"))
puts = st.tuples(st.just("put"), KEYS, VALUES, FLAGS, PUT_LEASES, st.booleans())
deletes = st.tuples(st.just("delete"), KEYS, ENDS, FLAGS)
compares = st.tuples(KEYS, ENDS, st.integers(0, 3), st.integers(0, 4), st.integers(-3, 12), VALUES)
txns = st.deferred(
    lambda: st.tuples(
        st.just("txn"),
        st.lists(compares, max_size=2),
        st.lists(operations, max_size=4),
        st.lists(operations, max_size=3),
    )
)
operations = st.one_of(reads(), puts, deletes, puts, txns)
# Always physical: where no key lives any more, etcd's HashKV takes in whatever its compaction has not
# removed yet, and a compaction that is not waited for is a matter of time.
compactions = st.tuples(st.just("compact"), st.integers(-1, 12), st.just(True))
leases = st.one_of(
    st.tuples(st.just("grant"), LEASES),
    st.tuples(st.just("grant"), LEASES),
    st.tuples(st.just("revoke"), LEASES),
    st.tuples(st.just("keep alive"), LEASES),
    st.tuples(st.just("time to live"), LEASES),
)
requests = st.one_of(reads(), puts, puts, deletes, txns, txns, compactions, leases, leases)


def operation(what: tuple, base: int) -> dict:
    """One operation as it stands in a transaction."""
    match what:
        case ("range", key, end, revision, options, bounds):
            bounds = {name: max(base + value, 0) for name, value in bounds.items()}
            return corpus.op_get(key, end, revision=near(base, revision), **options, **bounds)
        case ("put", key, value, flags, lease, ignore_value):
            leased = {"ignore_lease": True} if lease == "ignored" else {"lease": lease}
            ignored = {"ignore_value": True} if ignore_value else {}
            return corpus.op_put(key, b"" if ignore_value else value, **flags, **leased, **ignored)
        case ("delete", key, end, flags):
            return corpus.op_delete(key, end, **flags)
        case ("txn", compared, success, failure):
            return corpus.op_txn(
                [compare(one, base) for one in compared],
                [operation(one, base) for one in success],
                [operation(one, base) for one in failure],
            )
    raise AssertionError(what)


def compare(what: tuple, base: int) -> dict:
    key, end, result, target, number, value = what
    operand = [
        {"version": number},
        {"create_revision": base + number},
        {"mod_revision": base + number},
        {"value": b64(value)},
        {"lease": number},
    ][target]
    return {"key": b64(key), "range_end": b64(end), "result": result, "target": target, **operand}


def is_risky(what: tuple) -> bool:
    """Whether real etcd may crash on it: a deletion from a key on, and a put that keeps the value or lease
    of what it deletes (README.md)."""
    text = str(what)
    return "'delete'" in text and ("True)" in text or "'ignored'" in text)


PATHS = {
    "request_range": corpus.RANGE,
    "request_put": corpus.PUT,
    "request_delete_range": corpus.DELETE,
    "request_txn": corpus.TXN,
}


def request(what: tuple, base: int) -> Request:
    match what:
        case ("compact", revision, physical):
            return post(corpus.COMPACTION, {"revision": base + revision, "physical": physical})
        case ("grant", lease):
            return corpus.grant(lease)
        case ("revoke", lease):
            return corpus.revoke(lease)
        case ("keep alive", lease):
            return corpus.keep_alive(lease)
        case ("time to live", lease):
            return corpus.time_to_live(lease)[0]
    [(name, message)] = operation(what, base).items()
    return post(PATHS[name], message)


@settings(max_examples=60)
@given(st.lists(requests.filter(lambda what: what[0] != "txn" or not is_risky(what)), max_size=14))
def test_sequences_get_etcds_answers(etcd: Server, kvorum: Server, whats: list[tuple]) -> None:
    """Every answer is etcd's, and so is the hash of all history at the end."""
    for lease in (1, 2, 3):
        assert_same(etcd, kvorum, corpus.revoke(lease))
    assert_same(etcd, kvorum, corpus.delete(b"\0", b"\0"))
    answer = ask(etcd, corpus.put(b"a"))
    assert ask(kvorum, corpus.put(b"a")).status == answer.status
    base = int(json.loads(answer.body)["header"]["revision"])
    for what in whats:
        assert_same(etcd, kvorum, request(what, base))
    for request_ in corpus.time_to_live(1, 2, 3):
        assert_same(etcd, kvorum, request_)
    assert_same(etcd, kvorum, post(corpus.HASHKV, {"revision": 0}))
