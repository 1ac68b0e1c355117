"""What can be asked of the list of services, and an entry taken off it: plans, without I/O. All reads are
linearizable, and see one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvorum.errors import Compacted
from kvorum.messages import key_range
from kvorum.operations import Pages, delete
from kvorum.plans import Core, Plan
from kvorum.services.choice import NoInstance, Picker, matching, nearest
from kvorum.services.directory import Directory
from kvorum.services.records import Instance, check_name, key_of, prefix_of
from kvorum.types import Event

PAGE = 1000


def listed(core: Core) -> Plan[dict[str, list[Instance]]]:
    """All services that anybody offers, by name, and who does."""
    directory = yield from _read(core, "")
    return {name: directory.instances(name) for name in directory.names()}


def resolve(
    core: Core,
    name: str,
    tags: Iterable[str] = (),
    metadata: Mapping[str, str] | None = None,
    zone: str = "",
) -> Plan[list[Instance]]:
    """The nearest first; none is no error."""
    directory = yield from _read(core, check_name(name))
    return nearest(matching(directory.instances(name), tags, metadata), zone)


def resolve_one(
    core: Core,
    name: str,
    picker: Picker,
    tags: Iterable[str] = (),
    metadata: Mapping[str, str] | None = None,
    zone: str = "",
) -> Plan[Instance]:
    """Raises NoInstance."""
    found = yield from resolve(core, name, tags, metadata, zone)
    return pick(picker, name, found, zone)


def pick(picker: Picker, name: str, instances: list[Instance], zone: str) -> Instance:
    """Raises NoInstance, which says of what."""
    try:
        return picker.pick(instances, zone)
    except NoInstance:
        raise NoInstance(f"no instance of {name} is registered that meets the conditions") from None


def deregister(core: Core, name: str, id: str) -> Plan[bool]:  # noqa: A002
    """Whether it was there. Its lease goes on, so whoever keeps it up does not notice and does not put it
    back."""
    selected = key_range(key_of(check_name(name), id))
    result = yield from delete(core, selected, prev_kv=False, idempotent=True)
    return result.deleted > 0


def _read(core: Core, name: str) -> Plan[Directory]:
    while True:
        directory, pages = Directory(), Pages(core, prefix_of(name), PAGE)
        try:
            while not pages.is_at_end:
                for kv in (yield from pages.next_page()):
                    directory.apply(Event("PUT", kv))
        except Compacted:
            continue  # what was read first is history by now
        return directory
