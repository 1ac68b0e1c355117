"""cp, mv and rm as changes of keys. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvorum.cli.data.changes import Changes, Snapshot
from kvorum.cli.data.keys import shown
from kvorum.types import KeyValue

_NAMED = 3


class Refused(ValueError):
    """What was asked for would destroy something; the text is one sentence."""


def target_of(key: bytes, target: bytes) -> bytes:
    """Where one key goes: below what ends in a slash, under its own last name."""
    return target + key.rsplit(b"/", 1)[-1] if target.endswith(b"/") else target


def moves(
    before: Snapshot,
    targets: Mapping[bytes, bytes],
    *,
    remove: bool,
    force: bool,
    whole: tuple[bytes, bytes] | None = None,
) -> Changes:
    """Copies each key of ``targets`` to its target, and with ``remove`` deletes it.

    ``before`` holds the keys, and those of the targets that there are. ``whole`` are two prefixes: these keys
    are all that is under the first, and the targets are under the second. A moved key keeps its lease, a
    copied one has none, as a copy shall not end with the original. Raises Refused."""
    if same := [key for key, target in targets.items() if key == target]:
        raise Refused(f"{_named(same)}: source and target are the same")
    overwritten = [target for target in targets.values() if target in before.kvs]
    if overwritten and not force:
        raise Refused(f"{_named(overwritten)} would be overwritten: give --force if that is meant")
    sources: dict[bytes, KeyValue] = {key: before.kvs[key] for key in targets}
    put = {targets[key]: kv.value for key, kv in sources.items()}
    leases = {targets[key]: kv.lease if remove else 0 for key, kv in sources.items()}
    gone = [key for key in sources if key not in put] if remove else []
    return Changes(
        before,
        put,
        gone,
        kept=[key for key in sources if key not in put and key not in gone],
        known=whole or (),
        # A whole prefix goes by one deletion, unless something is put there, which no transaction may do.
        remove_prefix=whole[0] if whole and gone and not _any_under(whole[0], put) else None,
        leases=leases,
    )


def _any_under(prefix: bytes, keys: Iterable[bytes]) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _named(keys: list[bytes]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(shown(key) for key in sorted(keys)[:_NAMED]) + more
