"""What is tested: Kvorum, or etcd itself as a check of the harness. Both take the same flags."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from api.config import ServerConfig
from tests.common.servers import etcd_binary


@dataclass(frozen=True, slots=True)
class Flags:
    """How one member is started; what the names of etcd's flags say."""

    name: str
    data_dir: Path
    client_url: str
    peer_listen_url: str
    peer_url: str  # what others know; a relay may be behind it
    initial_cluster: dict[str, str]
    is_new_cluster: bool
    token: str


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    command: tuple[str, ...]
    hash_paths: dict[str, str]  # kind of hash → path; all nodes must agree
    etcdctl: Path | None  # asked for the hash of the keys where there is no path for it
    is_dynamic: bool  # whether libfaketime can set its clock
    # Whether /v3/maintenance/status is one consistent answer, so that two leaders in it are two leaders.
    status_is_atomic: bool
    # Whether a candidate's own key is looked for before it is told that it leads. etcd does not, and tells
    # it to candidates whose lease has ended meanwhile.
    candidate_looks_again: bool
    has_catchup_flag: bool  # etcd 3.6 has it, 3.5 has not
    disk_megabytes: int  # of the small disk, with nothing amiss
    snapshot_marks: tuple[str, ...]  # in its log, where a snapshot was installed

    def argv(self, flags: Flags, heartbeat_ms: int, election_ms: int, snapshot_count: int) -> list[str]:
        cluster = ",".join(f"{name}={url}" for name, url in flags.initial_cluster.items())
        options: Sequence[tuple[str, object]] = (
            ("name", flags.name),
            ("data-dir", flags.data_dir),
            ("listen-client-urls", flags.client_url),
            ("advertise-client-urls", flags.client_url),
            ("listen-peer-urls", flags.peer_listen_url),
            ("initial-advertise-peer-urls", flags.peer_url),
            ("initial-cluster", cluster),
            ("initial-cluster-state", "new" if flags.is_new_cluster else "existing"),
            ("initial-cluster-token", flags.token),
            ("heartbeat-interval", heartbeat_ms),
            ("election-timeout", election_ms),
            ("snapshot-count", snapshot_count),
        )
        if self.has_catchup_flag:
            # Otherwise so many entries are kept for slow followers that snapshots are rare.
            options = (*options, ("snapshot-catchup-entries", snapshot_count // 2))
        return [*self.command, *(word for name, value in options for word in (f"--{name}", str(value)))]


def find_target(name: str, mutant: str | None = None) -> Target:
    """``mutant``: Kvorum with a deliberate mistake."""
    if name == "kvorum":
        module = ("tests.soak.mutated", mutant) if mutant else ("kvorum",)
        return Target(
            "kvorum",
            (sys.executable, "-m", *module, "serve"),
            {"hashkv": "/v3/maintenance/hashkv", "hash": "/v3/maintenance/hash"},
            None,
            is_dynamic=True,
            status_is_atomic=True,
            candidate_looks_again=True,
            has_catchup_flag="snapshot_catchup_entries" in ServerConfig.__dataclass_fields__,
            disk_megabytes=48,
            snapshot_marks=("has the snapshot at",),
        )
    # Its gateway has no path for hashkv (etcdctl is asked), and its other hash is over a file's bytes.
    return Target(
        "etcd",
        (str(etcd_binary()),),
        {},
        etcd_binary("etcdctl"),
        is_dynamic=False,
        status_is_atomic=False,
        candidate_looks_again=False,
        has_catchup_flag=False,
        disk_megabytes=320,
        snapshot_marks=("applied snapshot",),
    )
