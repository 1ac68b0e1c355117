"""Transactions: compares and operations as values, and a builder that reads like what it does. Pure.

    with client.txn() as t:
        t.when(mod_revision("a") == 5, exists("b"))
        t.put("a", "new")
        old = t.get("b")
        t.otherwise.get("a")
    if t.succeeded: …old.result…

Compares of one transaction must all hold for it to succeed; then its operations are carried out, otherwise
those of ``otherwise``, all at one revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from kvorum.messages import Message, as_bytes, b64, key_range, put_request, range_request
from kvorum.types import DeleteResult, Key, OperationResult, PutResult, RangeResult, TxnResult

TXN = "/v3/kv/txn"
R = TypeVar("R", bound=OperationResult)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Compare:
    target: str
    key: bytes
    result: str
    operand: int | bytes

    def __bool__(self) -> bool:
        # ``a and b`` would be b, and a would not be compared.
        raise TypeError("a compare is neither true nor false here: give several separated by commas")

    def message(self) -> Message:
        field = {"CREATE": "create_revision", "MOD": "mod_revision"}.get(self.target, self.target.lower())
        operand = b64(self.operand) if isinstance(self.operand, bytes) else str(self.operand)
        return {"target": self.target, "result": self.result, "key": b64(self.key), field: operand}


class Attribute:
    """Of a key, to be compared with ==, !=, < or >."""

    __slots__ = ("_key", "_target")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, target: str, key: Key) -> None:
        self._target, self._key = target, as_bytes(key)

    def __eq__(self, operand: object) -> Compare:  # type: ignore[override]
        return self._compare("EQUAL", operand)

    def __ne__(self, operand: object) -> Compare:  # type: ignore[override]
        return self._compare("NOT_EQUAL", operand)

    def __lt__(self, operand: object) -> Compare:
        return self._compare("LESS", operand)

    def __gt__(self, operand: object) -> Compare:
        return self._compare("GREATER", operand)

    def _compare(self, result: str, operand: object) -> Compare:
        expected: type = bytes if self._target == "VALUE" else int
        if isinstance(operand, str) and expected is bytes:
            operand = operand.encode()
        if not isinstance(operand, expected) or isinstance(operand, bool):
            raise TypeError(
                f"{self._target.lower()} is compared with {operand!r}: expected {expected.__name__}"
            )
        return Compare(self._target, self._key, result, cast("int | bytes", operand))


def version(key: Key) -> Attribute:
    """How often it was put since it was created; 0 if it is not there."""
    return Attribute("VERSION", key)


def create_revision(key: Key) -> Attribute:
    return Attribute("CREATE", key)


def mod_revision(key: Key) -> Attribute:
    return Attribute("MOD", key)


def value(key: Key) -> Attribute:
    return Attribute("VALUE", key)


def lease_of(key: Key) -> Attribute:
    return Attribute("LEASE", key)


def exists(key: Key) -> Compare:
    return version(key) > 0


def missing(key: Key) -> Compare:
    return version(key) == 0


@dataclass(frozen=True, slots=True)
class Operation(Generic[R]):
    """One of a branch. ``kind`` and ``request`` as in the gateway's RequestOp."""

    kind: str
    request: Message

    def message(self) -> Message:
        return {self.kind: self.request}


def Put(key: Key, value: Key, *, lease: int = 0, prev_kv: bool = False) -> Operation[PutResult]:
    return Operation("request_put", put_request(key, value, lease=lease, prev_kv=prev_kv))


def Get(
    key: Key, range_end: Key | None = None, *, prefix: bool = False, from_key: bool = False, **options: Any
) -> Operation[RangeResult]:
    """``options`` are those of ``Client.range``."""
    selected = key_range(key, range_end, prefix=prefix, from_key=from_key)
    return Operation("request_range", range_request(selected, **options))


