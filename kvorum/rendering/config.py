"""What is to be rendered, from a file in YAML or from the words of a command line: pure but for the reading.

templates:
  - template: nginx.conf.j2             # relative paths are relative to this file
    destination: /etc/nginx/nginx.conf
    check: nginx -t -c {}
    reload: systemctl reload nginx
    mode: "0640"
    command-timeout: 60
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvorum.rendering.target import Plan

_ENTRIES = ("template", "destination", "check", "reload", "mode", "command-timeout")
_MODE = re.compile(r"0?[0-7]{3,4}")


@dataclass(frozen=True)
class Common:
    """What the flags say of all templates that are named on the command line."""

    check: str = ""
    reload: str = ""
    mode: int | None = None
    command_seconds: float = 60.0


def from_words(words: Sequence[str], destination: str | None, common: Common) -> list[Plan]:
    """``SRC:DEST`` as often as wanted; or one ``SRC``, and where it goes. Raises ValueError."""
    if destination is not None:
        if len(words) != 1:
            raise ValueError(f"--dest is for one template, not for {len(words)}: write SRC:DEST for each")
        return [_plan(words[0], destination, common)]
    plans = []
    for word in words:
        source, colon, file = word.rpartition(":")
        if not colon or not source or not file:
            raise ValueError(f"{word!r} does not say where it goes: expected SRC:DEST, or --dest")
        plans.append(_plan(source, file, common))
    return plans


def _plan(source: str, file: str, common: Common) -> Plan:
    return Plan(Path(source), Path(file), common.check, common.reload, common.mode, common.command_seconds)


def from_file(path: Path) -> list[Plan]:
    """Raises ValueError in one sentence that names the file, OSError."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or set(content) != {"templates"}:
        raise ValueError(f"{path}: expected one entry, templates")
    entries = content["templates"]
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: templates is empty or no list")
    plans = []
    for number, entry in enumerate(entries, start=1):
        try:
            plans.append(_from_entry(entry, path.parent))
        except ValueError as error:
            raise ValueError(f"{path}: template {number}: {error}") from None
    return plans


def _from_entry(entry: Any, folder: Path) -> Plan:
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r} is no mapping: expected template and destination")
    if unknown := sorted(set(map(str, entry)) - set(_ENTRIES)):
        raise ValueError(f"{unknown[0]!r} is unknown: expected one of {', '.join(_ENTRIES)}")
    for name in ("template", "destination", "check", "reload"):
        value = entry.get(name, "")
        if not isinstance(value, str):
            raise ValueError(f"{name} is {value!r}: expected text")
        if not value and name in ("template", "destination"):
            raise ValueError(f"{name} is missing")
    limit = entry.get("command-timeout", 60)
    if not isinstance(limit, (int, float)) or isinstance(limit, bool) or limit <= 0:
        raise ValueError(f"command-timeout is {limit!r}: expected a number of seconds")
    return Plan(
        folder / entry["template"],
        folder / entry["destination"],
        entry.get("check", ""),
        entry.get("reload", ""),
        mode(entry["mode"]) if "mode" in entry else None,
        float(limit),
    )


def mode(text: Any) -> int:
    """Raises ValueError. In YAML 0640 without quotes is a number already, and it may be another one."""
    if not isinstance(text, str) or not _MODE.fullmatch(text):
        raise ValueError(f'mode is {text!r}: expected octal digits in quotes, such as "0640"')
    return int(text, 8)
