"""member, move-leader and endpoint hashkv against etcdctl, on real etcd."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from api.identity import member_id
from tests.common.commands import Ran, run_here
from tests.common.ports import free_port, free_ports
from tests.common.servers import ROOT, Server, etcd_binary, running, start_etcd

TOOLS = ("etcdctl", "kvorum")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Server]:
    """One member, which a test may give company. Its id is short, for it is padded in some places and not in
    others: a token is chosen that makes it so."""
    peer = f"http://127.0.0.1:{free_port()}"
    token = next(token for token in map(str, count()) if member_id([peer], token) < 1 << 60)
    flags = (
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        f"--initial-cluster-token={token}",
    )
    with running(start_etcd(tmp_path, *flags)) as server:
        assert members(server)[0]["ID"] < 1 << 60
        yield server


def run(tool: str, server: Server, line: str) -> tuple[int, str, str]:
    """Exit code, output, and the line that says what is wrong."""
    words = [f"--endpoints=127.0.0.1:{server.port}", *shlex.split(line)]
    if tool == "kvorum":
        ran = run_here(words)
    else:
        etcdctl = [str(etcd_binary("etcdctl")), *words]
        said = subprocess.run(etcdctl, capture_output=True, text=True, cwd=ROOT, check=False)
        ran = Ran(said.returncode, said.stdout, said.stderr)
    errors = [one for one in ran.error.splitlines() if not one.startswith("{")]
    return ran.code, ran.out, "\n".join(errors)


def change(tool: str, server: Server, line: str) -> tuple[int, str, str]:
    """As ``run``, and a put behind it: etcd forgets a change of members that comes before it is
    quite done with the last one, and never answers it. A put has to be applied behind that."""
    result = run(tool, server, line)
    assert run("kvorum", server, "put barrier 1")[0] == 0
    return result


def members(server: Server) -> list[dict]:
    """The founder first."""
    shown = json.loads(run("kvorum", server, "member list -w json")[1])["members"]
    return sorted(shown, key=lambda one: one.get("name") != "default")


READS = """
member list
member list extra
member list -w json
member list -w json --hex
member list -w fields
member list -w table
endpoint status
endpoint status -w json
""".strip().splitlines()
REFUSED = """
member add
member add a
member add a b --peer-urls=http://h:1
member add a --peer-urls=
member add a --peer-urls=nope
member add a --peer-urls=http://h
member add a --peer-urls=http://h:1/
member add a --peer-urls=http://h:1/path
member add a --peer-urls=http://h:1,x
member add a --peer-urls=FTP://h:1
member add a --peer-urls={url}
member add a --peer-urls=http://other:1 --learner
member update
member update {learner}
member update zz --peer-urls=http://h:5
member update 99 --peer-urls=http://h:5
member update {learner} --peer-urls=nope
member update {learner} --peer-urls={url}
member remove
member remove 1 2
member remove zz
member remove ''
member remove 0x{learner}
member remove -- -1
member remove 99
member remove 0
member remove FFFFFFFFFFFFFFFF
member remove FFFFFFFFFFFFFFFFF
member promote
member promote zz
member promote 99
member promote {learner}
member promote {me}
move-leader
move-leader 1 2
move-leader zz
move-leader 0
move-leader 99
move-leader {learner}
move-leader {me}
move-leader {me} -w json
""".strip().splitlines()


def test_reads_and_refusals_say_what_etcdctl_says(etcd: Server) -> None:
    """Every output, exit code and error, to the byte: both tools ask the same server, where a
    learner waits to be started."""
    assert change("kvorum", etcd, "member add new --learner --peer-urls=http://h:2,http://h:1")[0] == 0
    me, learner = members(etcd)
    names = {"me": f"{me['ID']:x}", "learner": f"{learner['ID']:x}", "url": me["peerURLs"][0]}
    for line in READS:
        assert run("kvorum", etcd, line) == run("etcdctl", etcd, line), line
    for line in REFUSED:
        arguments = line.format(**names)
        assert change("kvorum", etcd, arguments) == change("etcdctl", etcd, arguments), line


def test_changes_say_what_etcdctl_says(etcd: Server) -> None:
    """Output of what is done. Each tool has a learner of its own, since a cluster takes one at a time."""
    seen = {}
    for tool in TOOLS:
        seen[tool] = []
        for flags in ("", "-w json"):
            urls = f"http://{tool}{len(flags)}:1,http://{tool}{len(flags)}:2"
            seen[tool].append(change(tool, etcd, f"member add n2 --learner --peer-urls={urls} {flags}"))
            learner = f"{members(etcd)[1]['ID']:x}"
            for line in (f"member update {learner} --peer-urls=http://{tool}:9", f"member remove {learner}"):
                seen[tool].append(change(tool, etcd, f"{line} {flags}"))
    for ours, theirs in zip(seen["kvorum"], seen["etcdctl"], strict=True):
        assert without_ids(ours[1]) == without_ids(theirs[1])
        assert ours[0] == theirs[0] == 0
        assert ours[2] == theirs[2] == ""


def without_ids(text: str) -> str:
    """Ids differ, and the order of members goes by them."""
    text = text.replace("etcdctl", "TOOL").replace("kvorum", "TOOL")
    if text.startswith("{"):
        answer = json.loads(text)
        answer["members"].sort(key=lambda one: one.get("name", ""))
        text = json.dumps(answer)
    text = re.sub(r'("ID": )\d+', r"\1N", text)
    text = re.sub(r"Member [0-9a-f ]{16} ", "Member ID ", text)
    return re.sub('(?<=INITIAL_CLUSTER=")[^"]*', lambda found: ",".join(sorted(found[0].split(","))), text)


@pytest.mark.parametrize("form", ["table", "fields"])
def test_a_format_that_a_change_does_not_have_is_refused_before_it(form: str, etcd: Server) -> None:
    """etcdctl adds the member first, and then says so in the same words."""
    line = f"member add n2 --learner --peer-urls=http://h:1 -w {form}"
    assert run("kvorum", etcd, line) == (4, "", f"Error: {form} not supported as output format")
    assert len(members(etcd)) == 1
    assert run("etcdctl", etcd, line) == (4, "", f"Error: {form} not supported as output format")
    assert len(members(etcd)) == 2


def test_a_member_comes_leads_and_goes(etcd: Server, tmp_path: Path) -> None:
    """What ``member add`` prints starts the new server; it learns, votes, leads, and ends when removed."""
    client, peer = free_ports(2)
    url = f"http://127.0.0.1:{client}"
    printed = change("kvorum", etcd, f"member add n2 --learner --peer-urls=http://127.0.0.1:{peer}")[1]
    variables = dict(shlex.split(line)[0].split("=", 1) for line in printed.splitlines() if "=" in line)
    assert list(variables) == [
        "ETCD_NAME",
        "ETCD_INITIAL_CLUSTER",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        "ETCD_INITIAL_CLUSTER_STATE",
    ]
    flags = [f"--{name[5:].lower().replace('_', '-')}={value}" for name, value in variables.items()]
    more = [f"--listen-client-urls={url}", f"--advertise-client-urls={url}", f"--data-dir={tmp_path / 'n2'}"]
    listen = f"--listen-peer-urls=http://127.0.0.1:{peer}"
    second = Server([str(etcd_binary()), *flags, *more, listen], client, tmp_path / "n2.log")
    try:
        learner = f"{members(etcd)[-1]['ID']:16x}"
        promoted = eventually(lambda: run("kvorum", etcd, f"member promote {learner.strip()}"))
        assert re.fullmatch(rf"Member {learner} promoted in cluster [0-9a-f ]{{16}}\n", promoted)
        second.wait_until_healthy()
        us = f"{members(etcd)[0]['ID']:16x}"
        # The leader is asked, whichever endpoint is named first, and although one is silent.
        endpoints = f"127.0.0.1:{free_port()},{url},{etcd.url}"
        moved = run("kvorum", etcd, f"--endpoints={endpoints} move-leader {learner.strip()}")
        assert moved == (0, f"Leadership transferred from {us.strip()} to {learner.strip()}\n", "")
        # At a follower alone, it cannot be done.
        alone = f"move-leader {us.strip()}"
        assert run("kvorum", etcd, alone) == run("etcdctl", etcd, alone)
        assert run("kvorum", etcd, alone)[0] == 128
        # etcd takes changes only from a cluster that has been well for five seconds.
        removed = eventually(lambda: run("kvorum", etcd, f"member remove {learner.strip()}"))
        assert re.fullmatch(rf"Member {learner} removed from cluster [0-9a-f ]{{16}}\n", removed)
        assert second.process.wait(timeout=15) == 0
        left = eventually(lambda: run("kvorum", etcd, "member list"))  # once it leads again
        assert re.fullmatch(rf"{us.strip()}, started, default, .*\n", left)
    finally:
        second.kill()


def eventually(attempt: Callable[[], tuple[int, str, str]], seconds: float = 15.0) -> str:
    """The output of the first attempt that succeeds."""
    deadline = time.monotonic() + seconds
    while True:
        code, out, error = attempt()
        if code == 0:
            return out
        assert time.monotonic() < deadline, error
        time.sleep(0.1)


def test_hashes_of_endpoints(kvorum_server: Server) -> None:
    """etcd's gateway learned this path only in 3.6: the forms are those etcdctl 3.5.1 printed."""
    url = kvorum_server.url
    run("kvorum", kvorum_server, "put hashed 1")
    code, out, error = run("kvorum", kvorum_server, f"--endpoints={url} endpoint hashkv -w json")
    [one] = json.loads(out)
    assert (code, error, one["Endpoint"]) == (0, "", url)
    assert list(one["HashKV"]["header"]) == ["cluster_id", "member_id", "revision", "raft_term"]
    head, value = one["HashKV"]["header"], one["HashKV"]["hash"]
    at = f"--endpoints={url} endpoint hashkv --rev={head['revision']}"
    assert run("kvorum", kvorum_server, at) == (0, f"{url}, {value}\n", "")
    fields = run("kvorum", kvorum_server, f"{at} -w fields")[1].splitlines()
    assert fields[0] == f'"ClusterID" : {head["cluster_id"]}'
    assert fields[4:] == [f'"Endpoint" : "{url}"', f'"Hash" : {value}', ""]
    table = run("kvorum", kvorum_server, f"{at} -w table")[1].splitlines()
    assert [part.strip() for part in table[1].split("|")[1:3]] == ["ENDPOINT", "HASH"]
    assert [part.strip() for part in table[3].split("|")[1:3]] == [url, str(value)]
    future = run("kvorum", kvorum_server, f"--endpoints={url} endpoint hashkv --rev=999999999")
    problem = "etcdserver: mvcc: required revision is a future revision"
    assert future == (1, "", f"Failed to get the hash of endpoint {url} ({problem})\nError: {problem}")
