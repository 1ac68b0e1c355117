"""Three and five cores elect and replicate over an in-memory network that does its worst."""

from __future__ import annotations

import pytest

from raft.core.types import Role
from tests.raft.cluster import Cluster


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_elects_and_replicates(size: int) -> None:
    """One is elected, and what it takes is applied by all, in order."""
    cluster = Cluster(size)
    cluster.elect(1)
    cluster.core(1).propose([b"a", b"b"])
    cluster.core(1).propose([b"c"])
    cluster.settle()
    for member in cluster.nodes:
        assert cluster.commands(member) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("size", [3, 5])
def test_elects_by_timeouts_alone(size: int) -> None:
    """Without anybody's help there is a leader after some election timeouts."""
    cluster = Cluster(size, seed=3)
    for _ in range(200):
        cluster.tick()
        cluster.settle()
    assert cluster.leader is not None
    assert sum(cluster.core(m).role is Role.LEADER for m in cluster.nodes) == 1


class Storm:
    """Random steps on a cluster: everything that may go wrong does, and the invariants hold."""

    def __init__(self, size: int, seed: int) -> None:
        self.cluster = Cluster(size, seed)
        self.rng = self.cluster.rng
        self.proposed = 0
        self.asked = 0
        # Read contexts, with what was committed anywhere when they were asked for.
        self.reads: dict[tuple[int, int], int] = {}

    def step(self) -> None:
        cluster, rng = self.cluster, self.rng
        member = rng.choice(sorted(cluster.nodes))
        node = cluster.nodes[member]
        up = member in cluster.up
        match rng.choices(
            [
                "tick",
                "deliver",
                "ready",
                "write",
                "propose",
                "read",
                "lose",
                "double",
                "crash",
                "cut",
                "heal",
            ],
            [30, 60, 30, 30, 12, 6, 6, 4, 1, 2, 3],
        )[0]:
            case "tick" if up:
                node.core.tick()
            case "deliver" if cluster.network:
                cluster.deliver(cluster.network.pop(rng.randrange(len(cluster.network))))
            case "ready" if up:
                cluster.post(node.take_ready())
            case "write" if up:
                cluster.post(node.finish_write())
            case "propose" if up and node.core.role is Role.LEADER:
                self.proposed += 1
                node.core.propose([b"%d" % self.proposed] * rng.choice([1, 1, 3]))
            case "read" if up and node.core.role is Role.LEADER:
                self.asked += 1
                committed = max(n.core.commit_index for n in cluster.nodes.values())
                self.reads[member, self.asked] = committed
                node.core.read_index(self.asked)
            case "lose" if cluster.network:
                del cluster.network[rng.randrange(len(cluster.network))]
            case "double" if cluster.network:
                cluster.network.append(rng.choice(cluster.network))
            case "crash":
                if up:
                    cluster.crash(member)
                else:
                    cluster.restart(member)
            case "cut":
                cluster.cut.add((member, rng.choice(sorted(cluster.nodes))))
            case "heal":
                cluster.heal()
        cluster.check()
        self._check_reads()

    def _check_reads(self) -> None:
        """A confirmed read sees everything that was committed when it was asked for (thesis §6.4)."""
        for member in self.cluster.up:
            node = self.cluster.nodes[member]
            for read_state in node.read_states:
                assert read_state.index >= self.reads[member, read_state.ctx], "a stale read"
            node.read_states.clear()

    def calm(self) -> None:
        """Faults stop: then there is a leader soon, and everybody applies the same."""
        cluster = self.cluster
        cluster.heal()
        for member in sorted(set(cluster.nodes) - cluster.up):
            cluster.restart(member)
        for _ in range(100):
            cluster.tick()
            cluster.settle()
        leader = cluster.leader
        assert leader is not None, "nobody leads although nothing hinders it"
        cluster.core(leader).propose([b"last"])
        cluster.settle()
        cluster.tick(2)
        cluster.settle()
        logs = {tuple(cluster.commands(member)) for member in cluster.nodes}
        assert len(logs) == 1
        assert logs.pop()[-1] == b"last"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_survives_storms(size: int) -> None:
    """Over losses, doublings, reorderings, cuts and crashes no invariant breaks, and when they stop
    the cluster works."""
    for seed in range(60):
        storm = Storm(size, seed * 10 + size)
        for _ in range(1200):
            storm.step()
        storm.calm()
