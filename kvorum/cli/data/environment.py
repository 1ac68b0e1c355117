"""Names of environment variables for keys: ``db/host`` → ``DB_HOST``.

Letters become capitals, and all that is no letter of ASCII, digit or underscore becomes an underscore; a name
that would begin with a digit gets one in front. Two keys of one name are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kvorum.cli.data.nesting import BadContent


def variable_name(key: str) -> str:
    name = re.sub(r"[^A-Z0-9_]", "_", key.upper() if key.isascii() else _ascii_upper(key))
    return f"_{name}" if name[:1].isdigit() else name


def _ascii_upper(text: str) -> str:
    """``ß`` must not become ``SS``."""
    return "".join(character.upper() if character.isascii() else "_" for character in text)


def variables(keys: Iterable[str], prefix: str = "") -> dict[str, str]:
    """Variable → key, each variable beginning with ``prefix``. Raises BadContent where two keys clash."""
    found: dict[str, str] = {}
    for key in keys:
        name = prefix + variable_name(key)
        if not key:
            raise BadContent("a key that ends where the prefix does gives no name for a variable")
        if name in found:
            raise BadContent(f"the keys {found[name]} and {key} would both be {name}")
        found[name] = key
    return found
