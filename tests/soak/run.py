"""The course of one run: the cluster starts, clients and faults go on for as long as was asked, then all
is healed, everything is read once more by every member, and what was seen is handed on to be judged.

A violation seen on the way ends the run early; everything is stopped and unmounted whatever happens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from kvstate.commands import Range
from tests.sim.history import ListLeases, Outcome, WatchLog
from tests.sim.model import in_range
from tests.soak.caller import ask
from tests.soak.calls import Look
from tests.soak.clients import Workload
from tests.soak.cluster import Cluster, Member, Refused, Violation, until
from tests.soak.contenders import Contender
from tests.soak.evidence import Final
from tests.soak.faults import CONTROL, KINDS, MILD, Kind, Scene, serves, why_not
from tests.soak.lab import Lab, call
from tests.soak.lease_judge import FAIL_OVER_SECONDS, LINGER_SECONDS, TTL_MAX
from tests.soak.target import find_target
from tests.soak.tenants import Tenant

HEAL_SECONDS = 45.0  # after a fault every member must serve again within this time
_NETWORK = {"partition", "one-way partition", "bridge", "flapping partition", "loss"}
_DISK = {"slow fdatasync", "failing fdatasync", "disk full"}


@dataclass(slots=True)
class Done:
    """One fault, for the log and the summary."""

    kind: str
    without_write: float


@dataclass(slots=True)
class Run:
    options: argparse.Namespace
    directory: Path
    started: float = field(default_factory=time.monotonic)
    violations: list[str] = field(default_factory=list)
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    done: list[Done] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def say(self, what: str) -> None:
        line = f"{time.monotonic() - self.started:7.1f} s  {what}"
        print(line, flush=True)
        with (self.directory / "faults.log").open("a") as log:
            log.write(line + "\n")

    def fail(self, what: str) -> None:
        self.violations.append(what)
        self.say(f"VIOLATION: {what}")
        self.failed.set()


class Soak:
    def __init__(self, run: Run) -> None:
        options = run.options
        self.run = run
        self.random = random.Random(f"{options.seed}/faults")
        self.target = find_target(options.target, options.mutant)
        lab = Lab(options.lab, options.nodes)
        self.cluster = Cluster(
            self.target,
            lab,
            run.directory,
            token=f"soak-{options.seed}",
            snapshot_count=options.snapshot_count or self.random.choice([50, 300, 2000]),
            with_clocks=why_not("faketime", self.target, None) is None
            and (not options.faults or "clock" in options.faults),
            say=run.say,
            fail=run.fail,
        )
        self.load = Workload(self.cluster.members, options.seed, options.rate, run.fail)
        self.load.coordination.candidates_look_again = self.target.candidate_looks_again
        for number in range(options.nodes):
            self.load.others += [Tenant(self.load, 100 + number).run, Contender(self.load, 200 + number).run]
        self.scale = 0.5 if options.seconds <= 180 else 1.0
        self.small_disk: Member | None = None

    async def carry_out(self) -> list[Final]:
        """The whole run, up to what the members say at its end. The cluster is stopped behind it."""
        run, cluster = self.run, self.cluster
        async with self._running():
            self._leave_out()
            self.load.start()
            watching = asyncio.ensure_future(self._watch_leaders())
            try:
                await self._recover("the start")
                await self._faults(time.monotonic() + run.options.seconds)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            run.say("the faults are over; the clients end, everything is read once more")
            await self.load.stop_clients()
            finals = [] if run.violations else await self._finish()
            await self.load.stop_watching()
            run.say(f"{cluster.report.starts} starts; everything is read")
            return finals

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        cluster, options = self.cluster, self.run.options
        # Some members are behind a relay and some are not: it hides what a network does to connections.
        relays = self.random.sample(range(1, options.nodes + 1), max(1, options.nodes // 2))
        try:
            if why_not("mount", self.target, None) is None:
                self.small_disk = self.random.choice(cluster.members)
                await self.small_disk.mount(self.target.disk_megabytes)
            await cluster.start(relays, options.seed)
            before = ", ".join(f"n{number}" for number in sorted(relays))
            self.run.say(
                f"{options.nodes} nodes of {self.target.name},"
                f" snapshots every {cluster.snapshot_count} entries,"
                f" relays before {before}, in {self.run.directory}"
            )
            for member in cluster.members:
                await serves(cluster, member, 30.0)
            yield
        finally:
            await self.load.close()
            await cluster.stop()

    def _leave_out(self) -> None:
        options = self.run.options
        for kind in KINDS:
            if options.faults and kind.name not in options.faults:
                self.run.left_out[kind.name] = "not asked for"
                continue
            for need in kind.needs:
                reason = why_not(need, self.target, options.no_namespaces if options.lab is None else None)
                if reason is not None:
                    self.run.left_out[kind.name] = reason
                    break
        for name, reason in self.run.left_out.items():
            if not options.faults:
                self.run.say(f"left out: {name}: {reason}")
                if options.require_all and "no effect on" not in reason:
                    self.run.fail(f"{name} is left out, which is not allowed here: {reason}")

    # Faults.

    def _deck(self) -> list[Kind]:
        kinds = [kind for kind in KINDS if kind.name not in self.run.left_out]
        if CONTROL.name in self.run.options.faults:
            kinds.append(CONTROL)
        return self.random.sample(kinds, len(kinds))

    async def _faults(self, end: float) -> None:
        deck: list[Kind] = []
        while time.monotonic() < end and not self.run.failed.is_set():
            deck = deck or self._deck()
            if not deck:
                await asyncio.wait(
                    [asyncio.ensure_future(self.run.failed.wait())], timeout=end - time.monotonic()
                )
                return
            kind = deck.pop()
            await self._one(kind, self._beside(kind))

    def _beside(self, kind: Kind) -> Kind | None:
        """Sometimes another fault at the same time."""
        drawn = self.random.random()
        mild = [
            other
            for other in KINDS
            if other.name in MILD
            and other is not kind
            and other.name not in self.run.left_out
            and not (other.name == "loss" and kind.name in _NETWORK)
            and not (other.name == "slow fdatasync" and kind.name in _DISK)
        ]
        chosen = self.random.choice(mild) if mild else None
        return chosen if drawn < 0.35 else None

    async def _one(self, kind: Kind, beside: Kind | None) -> None:
        run, progress = self.run, self.load.progress
        # A generator of its own, so that what one fault draws does not depend on how the last one went.
        scenes = [
            (
                one,
                Scene(self.cluster, random.Random(self.random.getrandbits(64)), self.scale, self.small_disk),
            )
            for one in (kind, beside)
            if one is not None
        ]
        name = " + ".join(one.name for one, _ in scenes)
        began = progress.last_write = time.monotonic()
        progress.longest_without = 0.0
        run.say(f"{name} …")
        await self._perform(scenes)
        lasted = time.monotonic() - began
        took = await self._recover(name)
        without = max(progress.longest_without, time.monotonic() - progress.last_write)
        run.done.append(Done(name, without))
        told = "; ".join(scene.told for _, scene in scenes)
        run.say(f"{name}: {told}: {lasted:.1f} s, sound after {took:.1f} s, no write for {without:.1f} s")

    async def _perform(self, scenes: list[tuple[Kind, Scene]]) -> None:
        tasks = [asyncio.ensure_future(one.run(scene)) for one, scene in scenes]
        together: asyncio.Future[Any] = asyncio.gather(*tasks, return_exceptions=True)
        failing: asyncio.Future[Any] = asyncio.ensure_future(self.run.failed.wait())
        try:
            await asyncio.wait([together, failing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            failing.cancel()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for (one, _), result in zip(scenes, results, strict=True):
            if isinstance(result, Violation):
                self.run.fail(f"{one.name}: {result}")
            elif isinstance(result, Refused):
                self.run.say(f"{one.name} was not possible: {result}")
            elif isinstance(result, Exception):
                raise result

    async def _recover(self, what: str) -> float:
        """Every member answers a request again that needs a quorum; how long that took."""
        began = time.monotonic()
        sound = self.load.progress.sound

        def is_sound() -> bool:
            return self.run.failed.is_set() or all(
                sound.get(member.number, 0.0) >= began for member in self.cluster.members
            )

        if not await until(is_sound, HEAL_SECONDS):
            stuck = [m for m in self.cluster.members if sound.get(m.number, 0.0) < began]
            tails = "\n".join(f"{m.name}, running: {m.is_running}: {m.tail(5)}" for m in stuck)
            self.run.fail(f"no progress: {HEAL_SECONDS:.0f} s after {what} this was not served: {tails}")
        return time.monotonic() - began

    async def _watch_leaders(self) -> None:
        while True:
            for member in self.cluster.members:
                if member.is_running:
                    with contextlib.suppress(Refused):
                        await self.cluster.status(member)
            await asyncio.sleep(0.5)

    # The end.

    async def _finish(self) -> list[Final]:
        await self._leases_end()
        for _ in range(5):
            top = await self._settle()
            for member in self.cluster.members:
                if not await self.load.watch_all(member, top, 60.0):
                    self.run.fail(f"a watch of the whole history via {member.name} did not get to {top}")
                    return []
            finals = [Final(member.number, await self._revision(member)) for member in self.cluster.members]
            if all(final.revision == top for final in finals):
                break
        else:
            self.run.fail("the revision does not come to rest, though the clients have gone")
            return []
        await self._drain(self.load.open_logs())
        await self._hash(finals, top)
        return finals

    async def _leases_end(self) -> None:
        """Nobody renews them any more: look at them until none is left, or until that is too late."""
        term, calm_since = 0, time.monotonic()
        deadline = calm_since + LINGER_SECONDS + TTL_MAX + FAIL_OVER_SECONDS + 5.0
        while time.monotonic() < deadline:
            for member in self.cluster.members:
                listing = await ask(self.load, -1, member, ListLeases(), 9.0)
                before, term = term, await self._term()
                if not term or term != before:
                    calm_since = time.monotonic()  # there may have been an election until now
                self.load.coordination.looks.append(Look(listing, calm_since))
                if listing.told == []:
                    return
                await asyncio.sleep(0.2)

    async def _term(self) -> int:
        """0 if somebody does not say."""
        try:
            statuses = [await self.cluster.status(member) for member in self.cluster.members]
        except Refused:
            return 0
        return max(int(status.get("raftTerm", 0)) for status in statuses)

    async def _settle(self) -> int:
        """What was sent but not answered may still happen: wait until nothing does. The revision."""
        said: list[int] = []
        for _ in range(60):
            before, said = said, [await self._revision(member) for member in self.cluster.members]
            if before == said and len(set(said)) == 1:
                break
            await asyncio.sleep(0.5)
        return max(said)

    async def _revision(self, member: Member) -> int:
        for _ in range(20):
            operation = await self.load.perform(-1, member, Range(b"k00"), 9.0)
            if operation.outcome is Outcome.OK:
                return operation.revision
            await asyncio.sleep(0.5)
        raise Violation(f"{member.name} does not answer a read though all is healed: {member.tail()}")

    async def _drain(self, logs: list[WatchLog]) -> None:
        """Streams that are open at the end must have everything; give them the time to get it."""
        events = self.load.history.events
        for log in logs:
            request = log.request
            wanted = max(
                (
                    revision
                    for revision, happened in events.items()
                    for kind, kv in happened
                    if kind not in request.filters and in_range(kv.key, request.key, request.range_end)
                ),
                default=0,
            )

            def has_it(log: WatchLog = log, wanted: int = max(wanted, 1)) -> bool:
                told = [response for _, response in log.responses if response.events]
                return bool(told) and told[-1].events[-1].kv.mod_revision >= wanted

            created = [response for _, response in log.responses if response.created]
            start = request.start_revision or (created[0].revision + 1 if created else 0)
            if wanted >= start:
                await until(has_it, 15.0)
            log.connected = True

    async def _hash(self, finals: list[Final], top: int) -> None:
        """Ask each member for its hashes; a state that is being tidied up may need a moment."""
        for _ in range(20):
            for final, member in zip(finals, self.cluster.members, strict=True):
                final.hashes = await self._hashes_of(member, top)
            if all(final.hashes == finals[0].hashes for final in finals):
                return
            await asyncio.sleep(0.5)

    async def _hashes_of(self, member: Member, top: int) -> dict[str, int]:
        if self.target.etcdctl is not None:
            command = (
                str(self.target.etcdctl),
                f"--endpoints={member.url}",
                "-w",
                "json",
                "endpoint",
                "hashkv",
            )
            said = await call(*command, f"--rev={top}")
            return {"hashkv": int(orjson.loads(said)[0]["HashKV"]["hash"])}
        hashes = {}
        for kind, path in self.target.hash_paths.items():
            message = {"revision": str(top)} if kind == "hashkv" else {}
            hashes[kind] = int((await self.cluster.ask(member, path, message, 20.0)).get("hash", 0))
        return hashes
