"""Contexts: named sets of global flags, in a file of the user's own.

    current-context: prod
    contexts:
      prod:
        endpoints: 10.0.0.1:2379,10.0.0.2:2379
        cacert: /etc/kvorum/ca.pem
        user: alice

The file is ``$KVORUM_CONFIG``, or ``kvorum/config.yaml`` in ``$XDG_CONFIG_HOME`` (``~/.config``). It may hold
passwords, so only its owner may read it. A context says what neither a flag nor the environment says.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvorum import atomic_file
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure

FIELDS = {
    "endpoints": str,
    "cacert": str,
    "cert": str,
    "key": str,
    "insecure-skip-tls-verify": bool,
    "user": str,
    "password": str,
    "dial-timeout": str,
    "command-timeout": str,
}
"""What a context may say: the global flags that tell how to reach a server, and their types."""
NOT_KEPT = (
    *("discovery-srv", "discovery-srv-name", "insecure-discovery", "insecure-transport"),
    *("keepalive-time", "keepalive-timeout"),
)
"""The others that tell how to reach one: what a context can say of these, its endpoints say."""
PATHS = ("cacert", "cert", "key")
_GOES_WITH = {"password": "user", "key": "cert"}
"""A secret is only of use to the one it belongs to: who names another user gives another password."""
Context = dict[str, Any]


@dataclass
class Contexts:
    """What the file holds."""

    current: str = ""
    by_name: dict[str, Context] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Context:
        """Raises Failure where there is none of that name."""
        if name in self.by_name:
            return self.by_name[name]
        known = ", ".join(sorted(self.by_name)) or "there is none yet"
        raise Failure(
            f"there is no context {name!r} in {file()}: expected one of {known}", EXIT_BAD_ARGUMENTS
        )


def file() -> Path:
    if chosen := os.environ.get("KVORUM_CONFIG"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kvorum" / "config.yaml"


def load() -> Contexts:
    """No file is no contexts. Raises Failure where it cannot be read, or holds something else."""
    path = file()
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Contexts()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}") from None
    import yaml

    try:
        return _checked(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise Failure(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise Failure(f"{path}: {error}") from None


@contextmanager
def changing() -> Iterator[Contexts]:
    """The contexts, which are written back when the block ends well. One process at a time."""
    path = file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            contexts = load()
            yield contexts
            atomic_file.replace(path, _written(contexts), mode=0o600)
        finally:
            os.close(folder)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error}") from None


def _written(contexts: Contexts) -> bytes:
    import yaml

    content = {"current-context": contexts.current, "contexts": contexts.by_name}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def _checked(content: Any) -> Contexts:
    """Raises ValueError in one sentence."""
    if not isinstance(content, dict) or not content.keys() <= {"current-context", "contexts"}:
        raise ValueError("expected only the entries current-context and contexts")
    current, named = content.get("current-context") or "", content.get("contexts") or {}
    if not isinstance(current, str):
        raise ValueError(f"current-context is {current!r}: expected a context's name")
    if not isinstance(named, dict):
        raise ValueError("contexts is no mapping: expected names, and flags below each")
    for name, context in named.items():
        _check_context(name, context)
    return Contexts(current, named)


def _check_context(name: Any, context: Any) -> None:
    if not isinstance(name, str) or not isinstance(context, dict):
        raise ValueError(f"context {name!r} is no mapping of flags under a name")
    for flag, value in context.items():
        if flag not in FIELDS:
            raise ValueError(f"context {name!r} has {flag!r}: expected one of {', '.join(FIELDS)}")
        if not isinstance(value, FIELDS[flag]):
            kind = "true or false" if FIELDS[flag] is bool else "text"
            raise ValueError(f"{flag} of context {name!r} is {value!r}: expected {kind}")


def supplement(flags: dict[str, Any], name: str, is_given: Mapping[str, bool]) -> dict[str, Any]:
    """The global flags (by their parameters' names) with what the context says where nobody else did. The
    context is the one called ``name``, or if that is empty, the one in use."""
    contexts = load()
    name = name or contexts.current
    if not name:
        return flags
    result = dict(flags)
    for flag, value in contexts[name].items():
        master = _GOES_WITH.get(flag, flag)
        if is_given[_parameter(flag)] or is_given[_parameter(master)]:
            continue
        result[_parameter(flag)] = str(file().parent / value) if flag in PATHS and value else value
    return result


def _parameter(flag: str) -> str:
    return flag.replace("-", "_")
