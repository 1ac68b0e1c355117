"""Whose turn it is, from one ``kvorum service resolve --one --policy round-robin`` to the next: in a file
of the user's, one for each service and each set of conditions. What is wrong with the file costs a turn, no
more."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kvorum.services.choice import RoundRobinPicker
from kvorum.services.records import Instance


def directory() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "kvorum" / "turns"


def pick(
    name: str, tags: Iterable[str], metadata: Mapping[str, str], zone: str, instances: Sequence[Instance]
) -> Instance:
    """One of ``instances``, which are those that meet the conditions. Raises NoInstance, and OSError where
    there can be no such file."""
    directory().mkdir(parents=True, exist_ok=True)
    file_name = name + _suffix(sorted(set(tags)), sorted(metadata.items()), zone)
    with (directory() / file_name).open("a+", errors="replace") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        picker = _parsed(file.read())
        taken = picker.pick(instances, zone)
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"earned": picker.earned, "first": picker.first}))
    return taken


def _suffix(*conditions: object) -> str:
    if not any(conditions):
        return ""
    return "@" + hashlib.sha256(json.dumps(conditions).encode()).hexdigest()[:16]


def _parsed(text: str) -> RoundRobinPicker:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    match found:
        case {"earned": dict(earned), "first": str(first)} if all(
            type(one) is int for one in earned.values()
        ):
            return RoundRobinPicker(earned, first)
    return RoundRobinPicker()  # which begins with anybody
