"""Changes of members where we differ from etcd on purpose (README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.common.servers import Server, running, start_kvorum
from tests.differential.compare import ask, post
from tests.differential.test_members import PATHS


def say(server: Server, what: str, message: object) -> tuple[int, Any]:
    answer = ask(server, post(PATHS[what], message))
    return answer.status, json.loads(answer.body)


def test_a_learner_whose_address_changes_stays_a_learner(tmp_path: Path) -> None:
    """etcd 3.5 forgets what it was."""
    with running(start_kvorum(tmp_path)) as server:
        _, added = say(server, "add", {"peerURLs": ["http://h:1"], "isLearner": True})
        learner = added["member"]["ID"]
        status, updated = say(server, "update", {"ID": learner, "peerURLs": ["http://h:2"]})
        assert status == 200
        assert {"ID": learner, "peerURLs": ["http://h:2"], "isLearner": True} in updated["members"]


def test_changes_may_follow_each_other_at_once(tmp_path: Path) -> None:
    """etcd 3.5 never answers one that comes before the last is quite done."""
    with running(start_kvorum(tmp_path)) as server:
        for number in range(20):
            _, added = say(server, "add", {"peerURLs": [f"http://h:{number + 1}"], "isLearner": True})
            assert say(server, "remove", {"ID": added["member"]["ID"]})[0] == 200
            assert say(server, "remove", {"ID": added["member"]["ID"]})[0] == 404


UNREACHABLE = (
    "http://:1 http://h: http://: http://h:65536 http://h:1?q http://u@h:1 http://h:1#f unix://a:1 nope"
)


def test_addresses_that_no_peer_could_reach_are_refused(tmp_path: Path) -> None:
    """etcd takes most of them, and as those of a voter they may cost it its quorum."""
    with running(start_kvorum(tmp_path)) as server:
        own = say(server, "list", {})[1]["members"]
        for urls in ([], *([url] for url in UNREACHABLE.split())):
            for what in ("add", "update"):
                status, refused = say(server, what, {"ID": own[0]["ID"], "peerURLs": urls})
                assert (status, refused["error"]) == (400, "etcdserver: given member URLs are invalid")
        assert say(server, "list", {})[1]["members"] == own
