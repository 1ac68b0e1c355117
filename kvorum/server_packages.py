"""The server's packages, which lie beside ``kvorum`` under names that others have too: ``api``, ``watch``, …

Only a process that is to be a server may import them, and it must not take somebody else's for ours.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import kvorum

HOME = Path(kvorum.__file__).resolve().parent.parent


class Shadowed(Exception):
    """Another package hides ours; the message names its folder."""


def command_line() -> Any:
    """The module whose ``main(arguments)`` is ``kvorum serve``. Raises Shadowed."""
    # `python -m kvorum` in a folder with an `api` of its own would find that one first.
    sys.path.insert(0, str(HOME))
    module = importlib.import_module("api.flags")
    found = Path(str(module.__file__)).resolve().parent.parent
    if found != HOME:
        raise Shadowed(f"the folder {found} has a package named api that hides Kvorum's own in {HOME}")
    return module
