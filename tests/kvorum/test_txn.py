"""Transactions as values: what is sent, and what comes back where."""

from __future__ import annotations

import pytest

from kvorum import (
    Delete,
    Get,
    Put,
    create_revision,
    exists,
    lease_of,
    missing,
    mod_revision,
    value,
    version,
)
from kvorum.messages import txn_result
from kvorum.txn import TransactionBuilder, txn_request


def test_compares_are_written_as_expressions() -> None:
    compares = [
        mod_revision("a") == 5,
        create_revision("a") < 6,
        version("a") > 1,
        value("a") != "x",
        value(b"a") == b"\xff",
        lease_of("a") == 77,
        exists("a"),
        missing("a"),
    ]
    assert txn_request(compares, [])["compare"] == [
        {"target": "MOD", "result": "EQUAL", "key": "YQ==", "mod_revision": "5"},
        {"target": "CREATE", "result": "LESS", "key": "YQ==", "create_revision": "6"},
        {"target": "VERSION", "result": "GREATER", "key": "YQ==", "version": "1"},
        {"target": "VALUE", "result": "NOT_EQUAL", "key": "YQ==", "value": "eA=="},
        {"target": "VALUE", "result": "EQUAL", "key": "YQ==", "value": "/w=="},
        {"target": "LEASE", "result": "EQUAL", "key": "YQ==", "lease": "77"},
        {"target": "VERSION", "result": "GREATER", "key": "YQ==", "version": "0"},
        {"target": "VERSION", "result": "EQUAL", "key": "YQ==", "version": "0"},
    ]


@pytest.mark.parametrize(
    ("attribute", "operand"),
    [(version, "5"), (mod_revision, None), (value, 5), (version, True), (version, 1.0)],
)
def test_comparing_with_another_kind_is_refused(attribute: object, operand: object) -> None:
    with pytest.raises(TypeError, match="expected"):
        attribute("a") == operand  # type: ignore[operator]  # noqa: B015


def test_operations_are_values() -> None:
    request = txn_request([], [Put("a", "x", lease=7), Delete("b", prefix=True)], [Get("a", limit=1)])
    assert request["success"] == [
        {"request_put": {"key": "YQ==", "value": "eA==", "lease": "7"}},
        {"request_delete_range": {"key": "Yg==", "range_end": "Yw==", "prev_kv": False}},
    ]
    assert request["failure"] == [{"request_range": {"key": "YQ==", "limit": "1"}}]


def test_results_are_found_where_the_operation_was_written() -> None:
    builder = TransactionBuilder()
    builder.when(exists("a"))
    put, read = builder.put("a", "1"), builder.get("b")
    other = builder.otherwise.get("a")
    responses = [{"response_put": {}}, {"response_range": {"count": "0"}}]
    builder.complete(txn_result({"succeeded": True, "responses": responses}, 9))
    assert builder.succeeded
    assert builder.revision == put.result.revision == 9
    assert read.result.kvs == ()
    assert not other.is_done
    with pytest.raises(RuntimeError, match="other branch"):
        other.result  # noqa: B018


def test_before_its_end_a_transaction_has_no_outcome() -> None:
    builder = TransactionBuilder()
    builder.put("a", "1")
    with pytest.raises(RuntimeError, match="not carried out"):
        builder.succeeded  # noqa: B018


def test_compares_are_not_joined_by_words_of_python() -> None:
    """``a and b`` would be b, and the transaction would go through without a."""
    with pytest.raises(TypeError, match="separated by commas"):
        (version("a") == 1) and (version("b") == 2)
    with pytest.raises(TypeError, match="separated by commas"):
        1 < version("a") < 5  # noqa: B015
    with pytest.raises(TypeError, match="separated by commas"):
        not exists("a")


@pytest.mark.parametrize("wrong", [True, "a", version("a"), [exists("a")]])
def test_what_is_no_compare_is_refused_where_it_is_written(wrong: object) -> None:
    with pytest.raises(TypeError, match="expected compares"):
        TransactionBuilder().when(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected compares"):
        txn_request([wrong], [])  # type: ignore[list-item]


def test_what_is_no_operation_is_refused() -> None:
    with pytest.raises(TypeError, match="expected operations"):
        txn_request([], [exists("a")])  # type: ignore[list-item]


def test_what_comes_after_the_end_of_a_transaction_is_not_dropped_in_silence() -> None:
    builder = TransactionBuilder()
    builder.put("a", "1")
    builder.request()
    for late in (lambda: builder.put("b", "1"), lambda: builder.otherwise.get("b"), lambda: builder.when()):
        with pytest.raises(RuntimeError, match="has ended"):
            late()
    with pytest.raises(RuntimeError, match="has ended"):
        builder.request()
