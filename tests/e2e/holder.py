"""What runs while ``kvorum lock`` holds: tells with its fencing token when it begins, that it is there, and
when it ends, in a file that all holders share; and keeps a counter in the store, which it changes only as
long as its lock's key is there.

    holder.py JOURNAL KEY ENDPOINT…
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import random
import sys
import time

TOKEN = int(os.environ["KVORUM_FENCING_TOKEN"])
LOCK_KEY = os.environ["ETCD_LOCK_KEY"]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def tell(journal: int, word: str) -> None:
    """One line in one write: so lines stand in the order in which they were true."""
    os.write(journal, f"{word} {TOKEN} {os.getppid()}\n".encode())


def count(endpoints: itertools.cycle[str], key: str, number: int) -> str:
    """Write to the store as who holds the lock: done, fenced (he does no more), or unknown."""
    compare = {"key": b64(LOCK_KEY), "target": "CREATE", "create_revision": str(TOKEN)}
    put = {"request_put": {"key": b64(key), "value": b64(f"{TOKEN} {number}")}}
    host, _, port = next(endpoints).rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=1)
    try:
        connection.request("POST", "/v3/kv/txn", json.dumps({"compare": [compare], "success": [put]}))
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            return "unknown"
        return "done" if answer.get("succeeded") else "fenced"
    except (OSError, http.client.HTTPException, ValueError):
        return "unknown"
    finally:
        connection.close()


def main(path: str, key: str, *addresses: str) -> None:
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    endpoints = itertools.cycle(random.sample(addresses, len(addresses)))
    tell(journal, "begin")
    # Sometimes longer than the lease lives if it is not renewed.
    until = time.monotonic() + random.choice((0.1, 0.3, 3.0))
    number = 0
    while time.monotonic() < until:
        tell(journal, "holds")
        number += 1
        tell(journal, count(endpoints, key, number))
        time.sleep(0.01)
    tell(journal, "end")


if __name__ == "__main__":
    main(*sys.argv[1:])
