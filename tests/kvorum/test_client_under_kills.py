"""The library's own suite on three members, while the leader is killed again and again.

A test may meet an error that says that nobody knows whether a write was done: no library can know. Then it is
begun again with other keys, as its user would. Whatever else it meets is a failure.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from kvorum import KvorumError
from tests.common.clusters import Cluster, start_kvorum_cluster
from tests.kvorum import test_client
from tests.kvorum.clients import MakeClient

KILLS_MIN = 3
ROUNDS_MAX = 20
UNKNOWN_MAX = 10
NOT_HERE = {
    # Two seconds may pass until another leads, and all that time nobody knows whether the lease has ended.
    "test_a_lease_is_kept_alive",
    "test_the_loss_of_a_lease_is_told",
    # Where the first answer is lost, nobody knows whether that try has revoked it: then it is as if it had.
    "test_a_lease_that_was_never_there_cannot_be_revoked",
}


def suite() -> dict[str, Callable[..., None]]:
    """Those that need nothing but a client and keys."""
    return {
        name: test
        for name, test in vars(test_client).items()
        if name.startswith("test_")
        and name not in NOT_HERE
        and set(inspect.signature(test).parameters) <= {"client", "key"}
    }


@contextlib.contextmanager
def leaders_killed(cluster: Cluster) -> Iterator[list[int]]:
    """Inside, leaders are killed one after the other; yields those that were."""
    killed: list[int] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def kill() -> None:
        try:
            while not stop.is_set():
                leader = cluster.leader()
                cluster.kill(leader)
                killed.append(leader)
                cluster.restart(leader)
                cluster.wait_until_healthy()
        except BaseException as error:
            failures.append(error)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        stop.set()
        killer.join()
        assert not failures


def test_the_suite_passes_while_leaders_are_killed(tmp_path: Path, make_client: MakeClient) -> None:
    tests = suite()
    assert len(tests) > 12
    flags = ("--heartbeat-interval=50", "--election-timeout=500")
    with (
        start_kvorum_cluster(tmp_path, 3, *flags) as cluster,
        leaders_killed(cluster) as killed,
        make_client(cluster.urls, timeout=20) as client,
    ):
        for _ in range(ROUNDS_MAX):
            for test in tests.values():
                run_until_its_outcome_is_known(test, client)
            if len(killed) >= KILLS_MIN:
                return
        raise AssertionError(f"only {len(killed)} leaders were killed: this proves little")


def run_until_its_outcome_is_known(test: Callable[..., None], client: object) -> None:
    for attempt in range(UNKNOWN_MAX):
        given = {"client": client, "key": f"{uuid.uuid4().hex}/"}
        try:
            test(**{name: given[name] for name in inspect.signature(test).parameters})
            return
        except KvorumError as error:
            if not error.maybe_done or attempt == UNKNOWN_MAX - 1:
                raise
