"""The process that servers are forked from.

It imports the server's packages once, half a second's work, and then waits for requests on its
standard input, a socket of JSON packets, each of which is answered:

    {"do": "fork", "flags": [...], "log": PATH}     → {"pid": 4711}, which logs to PATH
    {"do": "signal", "pids": [...], "signal": 9}    → {}
    {"do": "poll", "pids": [...]}                   → {"codes": [null, -9]}, null for one that runs
                                                    or {"error": "…"}

The servers are its children, so a pid is theirs until their end was noted here: no signal ever goes to
a stranger. When the tests' process is gone it kills them, removes all data and ends; when it is
killed itself, the kernel kills them.

It never runs a server itself, nor a thread or an event loop: a fork would have half of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from kvorum.server_packages import command_line

PACKET_BYTES_MAX = 1 << 17
PARENT_SECONDS = 0.5
"""How often it looks whether its parent still is there: a fork of that one may hold the socket open."""
_PR_SET_PDEATHSIG = 1
_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(directory: Path, parent: int) -> None:
    """Serve requests until the process ``parent`` is gone; ``directory`` is removed then."""
    # Whoever stops the tests, by Ctrl-C or a whole process group, may reach us too. We go after them.
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(directory)
    control = socket.socket(fileno=os.dup(0))
    control.settimeout(PARENT_SECONDS)
    server = command_line()
    _warm_up(server)
    zygote = Zygote(server, control)
    # What is there now is not looked at again in every child, and its pages stay shared.
    gc.collect()
    gc.freeze()
    try:
        while (packet := _next_packet(control, parent)) is not None:
            control.send(json.dumps(zygote.answer(json.loads(packet))).encode())
    except OSError:
        pass  # the parent went while it was answered
    finally:
        zygote.kill_all()
        shutil.rmtree(directory, ignore_errors=True)


def _warm_up(server: Any) -> None:
    """What fills tables and imports more when it is first done, and would be first in every child."""
    with contextlib.redirect_stdout(io.StringIO()):
        server.main(["--help"])
    socket.getaddrinfo("127.0.0.1", 0)


def _next_packet(control: socket.socket, parent: int) -> bytes | None:
    """The next request; None when there will be none."""
    while os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            return control.recv(PACKET_BYTES_MAX) or None
    return None


class Zygote:
    """``server`` is the module with the server's ``main``; children close ``control``."""

    def __init__(self, server: Any, control: socket.socket) -> None:
        self._server = server
        self._control = control
        self._pid = os.getpid()
        self._running: set[int] = set()
        self._ended: dict[int, int] = {}
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "fork":
                return self._fork(request["flags"], request["log"])
            case "signal":
                self._note_ends()
                for pid in self._running.intersection(request["pids"]):
                    os.kill(pid, request["signal"])
                return {}
            case "poll":
                self._note_ends()
                return {"codes": [self._ended.get(pid) for pid in request["pids"]]}
        raise AssertionError(request)

    def kill_all(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _note_ends(self) -> None:
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._running.remove(pid)
                self._ended[pid] = os.waitstatus_to_exitcode(status)

    def _fork(self, flags: list[str], log: str) -> dict[str, Any]:
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            return {"error": f"its log cannot be written: {error}"}
        try:
            pid = os.fork()
        except OSError as error:
            os.close(output)
            return {"error": f"no process for it: {error.strerror}"}
        if pid == 0:
            self._become_server(flags, output)
        os.close(output)
        self._ended.pop(pid, None)  # an older one's, whose number came again
        self._running.add(pid)
        return {"pid": pid}

    def _become_server(self, flags: list[str], output: int) -> NoReturn:
        code = 1
        try:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self._pid:  # it was killed before we could ask
                os._exit(code)
            self._control.close()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            for number in _NOT_OURS:
                signal.signal(number, signal.SIG_DFL)
            code = self._server.main(flags)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            # Not sys.exit: what the zygote does at its end is not ours to do.
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
