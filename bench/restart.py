"""From the start of all members to the first linearizable read, after the whole cluster was killed.

Every node is asked for one key again and again, until one of them answers: what a client with a list
of endpoints sees. Elections count, as does what a node does with its log and state when it starts.
The page cache is warm, for both.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import threading
import time
from collections.abc import Sequence

from bench.clusters import Side
from bench.figures import SECONDS, Run
from bench.filling import key

SETTLE_SECONDS = 1.0  # before the kill: what the last start began is done
ATTEMPT_SECONDS = 1.0
PAUSE_SECONDS = 0.002
FAILED_SECONDS = 300.0


def restart(side: Side) -> Run:
    """Leaves the cluster healthy."""
    time.sleep(SETTLE_SECONDS)
    for i in range(len(side.members)):
        side.cluster.kill(i)
    started = time.monotonic()
    for i in range(len(side.members)):
        side.cluster.restart(i)
    wait_for_read([member.port for member in side.members])
    seconds = time.monotonic() - started
    side.cluster.wait_until_healthy()
    return {SECONDS: seconds}


def wait_for_read(ports: Sequence[int]) -> None:
    """Until any of them answers."""
    answered, ended = threading.Event(), threading.Event()

    def ask(port: int) -> None:
        while not ended.is_set():
            if read(port):
                answered.set()
                return
            time.sleep(PAUSE_SECONDS)

    threads = [threading.Thread(target=ask, args=(port,), daemon=True) for port in ports]
    for thread in threads:
        thread.start()
    if not answered.wait(FAILED_SECONDS):
        raise SystemExit(f"no linearizable read in {FAILED_SECONDS} s after the restart")
    ended.set()


def read(port: int) -> bool:
    """A linearizable range of the first key."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ATTEMPT_SECONDS)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        body = b'{"key":"%s"}' % base64.b64encode(key(0))
        connection.request("POST", "/v3/kv/range", body)
        response = connection.getresponse()
        return response.status == 200 and b'"kvs"' in response.read()
    return False
