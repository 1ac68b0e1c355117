"""Where the members live: each in its network namespace, or, without root, all on 127.0.0.1.

    outer namespace soakPID: bridge 10.77.0.254, the clients, the relays
      │        ├─ 10.77.1.i: a relay connects from here when member i has connected to it
      │        └─ 10.77.2.j: the relay before member j listens here
      ├─ namespace soakPID-n1: eth0 10.77.0.1
      └─ namespace soakPID-n2: eth0 10.77.0.2 …

So whatever comes from member i, over a relay or not, has an address that ends in i and is none of the
clients': nftables rules in the receiving member's namespace can tell who sent it. No address of it exists
outside of the outer namespace. The process that makes the namespaces only waits and tears down; all the
rest runs in a second process inside the outer one (``enter``). What a dead run has left is removed by the
next one: the names carry the pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.common.ports import free_port

NETNS = Path("/run/netns")
_NAME = re.compile(r"soak(\d+)(-n\d+)?$")
_DIRECTORY = re.compile(r"/kvorum-soak-(\d+)-[^/]*/")
_TOOLS = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "setpriv": "util-linux"}
LIBFAKETIME = "faketime/libfaketime.so.1"


def why_no_namespaces() -> str | None:
    """None if there can be namespaces, else the reason."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [f"{tool} (package {package})" for tool, package in _TOOLS.items() if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)}"
    name = f"soak{os.getpid()}"
    for command in (
        ["ip", "netns", "add", name],
        ["nsenter", f"--net={NETNS / name}", "nft", "list", "ruleset"],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            reason = ran.stderr.strip().splitlines()[-1:] or ["failed"]
            _remove_namespaces([name])
            return f"{' '.join(command[:3])}: {reason[0]}"
    _remove_namespaces([name])
    return None


def libfaketime() -> Path | None:
    found = sorted(Path("/usr/lib").glob(f"*/{LIBFAKETIME}"))
    return found[0] if found else None


# The process outside.


def enter(arguments: Sequence[str], nodes: int, module: str = "tests.soak.main") -> int:
    """Run ``python -m MODULE`` with these arguments inside a new lab; its exit code."""
    remove_leftovers()
    outer = f"soak{os.getpid()}"
    names = [f"{outer}-n{number}" for number in range(1, nodes + 1)]
    child: subprocess.Popen[bytes] | None = None

    def forward(signum: int, _frame: object) -> None:
        if child is not None:
            child.send_signal(signum)

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, forward)
    try:
        _run("ip", "netns", "add", outer)
        for name in names:
            _run("ip", "netns", "add", name)
        child = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "TERM", "nsenter", f"--net={NETNS / outer}"),
                *(sys.executable, "-m", module, *arguments, "--lab", outer),
            ],
            start_new_session=True,
        )
        code = child.wait()
        return code if code >= 0 else 128 - code
    finally:
        _remove_namespaces([*names, outer])
        _unmount(lambda pid: pid == os.getpid())


def remove_leftovers() -> None:
    """End and remove what runs have left whose process is gone."""
    names = sorted(path.name for path in NETNS.glob("soak*")) if NETNS.exists() else []
    dead = [name for name in names if (found := _NAME.match(name)) and not _is_alive(int(found[1]))]
    _remove_namespaces(dead)
    _unmount(lambda pid: not _is_alive(pid))


def _unmount(is_of: Callable[[int], bool]) -> None:
    """The small disks of runs with these pids."""
    for mount in Path("/proc/mounts").read_text().splitlines():
        where = mount.split()[1]
        found = _DIRECTORY.search(where)
        if found and is_of(int(found[1])):
            subprocess.run(["umount", "-l", where], capture_output=True, check=False)


def run_directory(pid: int) -> Path:
    """Where a run keeps its data and logs; the name says whose it is."""
    return Path(tempfile.mkdtemp(prefix=f"kvorum-soak-{pid}-"))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove_namespaces(names: Iterable[str]) -> None:
    for name in sorted(names, reverse=True):  # those of the members before the outer one
        if not (NETNS / name).exists():
            continue
        found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


