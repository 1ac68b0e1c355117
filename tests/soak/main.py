"""The soak test: a cluster of real processes, clients that keep a history, faults, and a judgement.

    scripts/soak --minutes 30                 three nodes, every fault, a new seed
    scripts/soak --minutes 5 --nodes 5        five
    scripts/soak --minutes 2 --target etcd    the harness itself: real etcd must pass
    scripts/soak --judge DIR/history.pickle   judge a kept history once more

The seed fixes which faults are drawn, upon whom and for how long; what the machine then does is not ours
to fix. What cannot be done here (no root, no strace, …) is left out and the run says so.

Exit code 0: nothing wrong. 1: a violation, which is told, and everything is kept in a directory that is
named. 3: so little was acknowledged that the run shows nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import pickle
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvstate.commands import Range
from tests.sim.history import History, Outcome, WatchLog
from tests.sim.linearizability import describe
from tests.sim.model import BadHistory, in_range, tell
from tests.sim.watches import describe_watch
from tests.soak.clients import Workload, until
from tests.soak.cluster import Cluster, Member, Refused, Violation
from tests.soak.evidence import Final, judge
from tests.soak.faults import KINDS, MILD, Kind, Scene, serves, why_not
from tests.soak.lab import Lab, call, enter, remove_leftovers, run_directory, why_no_namespaces
from tests.soak.target import find_target

HEAL_SECONDS = 45.0  # after a fault every member must serve again within this time
ACKNOWLEDGED_PER_SECOND_MIN = 8
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
        self.target = find_target(options.target)
        lab = Lab(options.lab, options.nodes)
        probe_clocks = why_not("faketime", _Probe(self.target), None)  # type: ignore[arg-type]
        self.cluster = Cluster(
            self.target,
            lab,
            run.directory,
            token=f"soak-{options.seed}",
            snapshot_count=options.snapshot_count or self.random.choice([50, 300, 2000]),
            with_clocks=probe_clocks is None,
            say=run.say,
            fail=run.fail,
        )
        self.load = Workload(self.cluster.members, options.seed, options.rate, run.fail)
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
            if why_not("mount", cluster, None) is None:
                self.small_disk = self.random.choice(cluster.members)
                await self.small_disk.mount(self.target.disk_megabytes)
            await cluster.start(relays, options.seed)
            self.run.say(
                f"{options.nodes} nodes of {self.target.name}, snapshots every {cluster.snapshot_count} entries,"
                f" relays before {', '.join(f'n{n}' for n in sorted(relays))}, in {self.run.directory}"
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
                reason = why_not(need, self.cluster, options.no_namespaces if options.lab is None else None)
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
        return self.random.sample(kinds, len(kinds))

    async def _faults(self, end: float) -> None:
        deck: list[Kind] = []
        while time.monotonic() < end and not self.run.failed.is_set():
            deck = deck or self._deck()
            if not deck:
                await asyncio.wait([asyncio.ensure_future(self.run.failed.wait())], timeout=end - time.monotonic())
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
            (one, Scene(self.cluster, random.Random(self.random.getrandbits(64)), self.scale, self.small_disk))
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
        tasks = [asyncio.ensure_future(one.run(scene)) for one, scene in scenes]  # type: ignore[arg-type]
        failing = asyncio.ensure_future(self.run.failed.wait())
        try:
            pending: set[asyncio.Future[object]] = set(tasks)
            while pending and not failing.done():
                _, waiting = await asyncio.wait({*pending, failing}, return_when=asyncio.FIRST_COMPLETED)
                pending = {task for task in waiting if task is not failing}
        finally:
            failing.cancel()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for (one, _), result in zip(scenes, results, strict=True):
            if isinstance(result, Violation):
                self.run.fail(f"{one.name}: {result}")
            elif isinstance(result, Refused | OSError):
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
            command = (str(self.target.etcdctl), f"--endpoints={member.url}", "-w", "json", "endpoint", "hashkv")
            said = await call(*command, f"--rev={top}")
            import json

            return {"hashkv": int(json.loads(said)[0]["HashKV"]["hash"])}
        hashes = {}
        for kind, path in self.target.hash_paths.items():
            message = {"revision": str(top)} if kind == "hashkv" else {}
            hashes[kind] = int((await self.cluster.ask(member, path, message, 20.0)).get("hash", 0))
        return hashes


class _Probe:
    """Enough of a cluster to ask whether its clocks can be set."""

    def __init__(self, target: object) -> None:
        self.target = target


# Around it.


async def run_soak(run: Run) -> int:
    soak = Soak(run)
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    finals: list[Final] = []
    try:
        finals = await soak.carry_out()
    except (Violation, BadHistory) as error:
        run.fail(str(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)
    history = soak.load.history
    took = time.monotonic()
    if not run.violations:
        try:
            await asyncio.to_thread(judge, history, finals)
        except BadHistory as error:
            run.fail(str(error))
    return conclude(run, soak, finals, time.monotonic() - took)


def conclude(run: Run, soak: Soak, finals: list[Final], judged_seconds: float) -> int:
    """The summary, and the exit code."""
    history, progress, cluster = soak.load.history, soak.load.progress, soak.cluster
    acknowledged = sum(op.outcome is Outcome.OK for op in history.operations)
    told = sum(len(response.events) for log in history.watches for _, response in log.responses)
    snapshots = sum(count_lines(member.log, soak.target.snapshot_marks) for member in cluster.members)
    tracebacks = sum(count_lines(member.log, ("Traceback (most recent",)) for member in cluster.members)
    kinds = Counter(name for done in run.done for name in done.kind.split(" + "))
    worst = max(run.done, key=lambda done: done.without_write, default=Done("", 0.0))
    print(f"\nsoak --target {soak.target.name} --nodes {len(cluster.members)} --seed {run.options.seed}")
    print(f"  operations      {len(history.operations)}, {acknowledged} acknowledged")
    for name, count in sorted(progress.outcomes.items()):
        print(f"                  {count:7} {name}")
    for name, count in progress.refusals.most_common(8):
        print(f"                  {count:7} unknown: {name}")
    print(f"  revisions       {1 + len(history.events)}")
    print(f"  watches         {len(history.watches)}, told {told} events")
    print(f"  faults          {len(run.done)}: {', '.join(f'{n} {c}' for n, c in sorted(kinds.items()))}")
    if run.left_out and not run.options.faults:
        print(f"  left out        {', '.join(f'{n} ({why})' for n, why in run.left_out.items())}")
    print(f"  leaders         {len(cluster.leaders)} seen, in terms {sorted(cluster.leaders)[:1]}…{sorted(cluster.leaders)[-1:]}")
    print(f"  starts          {cluster.report.starts}, {cluster.report.stops_by_fault} after a fault ended a member")
    print(f"  snapshots       {snapshots} lines about them in the logs; {tracebacks} tracebacks")
    print(f"  without a write {worst.without_write:.1f} s at most ({worst.kind})")
    if run.violations:
        keep(run, history)
        print(f"\n{len(run.violations)} VIOLATION(S):")
        for violation in run.violations:
            print(f"  {violation}")
        print(f"logs, data and history are kept in {run.directory}")
        return 1
    print(
        f"  judged          in {judged_seconds:.1f} s: linearizability of {len(history.operations)} operations,"
        f" {len(history.watches)} watches, hashes {finals[0].hashes} on {len(finals)} nodes: nothing is wrong"
    )
    if run.options.keep:
        keep(run, history)
        print(f"  kept            {run.directory}")
    else:
        shutil.rmtree(run.directory, ignore_errors=True)
    if acknowledged < ACKNOWLEDGED_PER_SECOND_MIN * run.options.seconds:
        print(f"this run does not count: only {acknowledged} operations were acknowledged")
        return 3
    return 0


def count_lines(log: Path, marks: Sequence[str]) -> int:
    with log.open(errors="replace") as lines:
        return sum(any(mark in line for mark in marks) for line in lines)


def keep(run: Run, history: History) -> None:
    with (run.directory / "history.pickle").open("wb") as file:
        pickle.dump(history, file)
    with (run.directory / "history.txt").open("w") as text:
        for op in history.operations:
            text.write(describe(op) + "\n")
        for log in history.watches:
            text.write(describe_watch(log) + (" connected to the end\n" if log.connected else "\n"))
            for moment, response in log.responses:
                text.write(f"    [{moment}] @{response.revision} {tell(list(response.events))} {response[2:6]}\n")
        for revision, events in sorted(history.events.items()):
            text.write(f"revision {revision}: {tell(list(events))}\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description="A cluster under load and faults, judged.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults happen")
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--target", choices=("kvorum", "etcd"), default="kvorum")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--rate", type=float, default=250.0, help="requests per second, of all clients")
    parser.add_argument("--snapshot-count", type=int, default=0, help="otherwise drawn")
    parser.add_argument("--faults", type=lambda names: names.split(","), default=[], help="only these")
    parser.add_argument("--plain", action="store_true", help="no namespaces: everything on 127.0.0.1")
    parser.add_argument("--require-all", action="store_true", help="fail if a fault cannot be made here")
    parser.add_argument("--keep", action="store_true", help="keep logs, data and history of a good run too")
    parser.add_argument("--judge", type=Path, help="judge a kept history, and nothing else")
    parser.add_argument("--lab", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.seconds = options.minutes * 60
    if unknown := set(options.faults) - {kind.name for kind in KINDS}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(k.name for k in KINDS)}")
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    if options.judge is not None:
        with options.judge.open("rb") as file:
            history: History = pickle.load(file)
        judge(history, [])
        print(f"nothing is wrong with {len(history.operations)} operations, {len(history.watches)} watches")
        return 0
    if options.lab is None:
        print(f"scripts/soak {' '.join([*arguments, '--seed', str(options.seed)])}", flush=True)
        options.no_namespaces = "--plain" if options.plain else why_no_namespaces()
        if options.no_namespaces is None:
            return enter([*arguments, "--seed", str(options.seed)], options.nodes)
        remove_leftovers()
    pid = int(options.lab.removeprefix("soak")) if options.lab else os.getpid()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)  # a history is large, and has no cycles
    run = Run(options, run_directory(pid))
    try:
        return asyncio.run(run_soak(run))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"interrupted; what there is is in {run.directory}")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
