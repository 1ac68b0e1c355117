"""One request to both servers, and what must be the same in their answers."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from typing import NamedTuple

from tests.common.servers import Server, etcd_binary

_CLUSTER_SPECIFIC = [
    (re.compile(rb'"(cluster_id|member_id|leader)":"\d+"'), rb'"\1":"*"'),
    (re.compile(rb'"raft_term":"\d+"'), rb'"raft_term":"*"'),
]
_MEMBER_ID = re.compile(rb'"ID":"\d+"')
_CHOSEN_LEASE_ID = re.compile(rb'"ID":"\d{14,}"')  # by the server; clients of tests choose short ones
_TTL_LEFT = re.compile(rb'"TTL":"(\d+)","grantedTTL":"(\d+)"')
_MEMBER_SPECIFIC = re.compile(rb'"(dbSize|dbSizeInUse|raftIndex|raftTerm|raftAppliedIndex)":"\d+"')
_URLS = re.compile(rb"http://127\.0\.0\.1:\d+|http://localhost:\d+")


class Answer(NamedTuple):
    status: int
    content_type: str | None
    body: bytes


class Request(NamedTuple):
    """A request as bytes, so that it can be as wrong as it likes."""

    path: str
    body: bytes = b""
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()


def post(path: str, message: object) -> Request:
    return Request(path, json.dumps(message).encode())


def ask(server: Server, request: Request) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
    try:
        connection.request(request.method, request.path, request.body or None, dict(request.headers))
        response = connection.getresponse()
        return Answer(response.status, response.getheader("Content-Type"), response.read())
    finally:
        connection.close()


def normalised(answer: Answer, path: str) -> Answer:
    """Without what is particular to a cluster."""
    body = answer.body
    for pattern, replacement in _CLUSTER_SPECIFIC:
        body = pattern.sub(replacement, body)
    body = _CHOSEN_LEASE_ID.sub(b'"ID":"*"', body) if "/lease/" in path else _MEMBER_ID.sub(b'"ID":"*"', body)
    if path.endswith("/lease/timetolive"):
        body = _keys_in_order(_TTL_LEFT.sub(_roughly, body))
    if path.endswith("/lease/leases"):
        body = _in_order(rb'(?<="leases":\[)[^]]*', body)
    if path.endswith("/maintenance/status"):
        body = _MEMBER_SPECIFIC.sub(rb'"\1":"*"', body)
    if path.endswith("/maintenance/hash"):
        body = re.sub(rb'"hash":\d+', b'"hash":*', body)
    if path.endswith("/member/list"):
        body = _URLS.sub(b"http://*", body)
    return answer._replace(body=body)


def _roughly(left: re.Match[bytes]) -> bytes:
    """What is left of a lease that tests have granted a moment ago differs by what the moment was."""
    ttl, granted = int(left[1]), int(left[2])
    return left[0].replace(left[1], b"almost all", 1) if granted - 20 <= ttl < granted else left[0]


def _keys_in_order(body: bytes) -> bytes:
    """etcd says the keys of a lease in no order."""
    return _in_order(rb'(?<="keys":\[)[^]]*', body)


def _in_order(pattern: bytes, body: bytes) -> bytes:
    return re.sub(pattern, lambda found: b",".join(sorted(found[0].split(b","))), body)


def _short(what: Request | Answer) -> str:
    return str(tuple(part if len(str(part)) < 2000 else f"{str(part)[:2000]}…" for part in what))


def etcd_hash_kv(etcd: Server, revision: int) -> object:
    """etcd 3.5's gateway has no path for HashKV, so this asks by gRPC: (hash, compact revision), or
    the error's text."""
    command = [str(etcd_binary("etcdctl")), f"--endpoints={etcd.url}", "-w", "json", "endpoint", "hashkv"]
    command += ["--dial-timeout=20s", "--command-timeout=20s"]  # its own are short for a busy machine
    ran = subprocess.run([*command, f"--rev={revision}"], capture_output=True, text=True, check=False)
    if ran.returncode:
        return re.search(r"desc = (.*?)[\")]", ran.stderr)[1]
    answer = json.loads(ran.stdout)[0]["HashKV"]
    return answer["hash"], answer["compact_revision"]


def kvorum_hash_kv(kvorum: Server, request: Request) -> object:
    answer = json.loads(ask(kvorum, request).body)
    if "error" in answer:
        return answer["error"]
    return answer["hash"], int(answer["compact_revision"])


def assert_same(etcd: Server, kvorum: Server, request: Request) -> None:
    """Ask both."""
    if request.path == "/v3/maintenance/hashkv" and b'"revision"' in request.body:
        theirs = etcd_hash_kv(etcd, json.loads(request.body)["revision"])
        hashed = kvorum_hash_kv(kvorum, request)
        assert hashed == theirs, f"\n{_short(request)}\netcd:   {theirs}\nkvorum: {hashed}"
        return
    theirs, ours = ask(etcd, request), ask(kvorum, request)
    expected, actual = normalised(theirs, request.path), normalised(ours, request.path)
    assert actual == expected, f"\n{_short(request)}\netcd:   {_short(expected)}\nkvorum: {_short(actual)}"
