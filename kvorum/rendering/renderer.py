"""Several targets, rendered once, or for as long as their keys change.

Those that are rendered in one go see one revision of the store. What fails is told, and leaves its file as it
was. While keys are followed, a template that failed is rendered again when they change; where it was the
store's fault, or the disk's, after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn

from kvorum.client import Client
from kvorum.errors import Compacted, ConnectionFailed, KvorumError
from kvorum.rendering.following import Changed, Follower, Lost, News
from kvorum.rendering.ranges import Range
from kvorum.rendering.snapshot import Snapshot
from kvorum.rendering.target import CommandFailed, Outcome, Target
from kvorum.rendering.templates import TemplateFailed

RETRY_SECONDS = 1.0
SNAPSHOTS_MAX = 3
"""So often is a pass begun anew, where its revision was forgotten while it was rendered."""
Report = Callable[[Target, Outcome], None]
Complain = Callable[[str], None]


@dataclass
class _State:
    """``is_due``: to be rendered in the next pass."""

    target: Target
    is_due: bool = True
    complaint: str = ""


@dataclass
class Pass:
    """What came of rendering all that was due. ``is_unconnected``: the store could not be asked."""

    failures: int = 0
    is_unconnected: bool = False


class Renderer:
    """``report`` is told what became of a file, ``complain`` what went wrong: once, and not at each try."""

    def __init__(self, client: Client, targets: Sequence[Target], report: Report, complain: Complain) -> None:
        self._client = client
        self._states = [_State(target) for target in targets]
        self._report = report
        self._complain = complain

    def once(self) -> Pass:
        """All targets that are due, and then the reloads of those that have changed. A signal that comes
        between, or in the midst of a reload, does not cost it: whoever is started later finds the files as
        they should be, and would reload nothing."""
        done = Pass()
        try:
            done = self._render_due()
            self._reload(done)
        except BaseException:
            self._reload(done)
            raise
        return done

    def _render_due(self) -> Pass:
        for tries_left in reversed(range(SNAPSHOTS_MAX)):
            done, snapshot = Pass(), Snapshot(self._client)
            try:
                for state in self._states:
                    if state.is_due:
                        self._render(state, snapshot, done)
                break
            except Compacted as error:
                if not tries_left:
                    self._failed(state, str(error), done)
        return done

    def forever(self, quiet: float, at_most: float) -> NoReturn:
        """Until somebody interrupts it. Changes that come within ``quiet`` seconds of each other are rendered
        together, but none waits for longer than ``at_most``."""
        with closing(Follower(self._client)) as follower:
            while True:
                self.once()
                follower.follow(self._read_at())
                self._wait(follower, quiet, at_most)

    def _render(self, state: _State, snapshot: Snapshot, done: Pass) -> None:
        """Raises Compacted."""
        target = state.target
        try:
            outcome = target.install(target.render(snapshot))
        except Compacted:
            raise
        except (TemplateFailed, CommandFailed) as error:
            state.is_due = False
            state.complaint = ""
            self._failed(state, str(error), done)
        except (KvorumError, OSError) as error:
            done.is_unconnected |= isinstance(error, ConnectionFailed)
            self._failed(state, f"{target.plan.destination}: {error}", done)
        else:
            state.is_due = False
            state.complaint = ""
            self._report(target, outcome)

    def _reload(self, done: Pass) -> None:
        """Each command once, however many files it is for."""
        ran: dict[str, str] = {}
        for state in self._states:
            command = state.target.plan.reload
            if not state.target.reload_due:
                continue
            if command not in ran:
                try:
                    state.target.reload()
                    ran[command] = ""
                except CommandFailed as error:
                    ran[command] = str(error)
            state.target.reload_due = bool(ran[command])
            if ran[command]:
                state.complaint = ""
                self._failed(state, ran[command], done)

    def _failed(self, state: _State, complaint: str, done: Pass) -> None:
        done.failures += 1
        if complaint != state.complaint:
            state.complaint = complaint
            self._complain(complaint)

    def _read_at(self) -> dict[Range, int]:
        """Since when each range has to be watched: since the oldest rendering that stands on it. What is due
        is read again before long, and watched then."""
        found: dict[Range, int] = {}
        for state in self._states:
            for one in state.target.reads if not state.is_due else ():
                revision = state.target.revision
                found[one] = min(found.get(one, revision), revision)
        return found

    def _wait(self, follower: Follower, quiet: float, at_most: float) -> None:
        """Until something is due, and it has become quiet; or it is time to try again what has failed."""
        if any(state.is_due for state in self._states):
            self._mark(follower.next_news(RETRY_SECONDS))
        while not any(state.is_due for state in self._states):
            self._mark(follower.next_news())
        self._mark(follower.news_until_quiet(quiet, at_most))

    def _mark(self, news: Sequence[News]) -> None:
        for one in news:
            match one:
                case Changed(key, revision):
                    for state in self._states:
                        state.is_due |= state.target.revision < revision and state.target.reads_key(key)
                case Lost(range_, error):
                    for state in self._states:
                        state.is_due |= any(read.start in range_ for read in state.target.reads)
                    if not isinstance(error, Compacted):  # then what there is now is as good
                        self._complain(f"a watch has ended: {error}")
                        time.sleep(RETRY_SECONDS)
