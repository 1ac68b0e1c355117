"""Deliberate mistakes, one per file in ``mutants/``: does the simulator find them?

A file says in comments what is wrong, then which file, and which lines become which; and the first
seed that is known to catch it, if that is not 1:

    # The leader counts its own copy before it is durable (thesis 10.2.1).
    seed 17
    raft/core/consensus.py
    -    the lines as they are
    +    the lines as they are with the mistake

The lines must be there exactly once, so a mutant that no longer fits the code is an error.
In ``mutants/equivalent/`` are those that change nothing that could be seen, with the reason why.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
DIRECTORY = Path(__file__).resolve().parent / "mutants"


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    story: str
    path: str
    old: str
    new: str
    seed: int = 1

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".")

    def apply(self, source: str) -> str:
        """The source with the mistake in it."""
        found = source.count(self.old)
        if found != 1:
            raise ValueError(f"mutant {self.name}: its lines are {found} times in {self.path}, expected once")
        return source.replace(self.old, self.new)


def load_all() -> list[Mutant]:
    return [_parse(path) for path in sorted(DIRECTORY.glob("*.mutant"))]


def load_equivalent() -> list[Mutant]:
    return [_parse(path) for path in sorted((DIRECTORY / "equivalent").glob("*.mutant"))]


def load(name: str, directory: Path = DIRECTORY) -> Mutant:
    return _parse(directory / f"{name}.mutant")


def _parse(path: Path) -> Mutant:
    story, target, old, new, seed = [], "", [], [], 1
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            story.append(line[1:].strip())
        elif line.startswith("-"):
            old.append(line[1:])
        elif line.startswith("+"):
            new.append(line[1:])
        elif line.startswith("seed "):
            seed = int(line.split()[1])
        elif line:
            target = line.strip()
    changed = ("".join(f"{one}\n" for one in lines) for lines in (old, new))
    return Mutant(path.stem, " ".join(story), target, *changed, seed)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads one module with the mistake, all others as they are."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._mutant.module:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(ROOT / self._mutant.path))

    def exec_module(self, module: ModuleType) -> None:
        path = ROOT / self._mutant.path
        source = self._mutant.apply(path.read_text())
        exec(compile(source, str(path), "exec"), module.__dict__)


def install(mutant: Mutant) -> None:
    """From here on this process has the mistake. Before the module is imported."""
    if mutant.module in sys.modules:
        raise RuntimeError(f"{mutant.module} is imported already: expected to be called before")
    sys.meta_path.insert(0, _Finder(mutant))
