"""The soak test: a cluster of real processes, clients that keep a history, faults, and a judgement.

    scripts/soak --minutes 30                 three nodes, every fault, a new seed
    scripts/soak --minutes 5 --nodes 5        five
    scripts/soak --minutes 2 --target etcd    the harness itself: real etcd must pass
    scripts/soak --minutes 0.1 --mutant NAME  Kvorum with a deliberate mistake, which must be caught
    scripts/soak --judge DIR/history.pickle   judge a kept history once more

The seed fixes which faults are drawn, upon whom and for how long; what the machine then does is not ours
to fix. What cannot be done here (no root, no strace, …) is left out and the run says so.

Exit code 0: nothing wrong. 1: a violation, which is told, and everything is kept in a directory that is
named. 3: so little was acknowledged that the run shows nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.sim.model import BadHistory
from tests.soak.cluster import Violation
from tests.soak.evidence import Evidence, Final, judge
from tests.soak.faults import CONTROL, KINDS
from tests.soak.lab import enter, remove_leftovers, run_directory, why_no_namespaces
from tests.soak.mutated import names
from tests.soak.report import conclude
from tests.soak.run import Run, Soak


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
    load = soak.load
    evidence = Evidence(load.history, finals, list(run.violations), load.coordination)
    took = time.monotonic()
    if not run.violations:
        try:
            await asyncio.to_thread(judge, evidence)
        except BadHistory as error:
            run.fail(str(error))
    return conclude(run, soak, evidence, time.monotonic() - took)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description="A cluster under load and faults, judged."
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults happen")
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--target", choices=("kvorum", "etcd"), default="kvorum")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--rate", type=float, default=250.0, help="requests per second, of all clients")
    parser.add_argument("--snapshot-count", type=int, default=0, help="otherwise drawn")
    parser.add_argument(
        "--faults", type=lambda names: names.split(","), default=[], help="only these, or none"
    )
    parser.add_argument("--plain", action="store_true", help="no namespaces: everything on 127.0.0.1")
    parser.add_argument("--require-all", action="store_true", help="fail if a fault cannot be made here")
    parser.add_argument("--keep", action="store_true", help="keep logs, data and history of a good run too")
    parser.add_argument("--mutant", choices=names(), help="Kvorum with a mistake, which must be caught")
    parser.add_argument("--judge", type=Path, help="judge a kept history, and nothing else")
    parser.add_argument("--lab", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.seconds = options.minutes * 60
    if unknown := set(options.faults) - {kind.name for kind in (*KINDS, CONTROL)} - {"none"}:
        parser.error(
            f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(k.name for k in KINDS)}"
        )
    return options


def judge_again(kept: Path) -> int:
    with kept.open("rb") as file:
        evidence: Evidence = pickle.load(file)
    if evidence.seen:
        print("\n".join(evidence.seen))
        return 1
    history = evidence.history
    judge(evidence)
    print(f"nothing is wrong with {len(history.operations)} operations, {len(history.watches)} watches")
    return 0


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    if options.judge is not None:
        return judge_again(options.judge)
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
