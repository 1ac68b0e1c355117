"""Changes of members: kvorum answers what etcd answers, at one member and at three.

A script of requests runs on a fresh cluster of either kind. Its transcript holds every answer to the
byte, but for what is particular to a cluster: ids and addresses appear as the names of whom they
belong to, and members stand in the order of their names, once it is seen that they stood in the order
of their ids. What etcd 3.5.1 said stands in ``members/*.txt``, for people to read and for a test to
hold; kvorum's transcript must be that of the etcd that runs beside it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.service import Service
from tests.common.clusters import Cluster, start_etcd_cluster, start_kvorum_cluster
from tests.common.ports import free_ports
from tests.common.processes import KVORUM_SERVE
from tests.common.servers import Server, etcd_binary
from tests.differential.compare import ask, post
from tests.differential.corpus import PUT, RANGE, b64

MEMBER = "/v3/cluster/member/"
PATHS = {
    **{name: MEMBER + name for name in ("add", "remove", "update", "promote", "list")},
    "move": "/v3/maintenance/transfer-leadership",
    "status": "/v3/maintenance/status",
    "range": RANGE,
    "put": PUT,
}
BARRIER = post(PUT, {"key": b64(b"barrier")})
KINDS = {
    "etcd": (start_etcd_cluster, lambda: [str(etcd_binary()), "--log-level=error"]),
    "kvorum": (start_kvorum_cluster, lambda: [*KVORUM_SERVE]),
}
SECONDS = 30.0
# Of the revision, too: a put that was not answered in time may have been done.
_WEAK = re.compile(
    r'"(cluster_id|revision|raft_term|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse)":"\d+"'
)

kvorum_can = pytest.mark.skipif(
    not hasattr(Service, "member_add"), reason="kvorum's members cannot be changed yet"
)


class Side:
    """A cluster of one kind, and what it has been heard to say."""

    def __init__(self, kind: str, directory: Path, size: int, stack: contextlib.ExitStack) -> None:
        start, program = KINDS[kind]
        self.kind, self._directory, self._stack = kind, directory, stack
        self._program = program()
        self.cluster: Cluster = stack.enter_context(start(directory, size))
        self.servers: dict[str, Server] = {f"n{i + 1}": one for i, one in enumerate(self.cluster.members)}
        self.transcript: list[str] = []
        self.learners: set[str] = set()
        self._founders = size
        self._names: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        for member in json.loads(ask(self.servers["n1"], post(PATHS["list"], {})).body)["members"]:
            self.learn(member["ID"], member["name"])
            for url in (*member["peerURLs"], *member["clientURLs"]):
                self._names[url] = (
                    f"http://{member['name']}:{'peer' if url in member['peerURLs'] else 'client'}"
                )
        # The founders get names by what they do, so that both kinds have the same ones.
        leader = f"n{self.cluster.leader() + 1}"
        followers = [name for name in self.servers if name != leader]
        self._rename({leader: "L", **dict(zip(followers, ("F", "G"), strict=False))})

    def _rename(self, names: dict[str, str]) -> None:
        self.servers = {names[old]: server for old, server in self.servers.items()}
        self.ids = {new: self.ids[old] for old, new in names.items()}
        for value, shown in self._names.items():
            self._names[value] = re.sub(r"\bn\d\b", lambda found: names[found[0]], shown)

    def learn(self, member_id: str, name: str) -> None:
        self.ids[name] = member_id
        self._names[member_id] = name

    def say(
        self, at: str, what: str, message: object = None, *, until: Callable[[Any], bool] | None = None
    ) -> Any:
        """One request and its answer, written down. ``message`` may name members' ids as $NAME and their
        peer URLs as $NAME.peer; bytes are sent as they are. With ``until``, the first answer that is
        as wanted.

        Before each goes a put: etcd forgets a change of members that comes before it is quite done
        with the last one, and never answers it. It also makes sure that there is a leader.
        """
        if what not in ("status", "range", "put", "list"):
            self.settle("L" if at in self.learners else at)
        body = message if isinstance(message, bytes) else self._resolved(message or {})
        request = post(PATHS[what], {})._replace(body=body)
        deadline = time.monotonic() + SECONDS
        while True:
            answer = ask(self.servers[at], request)
            parsed = json.loads(answer.body)
            if until is None or until(parsed):
                break
            assert time.monotonic() < deadline, f"{self.kind}: {what} {message}: {answer}"
            time.sleep(0.1)
        shown = message.decode() if isinstance(message, bytes) else json.dumps(message or {})
        assert answer.content_type == "application/json"
        self.transcript.append(f"{at} {what} {shown} → {answer.status} {self._shown(answer.body)}")
        return parsed

    def settle(self, at: str) -> None:
        deadline = time.monotonic() + SECONDS
        while ask(self.servers[at], BARRIER).status != 200:
            assert time.monotonic() < deadline, f"{self.kind}: no leader\n{self.cluster.logs()}"
            time.sleep(0.05)

    def _resolved(self, message: object) -> bytes:
        urls = {name: url for url, name in self._names.items()}
        text = re.sub(r"\$(\w+)[.]peer", lambda found: urls[f"http://{found[1]}:peer"], json.dumps(message))
        return re.sub(r"\$(\w+)", lambda found: self.ids[found[1]], text).encode()

    def _shown(self, body: bytes) -> str:
        """Without what is particular to this cluster."""
        parsed = json.loads(body)
        written = json.dumps(parsed, separators=(",", ":"), ensure_ascii=False)
        for character in "<>&":
            written = written.replace(character, f"\\u{ord(character):04x}")
        assert written.encode() == body, f"{self.kind} writes this JSON in another way: {body!r}"
        if members := parsed.get("members"):
            ids = [int(one["ID"]) for one in members]
            assert ids == sorted(ids)
            for one in members:
                if one["ID"] not in self._names:  # who came at run time
                    self.learn(one["ID"], f"N{len(self.ids) - self._founders + 1}")
            members.sort(key=lambda one: self._names[one["ID"]])
        text = json.dumps(parsed, separators=(",", ":"), ensure_ascii=False)
        for value, name in self._names.items():
            text = text.replace(f'"{value}"', f'"{name}"')
        # The founders' own names depend on who happened to be elected.
        text = re.sub(r'("ID":"[LFG]","name":)"n\d"', r'\1"*"', text)
        return _WEAK.sub(r'"\1":"*"', text)

    def name_url(self, peer: int, name: str) -> None:
        self._names[f"http://127.0.0.1:{peer}"] = f"http://{name}:peer"

    def join(self, name: str, client: int, peer: int, members: list[dict[str, Any]]) -> None:
        """Start the server of a member that has been added."""
        everybody = ",".join(f"{one.get('name', name)}={url}" for one in members for url in one["peerURLs"])
        client_url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        self._names[client_url] = f"http://{name}:client"
        flags = [
            f"--name={name}",
            f"--data-dir={self._directory / name}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster={everybody}",
            "--initial-cluster-state=existing",
            f"--initial-cluster-token={self._directory.name}",
        ]
        server = Server([*self._program, *flags], client, self._directory / f"{name}.log")
        self._stack.callback(server.kill)
        self.servers[name] = server

    def until_it_answers(self, at: str, what: str, message: object) -> None:
        """Until the server is up and has caught up so far."""
        deadline = time.monotonic() + SECONDS
        request = post(PATHS[what], message)
        while True:
            with contextlib.suppress(OSError):
                if ask(self.servers[at], request).status == 200:
                    return
            assert time.monotonic() < deadline, f"{self.kind}: {at} does not come up\n{self.cluster.logs()}"
            time.sleep(0.05)


def one_member(side: Side) -> None:
    """All that can be said to a member that is alone: mistakes first."""
    say = side.say
    say("L", "list")
    say("L", "list", {"linearizable": True})
    # As learners: what one of the two took by mistake would otherwise cost it its quorum.
    for urls in (None, [], [""], [None], ["nope"], ["127.0.0.1:1"], ["http://h"], ["http://h:1/"]):
        say("L", "add", {"peerURLs": urls, "isLearner": True})
    for urls in (["http://h:1/p"], ["ftp://h:1"], ["http://h:x"], ["http://h:-1"], ["http://a b:1"]):
        say("L", "add", {"peerURLs": urls, "isLearner": True})
    for urls in (["http://[::1"], ["http://::1:5"], ["unix://a"], ["http://h:1", ""], ["http://h%41:1"]):
        say("L", "add", {"peerURLs": urls, "isLearner": True})
    for wrong in ({"peerURLs": "x"}, {"peerURLs": [1]}, {"peerURLs": {}}, {"peerUrls": ["http://h:1"]}):
        say("L", "add", wrong)
    for wrong in ({"isLearner": 1}, {"isLearner": "true"}):
        say("L", "add", {"peerURLs": ["http://h:1"], **wrong})
    ids = ({}, {"ID": None}, {"ID": 0}, {"ID": "123"}, {"ID": 123}, {"id": 1}, {"ID": "null"})
    bad_ids = ({"ID": -1}, {"ID": "-1"}, {"ID": 1.5}, {"ID": "x"}, {"ID": ""}, {"ID": True}, {"ID": []})
    big_ids = ({"ID": "18446744073709551615"}, {"ID": 18446744073709551615}, {"ID": "18446744073709551616"})
    for message in (*ids, *bad_ids, *big_ids):
        say("L", "remove", message)
        say("L", "promote", message)
        say("L", "update", {**message, "peerURLs": ["http://h:1"]})
    for what in ("remove", "promote"):
        for raw in (b"", b"null", b"{", b"[]"):
            say("L", what, raw)
    say("L", "update", {"ID": "$L", "peerURLs": ["$L.peer"]})
    say("L", "promote", {"ID": "$L"})
    for target in (None, 0, "77", "$L", -1, "x", True):
        say("L", "move", {"targetID": target})
    say("L", "move", {"target_id": "$L"})
    for learner in (False, True):
        say("L", "add", {"peerURLs": ["$L.peer"], "isLearner": learner})
    # A learner, whose server is never started.
    say(
        "L", "add", {"peerURLs": [" http://h:2", "http://h:1", "http://h:2", "HTTP://h:0"], "isLearner": True}
    )
    say("L", "list", {"linearizable": True})
    for urls in (["http://h:9"], ["http://h:1"], ["http://h:8", "http://h:2"], ["nope"]):
        say("L", "add", {"peerURLs": urls, "isLearner": True})
    say("L", "add", {"peerURLs": ["http://h:1"]})
    say("L", "promote", {"ID": "$N1"})
    say("L", "move", {"targetID": "$N1"})
    say("L", "remove", {"ID": "$N1"})
    say("L", "remove", {"ID": "$N1"})
    say("L", "promote", {"ID": "$N1"})
    say("L", "update", {"ID": "$N1", "peerURLs": ["http://h:5"]})
    say("L", "move", {"targetID": "$N1"})
    say("L", "list", {"linearizable": True})


def three_members(side: Side) -> None:
    """A fourth comes as a learner, votes, leads and goes; then the cluster is left with too few."""
    say = side.say
    for at in ("L", "F", "G"):
        say(at, "list")
    for target in (0, "77", "$F", "$L"):
        say("F", "move", {"targetID": target})
    for target in (0, "77", "$L"):
        say("L", "move", {"targetID": target})
    for at in ("L", "F"):
        say(at, "promote", {"ID": "$F"})
        say(at, "promote", {"ID": "5"})
        say(at, "remove", {"ID": "5"})
        say(at, "update", {"ID": "5", "peerURLs": ["http://h:1"]})
        say(at, "update", {"ID": "$F", "peerURLs": ["$G.peer"]})
    # Voters must have been connected for five seconds before there can be more members.
    client, peer = free_ports(2)
    side.name_url(peer, "N1")
    joined = say("F", "add", {"peerURLs": ["$N1.peer"], "isLearner": True}, until=is_done)
    say("F", "add", {"peerURLs": ["http://h:1"], "isLearner": True})
    say("F", "add", {"peerURLs": ["$G.peer"]})
    for at in ("F", "L"):
        say(at, "promote", {"ID": "$N1"})
    say("L", "move", {"targetID": "$N1"})
    # A learner serves what it has, and nothing else.
    side.join("N1", client, peer, joined["members"])
    side.learners.add("N1")
    side.until_it_answers("N1", "range", {"key": b64(b"barrier"), "serializable": True})
    say("L", "list", until=lambda answer: all("name" in one for one in answer["members"]))
    say("N1", "status")
    say("N1", "range", {"key": b64(b"other"), "serializable": True})
    say("N1", "range", {"key": b64(b"other")})
    say("N1", "put", {"key": b64(b"other")})
    for linearizable in (False, True):
        say("N1", "list", {"linearizable": linearizable})
    say("N1", "add", {"peerURLs": ["http://h:1"]})
    say("N1", "update", {"ID": "$N1", "peerURLs": ["$N1.peer"]})
    for what in ("remove", "promote"):
        say("N1", what, {"ID": "$N1"})
    say("N1", "move", {"targetID": "$N1"})
    say("L", "move", {"targetID": "$N1"})
    say("L", "add", {"peerURLs": ["http://h:1"], "isLearner": True})
    say("F", "promote", {"ID": "$N1"}, until=is_done)
    side.learners.clear()
    say("F", "promote", {"ID": "$N1"})
    say("L", "move", {"targetID": "$N1"})
    for at in ("L", "F", "G", "N1"):
        say(at, "status", until=lambda answer: answer.get("leader") == side.ids["N1"])
    # The leader goes; its server ends by itself.
    say("F", "remove", {"ID": "$N1"}, until=is_done)
    say("F", "remove", {"ID": "$N1"}, until=lambda answer: answer.get("code") == 5)
    side.transcript.append(f"N1 ends with {side.servers['N1'].process.wait(timeout=SECONDS)}")
    # Two voters that never start: of five, three are there.
    say("F", "add", {"peerURLs": ["http://127.0.0.1:1"]}, until=is_done)
    say("F", "remove", {"ID": "$G"}, until=is_done)
    side.transcript.append(f"G ends with {side.servers['G'].process.wait(timeout=SECONDS)}")
    say("F", "remove", {"ID": "$L"})
    say("F", "list")


def is_done(answer: Any) -> bool:
    return "error" not in answer


SCRIPTS = {"one": (1, one_member), "three": (3, three_members)}


def transcript(kind: str, name: str, directory: Path) -> list[str]:
    size, script = SCRIPTS[name]
    with contextlib.ExitStack() as stack:
        side = Side(kind, directory / kind, size, stack)
        script(side)
        return side.transcript


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_etcd_says(name: str, rewrite: bool, tmp_path: Path) -> None:
    """The oracle has not changed its mind. --rewrite writes down what it says now."""
    file = Path(__file__).parent / "members" / f"{name}.txt"
    said = "".join(line + "\n" for line in transcript("etcd", name, tmp_path))
    if rewrite:
        file.parent.mkdir(exist_ok=True)
        file.write_text(said)
    assert said == file.read_text()


@kvorum_can
@pytest.mark.parametrize("name", SCRIPTS)
def test_members_change_as_etcds_do(name: str, tmp_path: Path) -> None:
    """Every answer of the script, from any member, is etcd's."""
    assert transcript("kvorum", name, tmp_path) == transcript("etcd", name, tmp_path)
