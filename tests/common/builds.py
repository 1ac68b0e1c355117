"""Which build of Kvorum is tested or measured."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def is_compiled() -> bool:
    """Whether ``scripts/compile``'s is what is imported here."""
    spec = find_spec("kvstate.machine")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")


needs_subclasses = pytest.mark.skipif(
    is_compiled(),
    reason="the simulator's core and machine are subclasses, which compiled classes do not have",
)
