"""One template and the file that it becomes."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from kvorum import atomic_file
from kvorum.rendering.ranges import Range
from kvorum.rendering.snapshot import Reads, Snapshot
from kvorum.rendering.templates import Template


class CommandFailed(Exception):
    """A check or a reload has failed; the text says which and how."""


class Outcome(Enum):
    UNCHANGED = "unchanged"
    CHANGED = "changed"


@dataclass(frozen=True)
class Plan:
    """What is wanted. In ``check``, ``{}`` stands for the new file; both commands are a shell's."""

    template: Path
    destination: Path
    check: str = ""
    reload: str = ""
    mode: int | None = None
    command_seconds: float = 60.0


class Target:
    """``reads`` and ``revision``: what the last rendering has read, also one that failed, and as of when.
    ``reload_due``: the file has changed since the last reload that went well."""

    def __init__(self, plan: Plan) -> None:
        """Raises TemplateFailed."""
        self.plan = plan
        self._template = Template(plan.template)
        self.reads: set[Range] = set()
        self.revision = 0
        self.reload_due = False

    def render(self, snapshot: Snapshot) -> str:
        """Raises TemplateFailed, KvorumError."""
        reads = Reads(snapshot)
        try:
            snapshot.expect(self.reads)
            return self._template.render(reads)
        finally:
            self.reads = reads.ranges
            self.revision = snapshot.revision

    def install(self, text: str) -> Outcome:
        """Put it in the file's place, if the check allows it. Raises CommandFailed, OSError: then the file is
        as it was."""
        plan, data = self.plan, text.encode("utf-8", "surrogateescape")
        if _is_as_wanted(plan.destination, data, plan.mode):
            return Outcome.UNCHANGED
        with atomic_file.prepared(plan.destination, data, mode=plan.mode) as new:
            if plan.check:
                self._run(plan.check.replace("{}", shlex.quote(str(new.path))), "check", new.path)
            was_due = self.reload_due
            self.reload_due |= bool(plan.reload)  # beforehand: a signal may end us between the two
            try:
                new.commit()
            except OSError:
                self.reload_due = was_due
                raise
        return Outcome.CHANGED

    def reload(self) -> None:
        """Raises CommandFailed."""
        self._run(self.plan.reload, "reload", self.plan.destination)
        self.reload_due = False

    def reads_key(self, key: bytes) -> bool:
        return any(key in one for one in self.reads)

    def _run(self, command: str, kind: str, file: Path) -> None:
        environment = {
            **os.environ,
            "KVORUM_FILE": str(self.plan.destination),
            "KVORUM_NEW_FILE": str(file),
        }
        process = subprocess.Popen(command, shell=True, env=environment, start_new_session=True)
        try:
            code = process.wait(self.plan.command_seconds)
        except subprocess.TimeoutExpired:
            how = f"did not end within {self.plan.command_seconds:g} s"
        else:
            if code == 0:
                return
            how = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        finally:
            if process.returncode is None:  # also when we are interrupted
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        raise CommandFailed(f"{self.plan.destination}: its {kind} {how}: {command}")


def _is_as_wanted(path: Path, data: bytes, mode: int | None) -> bool:
    atomic_file.refuse_special(path)  # to read a pipe is to wait for somebody who writes
    try:
        if mode is not None and stat.S_IMODE(path.stat().st_mode) != mode:
            return False
        return path.read_bytes() == data
    except FileNotFoundError:
        return False
