"""What calls return. Keys and values are bytes; where one is asked for, a str will do and is UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Key = str | bytes


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as of one revision. ``version`` counts the puts since it was created; ``lease`` 0 is none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


@dataclass(frozen=True, slots=True)
class Event:
    """A change. Of a DELETE, ``kv`` has only the key and, as ``mod_revision``, when it was."""

    type: str
    kv: KeyValue
    prev_kv: KeyValue | None = None

    @property
    def key(self) -> bytes:
        return self.kv.key

    @property
    def value(self) -> bytes:
        return self.kv.value

    @property
    def revision(self) -> int:
        return self.kv.mod_revision

    @property
    def is_put(self) -> bool:
        return self.type == "PUT"


@dataclass(frozen=True, slots=True)
class RangeResult:
    """``count`` is how many there are, ``more`` whether ``limit`` cut some off, ``revision`` the store's when
    it was read."""

    kvs: tuple[KeyValue, ...]
    count: int
    more: bool
    revision: int

    def __iter__(self) -> Iterator[KeyValue]:
        return iter(self.kvs)

    def __len__(self) -> int:
        return len(self.kvs)


@dataclass(frozen=True, slots=True)
class PutResult:
    revision: int
    prev_kv: KeyValue | None = None


@dataclass(frozen=True, slots=True)
class DeleteResult:
    revision: int
    deleted: int
    prev_kvs: tuple[KeyValue, ...] = ()


@dataclass(frozen=True, slots=True)
class TxnResult:
    """``responses`` are those of the branch that was taken, in the order of its operations."""

    succeeded: bool
    revision: int
    responses: tuple[OperationResult, ...]


OperationResult = RangeResult | PutResult | DeleteResult | TxnResult


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """Whole seconds; ``ttl`` is what is left."""

    id: int
    ttl: int
    granted_ttl: int
    keys: tuple[bytes, ...] = ()