# The process inside.


class Lab:
    """``name`` is the outer namespace's, or None: then everything is on 127.0.0.1."""

    def __init__(self, name: str | None, nodes: int) -> None:
        self.name = name
        self.nodes = nodes
        self._ports = {} if name else {key: free_port() for key in self._port_keys()}

    def _port_keys(self) -> list[tuple[str, int]]:
        kinds = ("client", "peer", "peer2", "relay")
        return [(kind, node) for kind in kinds for node in range(1, self.nodes + 1)]

    async def set_up(self) -> None:
        if self.name is None:
            return
        await call("ip", "link", "set", "lo", "up")
        await call("ip", "link", "add", "br0", "type", "bridge")
        for address in (
            "10.77.0.254",
            *(f"10.77.{part}.{node}" for part in (1, 2) for node in range(1, self.nodes + 1)),
        ):
            await call("ip", "address", "add", f"{address}/16", "dev", "br0")
        await call("ip", "link", "set", "br0", "up")
        for node in range(1, self.nodes + 1):
            inside = f"{self.name}-n{node}"
            await call(
                "ip", "link", "add", f"v{node}", "type", "veth", "peer", "name", "eth0", "netns", inside
            )
            await call("ip", "link", "set", f"v{node}", "master", "br0", "up")
            await self.inside(node, "ip", "link", "set", "lo", "up")
            await self.inside(node, "ip", "address", "add", f"10.77.0.{node}/16", "dev", "eth0")
            await self.inside(node, "ip", "link", "set", "eth0", "up")
            await self._nft(
                node, "add table inet f; add chain inet f in { type filter hook input priority 0 ; }"
            )

    def prefix(self, node: int) -> list[str]:
        """What goes before a command to run it as this member: in its namespace, ended with us."""
        command = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        return [*command, "nsenter", f"--net={NETNS / f'{self.name}-n{node}'}"] if self.name else command

    async def inside(self, node: int, *command: str) -> None:
        await call("nsenter", f"--net={NETNS / f'{self.name}-n{node}'}", *command)

    # Addresses.

    def client(self, node: int) -> tuple[str, int]:
        return (f"10.77.0.{node}", 2379) if self.name else ("127.0.0.1", self._ports["client", node])

    def peer(self, node: int, generation: int) -> tuple[str, int]:
        """Where a member listens to its peers; a member that replaces it may do so elsewhere."""
        if self.name:
            return f"10.77.0.{node}", 2380 + generation % 2
        return "127.0.0.1", self._ports["peer2" if generation % 2 else "peer", node]

    def relay(self, node: int) -> tuple[str, int]:
        return (f"10.77.2.{node}", 2380) if self.name else ("127.0.0.1", self._ports["relay", node])

    def relay_source(self, address: str) -> tuple[str, int] | None:
        """Where a relay connects from on behalf of whoever has this address."""
        return (f"10.77.1.{address.rsplit('.', 1)[1]}", 0) if self.name else None

    # The network's faults: rules in the receiving member's namespace.

    async def drop(self, receiver: int, senders: Iterable[int], percent: int = 100) -> None:
        """Lose what ``senders`` send to ``receiver``; 0 among them is the clients."""
        addresses = [
            address
            for sender in senders
            for address in ([f"10.77.{part}.{sender}" for part in (0, 1, 2)] if sender else ["10.77.0.254"])
        ]
        if not addresses:
            return
        chance = f"numgen random mod 100 < {percent} " if percent < 100 else ""
        await self._nft(receiver, f"add rule inet f in ip saddr {{ {', '.join(addresses)} }} {chance}drop")

    async def heal(self, receiver: int) -> None:
        await self._nft(receiver, "flush chain inet f in")

    async def _nft(self, node: int, commands: str) -> None:
        await self.inside(node, "nft", commands)


async def call(*command: str) -> str:
    """Run a command; its output. Raises if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {errors.decode().strip()}")
    return output.decode()
