"""--debug: what the global flags are, and each request as it is answered, on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

_REDACTED = "REDACTED"


def begin(flags: Mapping[str, Any]) -> Callable[[], None]:
    """Returns what ends it."""
    for name, value in sorted(flags.items()):
        print(f"KVORUM_{name.upper()}={_shown(name, value)}", file=sys.stderr)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    log = logging.getLogger("kvorum")
    before = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)

    def end() -> None:
        log.removeHandler(handler)
        log.setLevel(before)

    return end


def _shown(name: str, value: Any) -> str:
    """Without the password: unlike etcdctl's, this may be pasted somewhere."""
    if name == "password" and value:
        return _REDACTED
    user, colon, _ = str(value).partition(":")
    return f"{user}:{_REDACTED}" if name == "user" and colon else str(value)
