"""What Prometheus is told of registered services: records below ``/services/`` as its HTTP discovery wants.

    [{"targets":["10.0.0.1:8080"],"labels":{"__meta_kvorum_service":"web","__meta_kvorum_tags":",v1,",…}}]

Pure. docs/services.md has the format of the records and the labels; ``kvorum.services.records`` writes and
reads the same records on the client's side, of which this package knows nothing. A record that cannot be read
is left out: one bad writer must not take all targets from Prometheus.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import orjson

from kvstate.types import KeyValue

PREFIX = b"/services/"
WEIGHT_MAX = 65535
RECORD_BYTES_MAX = 64 * 1024
"""Larger ones are ignored: to read them would hold up all that this member does."""
_NOT_OF_AN_ADDRESS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
_NOT_OF_A_LABEL = re.compile(r"[^a-zA-Z0-9_]")


def target_groups(
    kvs: Iterable[KeyValue], names: Collection[str], tags: Collection[str]
) -> list[dict[str, Any]]:
    """A group for each instance that has all these tags, of these services, or of all if none is named."""
    groups = []
    for kv in kvs:
        name, _, id_ = _text_of(kv.key.removeprefix(PREFIX)).partition("/")
        record = _record(kv.value)
        if record is None or not name or not id_ or (names and name not in names):
            continue
        own_tags = [tag for tag in _list(record.get("Tags")) if isinstance(tag, str)]
        if set(tags) <= set(own_tags):
            labels = _labels(name, id_, record, own_tags)
            groups.append({"targets": [record["Addr"]], "labels": labels})
    return groups


def _labels(name: str, id_: str, record: dict[str, Any], tags: list[str]) -> dict[str, str]:
    labels = {
        f"__meta_kvorum_metadata_{_NOT_OF_A_LABEL.sub('_', each)}": _text(value)
        for each, value in _metadata(record.get("Metadata")).items()
    }
    return {
        **labels,
        "__meta_kvorum_service": name,
        "__meta_kvorum_service_id": id_,
        "__meta_kvorum_address": record["Addr"],
        # Between commas, so that a rule can ask for one without knowing its place: ".*,canary,.*".
        "__meta_kvorum_tags": f",{','.join(tags)}," if tags else "",
        "__meta_kvorum_weight": _weight(record.get("Weight")),
        "__meta_kvorum_zone": _text(record.get("Zone")),
    }


def _record(value: bytes) -> dict[str, Any] | None:
    if len(value) > RECORD_BYTES_MAX:
        return None
    try:
        record = orjson.loads(value)
    except ValueError:
        return None
    addr = record.get("Addr") if isinstance(record, dict) else None
    if not isinstance(addr, str) or not addr or _NOT_OF_AN_ADDRESS.search(addr):
        return None
    assert isinstance(record, dict)
    return record


def _text_of(key: bytes) -> str:
    """Empty where it is none."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return ""


def _metadata(found: Any) -> dict[str, Any]:
    """Of whatever form: a string that holds an object is what we write, an object what others do."""
    if isinstance(found, str):
        try:
            inner = orjson.loads(found)
        except ValueError:
            inner = None
        found = inner if isinstance(inner, dict) else found
    if found is None or isinstance(found, dict):
        return found or {}
    return {"metadata": found}


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _weight(found: Any) -> str:
    return str(min(max(found, 0), WEIGHT_MAX)) if type(found) is int else "1"


def _text(found: Any) -> str:
    """Labels are strings. Empty where it is nested too deeply to be written."""
    if found is None:
        return ""
    try:
        return found if isinstance(found, str) else orjson.dumps(found).decode()
    except orjson.JSONEncodeError:
        return ""
