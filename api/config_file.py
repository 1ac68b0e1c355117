"""Settings from a YAML file, as etcd's --config-file: the flags' names without the dashes.

    name: n1
    listen-peer-urls: [http://10.0.0.1:2380]     # or with commas, as on the command line
    pre-vote: true

A key without a value is as if it were not there. What is in the file is checked here for syntax,
names and types, so that a mistake is told with its file, line and key; whether a value makes sense
is for `ServerConfig`. Of YAML there is no more than this one mapping: no nesting, no includes, no
variables.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from api.config import ConfigError


class Kind(Enum):
    """What a key's value may be, in the words of its refusal."""

    TEXT = "a text (in quotes where it looks like something else)"
    LIST = "a text, or a list of texts"
    INTEGER = "a whole number"
    BOOLEAN = "true or false"
    DURATION = "milliseconds, or a text such as 10m"


def read(path: Path, kinds: Mapping[str, Kind]) -> dict[str, str]:
    """The values in the file at ``path``, as the command line would have them; lists with commas.
    ``kinds`` has all the keys there are."""
    settings = {}
    for key, (value, line) in _entries(path).items():
        where = f"{path} line {line}"
        if key not in kinds:
            close = difflib.get_close_matches(str(key).lower().strip("-").replace("_", "-"), kinds, n=1)
            hint = f" (is {close[0]} meant?)" if close else ""
            raise ConfigError(
                f"{where} has the unknown key {key!r}{hint}: expected the name of a flag of kvorum serve,"
                " without its dashes."
            )
        if value is None:
            continue
        text = _text_of(value, kinds[key])
        if text is None:
            raise ConfigError(f"{where} has {key}: {_shown(value)}, expected {kinds[key].value}.")
        settings[key] = text
    return settings


def _entries(path: Path) -> dict[Any, tuple[Any, int]]:
    """Each key with its value and the line it stands in."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--config-file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--config-file {path} is no text in UTF-8.") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path} line {line} is no YAML: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} has {_shown(values)}: expected lines of the form NAME: VALUE.")
    lines: dict[str, int] = {}
    for node, _ in root.value:
        line = node.start_mark.line + 1
        if node.value in lines:
            raise ConfigError(f"{path} has {node.value} twice, in lines {lines[node.value]} and {line}.")
        lines[node.value] = line
    return dict(zip(values, zip(values.values(), lines.values(), strict=True), strict=True))


def _text_of(value: Any, kind: Kind) -> str | None:
    """The value as the command line would have it; None where it is not of this kind."""
    match kind, value:
        case ((Kind.TEXT | Kind.LIST | Kind.DURATION), str()):
            return str(value)
        case Kind.LIST, list() if all(isinstance(one, str) for one in value):
            return ",".join(value)
        case Kind.BOOLEAN, bool():
            return str(value).lower()
        case ((Kind.INTEGER | Kind.DURATION), int()) if not isinstance(value, bool):
            return str(value)
        case _:
            return None


def _shown(value: Any) -> str:
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
