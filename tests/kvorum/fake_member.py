"""A program that looks like a member to ``kvorum cluster``: it logs, answers /health and stops when told.

FAKE_ENDS=NAME:CODE makes the one of that name end by itself once it is healthy, FAKE_STUBBORN=NAME
makes that one ignore SIGTERM.
"""

from __future__ import annotations

import http.server
import os
import signal
import sys
import threading

flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:] if "=" in argument)
name = flags["name"]


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        ends, _, code = os.environ.get("FAKE_ENDS", "").partition(":")
        if ends == name:
            print("has had enough", flush=True)
            os._exit(int(code))

    def log_message(self, *_: object) -> None:
        pass


def stop(*_: object) -> None:
    if os.environ.get("FAKE_STUBBORN") == name:
        print("does not listen", flush=True)
        return
    print("stops", flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, stop)
address = flags["listen-client-urls"].removeprefix("http://").split(":")
server = http.server.HTTPServer((address[0], int(address[1])), Health)
print(f"pid {os.getpid()}", flush=True)
print("started with " + " ".join(sys.argv[1:]), file=sys.stderr, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    signal.pause()
