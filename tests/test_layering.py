"""Who imports whom: the table of LAYOUT.md, read from the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"raft", "kvstate", "watch", "api", "kvorum"}
# Package → what of ours it may import, and what it must not import at all.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "raft/core": ({"raft.core"}, {"asyncio", "time", "os", "socket", "threading", "msgpack", "datetime"}),
    "raft": ({"raft"}, {"aiohttp", "time", "datetime", "random"}),
    # What talks to the peers.
    **{
        f"raft/{name}.py": ({"raft"}, {"time", "datetime"})
        for name in ("link", "transport", "peer_server", "snapshot_transfer")
    },
    "kvstate": ({"kvstate"}, {"asyncio", "time", "random", "uuid", "datetime", "threading", "aiohttp"}),
    # What copies and replaces the whole state works on threads; it decides nothing.
    "kvstate/lmdb_store.py": ({"kvstate"}, {"asyncio", "time", "random", "uuid", "datetime", "aiohttp"}),
    "kvstate/snapshot.py": ({"kvstate"}, {"asyncio", "time", "random", "uuid", "datetime", "aiohttp"}),
    "watch": ({"watch", "kvstate"}, {"aiohttp", "time", "random", "lmdb"}),
    "api": ({"api", "watch", "kvstate", "raft"}, set()),
    "kvorum": ({"kvorum"}, {"aiohttp", "lmdb", "uvloop"}),
    # What the asyncio client imports when it is used first.
    "kvorum/http_async.py": ({"kvorum"}, {"lmdb", "uvloop"}),
}
MODULES = sorted(
    path for package in OURS for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts
)


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    """Each package imports only what lies below it, and nothing that would break its promises."""
    name = str(path.relative_to(ROOT))
    package = "raft/core" if name.startswith("raft/core/") else name.split("/")[0]
    allowed, banned = RULES.get(name) or RULES[package]
    for imported in imports_of(path):
        top = imported.split(".")[0]
        assert top not in banned, f"{name} imports {imported}"
        if top in OURS:
            assert any(imported == one or imported.startswith(one + ".") for one in allowed), (
                f"{name} imports {imported}"
            )


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("lmdb", "kvstate/lmdb_store.py"),
        ("uvloop", "api/server.py"),
        ("yaml", "api/config_file.py"),
        ("msgpack", None),
    ],
)
def test_libraries_have_one_home(library: str, home: str | None) -> None:
    """What stores, and what drives the loop, is known in one place of the server. The command line reads and
    writes YAML in several: contexts, output, templates."""
    users = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if library in {i.split(".")[0] for i in imports_of(path)} and ROOT / "kvorum" not in path.parents
    }
    if home is None:
        assert users == {
            *("kvstate/codec.py", "kvstate/machine.py"),  # on disk
            # between members
            *("raft/codec.py", "api/roster.py", "api/members.py", "api/leases.py"),
        }
    else:
        assert users == {home}


def test_the_core_uses_chance_only_as_it_is_given() -> None:
    """raft.core may name random.Random as a type, but draws from no generator of its own."""
    for path in (ROOT / "raft" / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "random"
            ):
                assert node.attr == "Random", f"{path}: random.{node.attr}"