def Delete(
    key: Key, range_end: Key | None = None, *, prefix: bool = False, prev_kv: bool = False
) -> Operation[DeleteResult]:
    selected = key_range(key, range_end, prefix=prefix)
    return Operation("request_delete_range", {**selected, "prev_kv": prev_kv})


def txn_request(
    compares: Sequence[Compare],
    then: Sequence[Operation[Any]],
    otherwise: Sequence[Operation[Any]] = (),
) -> Message:
    return {
        "compare": [one.message() for one in _all_are(Compare, "compares", compares)],
        "success": [one.message() for one in _all_are(Operation, "operations", then)],
        "failure": [one.message() for one in _all_are(Operation, "operations", otherwise)],
    }


def _all_are(kind: type[T], name: str, given: Sequence[T]) -> Sequence[T]:
    for one in given:
        if not isinstance(one, kind):
            raise TypeError(f"a transaction has {type(one).__name__} among its {name}: expected {name} only")
    return given


class Pending(Generic[R]):
    """What an operation of a transaction will have returned."""

    def __init__(self) -> None:
        self._result: R | None = None

    def _fulfil(self, result: R) -> None:
        self._result = result

    @property
    def is_done(self) -> bool:
        """False before the transaction is carried out, and where the other branch was."""
        return self._result is not None

    @property
    def result(self) -> R:
        if self._result is None:
            raise RuntimeError("not carried out: the transaction took the other branch, or has not ended")
        return self._result


class Branch:
    def __init__(self) -> None:
        self.operations: list[Operation[Any]] = []
        self._pending: list[Pending[Any]] = []
        self._has_ended = False

    def add(self, operation: Operation[R]) -> Pending[R]:
        self._check_open()
        pending = Pending[R]()
        self.operations.append(operation)
        self._pending.append(pending)
        return pending

    def put(self, key: Key, value: Key, *, lease: int = 0, prev_kv: bool = False) -> Pending[PutResult]:
        return self.add(Put(key, value, lease=lease, prev_kv=prev_kv))

    def get(
        self, key: Key, range_end: Key | None = None, *, prefix: bool = False, **options: Any
    ) -> Pending[RangeResult]:
        return self.add(Get(key, range_end, prefix=prefix, **options))

    def delete(
        self, key: Key, range_end: Key | None = None, *, prefix: bool = False, prev_kv: bool = False
    ) -> Pending[DeleteResult]:
        return self.add(Delete(key, range_end, prefix=prefix, prev_kv=prev_kv))

    def _check_open(self) -> None:
        if self._has_ended:
            raise RuntimeError("the transaction has ended: begin another")

    def end(self) -> None:
        """What would be added from now on would not be carried out."""
        self._check_open()
        self._has_ended = True

    def fulfil(self, responses: tuple[OperationResult, ...]) -> None:
        for pending, response in zip(self._pending, responses, strict=True):
            pending._fulfil(response)


class TransactionBuilder(Branch):
    """What both shells' transactions are. Before the end of the block nothing is sent; a block that raises
    sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.compares: list[Compare] = []
        self.otherwise = Branch()
        self._outcome: TxnResult | None = None

    def when(self, *compares: Compare) -> None:
        """All of them must hold, and those of other calls too."""
        self._check_open()
        self.compares += _all_are(Compare, "compares", compares)

    def request(self) -> Message:
        """Once: what it is made of is complete with that."""
        self.end()
        self.otherwise.end()
        return txn_request(self.compares, self.operations, self.otherwise.operations)

    def complete(self, outcome: TxnResult) -> None:
        self._outcome = outcome
        (self if outcome.succeeded else self.otherwise).fulfil(outcome.responses)

    @property
    def outcome(self) -> TxnResult:
        if self._outcome is None:
            raise RuntimeError("the transaction was not carried out: its block has not ended, or has raised")
        return self._outcome

    @property
    def succeeded(self) -> bool:
        return self.outcome.succeeded

    @property
    def revision(self) -> int:
        return self.outcome.revision
