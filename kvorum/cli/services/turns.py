"""Whose turn it is, from one ``kvorum service resolve --one --policy round-robin`` to the next: in a file
of the user's, one for each service. What is wrong with the file costs a turn, no more."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path

from kvorum.services.choice import RoundRobinPicker
from kvorum.services.records import Instance


def directory() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "kvorum" / "turns"


def pick(name: str, instances: Sequence[Instance], zone: str) -> Instance:
    """Raises NoInstance, and OSError where there can be no such file."""
    directory().mkdir(parents=True, exist_ok=True)
    with (directory() / name).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        picker = RoundRobinPicker(_parsed(file.read()))
        taken = picker.pick(instances, zone)
        file.seek(0)
        file.truncate()
        file.write(json.dumps(picker.earned))
    return taken


def _parsed(text: str) -> dict[str, int]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {id_: earned for id_, earned in found.items() if isinstance(earned, int)}
