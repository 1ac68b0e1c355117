"""What a run was like, in lines for a person; and what is kept of one that went wrong."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvstate.commands import LeaseGrantResponse
from tests.sim.history import Outcome
from tests.sim.model import describe, tell
from tests.sim.watches import describe_watch
from tests.soak.calls import GUARDED
from tests.soak.evidence import Evidence
from tests.soak.past import Past
from tests.soak.run import Done, Run, Soak

ACKNOWLEDGED_PER_SECOND_MIN = 8


def conclude(run: Run, soak: Soak, evidence: Evidence, judged_seconds: float) -> int:
    """The summary, and the exit code."""
    history, finals = evidence.history, evidence.finals
    acknowledged = sum(op.outcome is Outcome.OK for op in history.operations)
    print(f"\nsoak --target {soak.target.name} --nodes {len(soak.cluster.members)} --seed {run.options.seed}")
    for name, what in _summary(run, soak, evidence, acknowledged):
        print(f"  {name:15} {what}")
    if run.violations:
        keep(run, evidence)
        print(f"\n{len(run.violations)} VIOLATION(S):")
        for violation in run.violations:
            print(f"  {violation}")
        print(f"logs, data and history are kept in {run.directory}")
        return 1
    print(
        f"  judged          in {judged_seconds:.1f} s: {len(history.operations)} operations are linearizable,"
        f" {len(history.watches)} watches complete,\n"
        f"                  {len(finals)} nodes agree on {finals[0].hashes}: nothing is wrong"
    )
    if run.options.keep or count_tracebacks(soak):
        keep(run, evidence)
        print(f"  kept            {run.directory}")
    else:
        shutil.rmtree(run.directory, ignore_errors=True)
    if acknowledged < ACKNOWLEDGED_PER_SECOND_MIN * run.options.seconds:
        print(f"this run does not count: only {acknowledged} operations were acknowledged")
        return 3
    return 0


def _summary(run: Run, soak: Soak, evidence: Evidence, acknowledged: int) -> Iterator[tuple[str, str]]:
    history, progress, cluster = soak.load.history, soak.load.progress, soak.cluster
    yield "operations", f"{len(history.operations)}, {acknowledged} acknowledged"
    for name, count in sorted(progress.outcomes.items()):
        yield "", f"{count:7} {name}"
    for name, count in progress.refusals.most_common(8):
        yield "", f"{count:7} unknown: {name}"
    yield "revisions", f"{1 + len(history.events)}"
    told = sum(len(response.events) for log in history.watches for _, response in log.responses)
    cancelled = sum(
        1 for log in history.watches for _, response in log.responses if response.compact_revision
    )
    yield (
        "watches",
        f"{len(history.watches)}, told {told} events, {cancelled} cancelled since compacted",
    )
    if not run.violations:
        yield "leases", _of_leases(evidence)
    kinds = Counter(name for done in run.done for name in done.kind.split(" + "))
    yield (
        "faults",
        f"{len(run.done)}: {', '.join(f'{name} {count}' for name, count in sorted(kinds.items()))}",
    )
    if run.left_out and not run.options.faults:
        yield "left out", ", ".join(f"{name} ({why})" for name, why in run.left_out.items())
    yield "leaders", f"{len(cluster.leaders)} seen, the last in term {max(cluster.leaders, default=0)}"
    yield (
        "starts",
        f"{cluster.report.starts}, {cluster.report.stops_by_fault} of them after a fault ended a member",
    )
    snapshots = sum(count_lines(member.log, soak.target.snapshot_marks) for member in cluster.members)
    yield "logs", f"{snapshots} lines about snapshots, {count_tracebacks(soak)} tracebacks"
    worst = max(run.done, key=lambda done: done.without_write, default=Done("", 0.0))
    yield "without a write", f"{worst.without_write:.1f} s at most ({worst.kind})"


def _of_leases(evidence: Evidence) -> str:
    events = evidence.history.events
    past = Past(events)
    granted = sum(isinstance(call.told, LeaseGrantResponse) for call in evidence.coordination.calls)
    guarded = sum(kv.key.startswith(GUARDED) for happened in events.values() for _, kv in happened)
    return (
        f"{granted} granted, {len(past.attached)} puts with one, {len(past.ends)} times all its keys went"
        f" at once; {len(past.entries)} stood in line, {guarded} guarded writes"
    )


def count_tracebacks(soak: Soak) -> int:
    """Not a violation in itself, but somebody should have a look."""
    return sum(count_lines(member.log, ("Traceback (most recent",)) for member in soak.cluster.members)


def count_lines(log: Path, marks: Sequence[str]) -> int:
    with log.open(errors="replace") as lines:
        return sum(any(mark in line for mark in marks) for line in lines)


def keep(run: Run, evidence: Evidence) -> None:
    with (run.directory / "history.pickle").open("wb") as file:
        pickle.dump(evidence, file)
    history = evidence.history
    with (run.directory / "history.txt").open("w") as text:
        for op in history.operations:
            text.write(describe(op) + "\n")
        for log in history.watches:
            text.write(describe_watch(log) + (" connected to the end\n" if log.connected else "\n"))
            for moment, response in log.responses:
                text.write(
                    f"    [{moment}] @{response.revision} {tell(list(response.events))} {response[2:6]}\n"
                )
        for call in evidence.coordination.calls:
            text.write(f"{call}\n")
        for revision, events in sorted(history.events.items()):
            text.write(f"revision {revision}: {tell(list(events))}\n")
