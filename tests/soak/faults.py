"""What goes wrong, one thing after the other, and what heals it.

``KINDS`` is the deck: a run draws all of it in an order that its seed fixes, then shuffles again, so that
a short run sees many kinds and a long one each of them often. A fault harms a minority of the members
(but for those that stop or pause all of them), lasts as long as it says, and leaves everything as it was;
the run then waits until every member serves again before it draws the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.soak.cluster import STOP_SECONDS, Cluster, Member, Refused, Violation, until
from tests.soak.lab import libfaketime
from tests.soak.target import Target

_REPLACE_SECONDS = 60.0


@dataclass(slots=True)
class Scene:
    """Where a fault happens."""

    cluster: Cluster
    random: random.Random
    scale: float  # of all durations; short runs have short faults
    small_disk: Member | None
    told: str = ""  # what exactly was done, for the log

    def seconds(self, least: float, most: float) -> float:
        return self.scale * self.random.uniform(least, most)

    def victims(self, most: int | None = None) -> list[Member]:
        """A minority, at least one."""
        count = self.random.randint(1, most or self.cluster.minority)
        return self.random.sample(self.cluster.members, count)

    async def victim(self) -> Member:
        """The leader about as often as anybody else together."""
        leader = await self.cluster.leader() if self.random.random() < 0.4 else None
        return leader or self.random.choice(self.cluster.members)

    def tell(self, *members: Member, what: str = "") -> None:
        self.told = " ".join([",".join(member.name for member in members), what]).strip()


Fault = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    run: Fault
    needs: tuple[str, ...] = ()  # see ``why_not``


def why_not(need: str, target: Target, no_namespaces: str | None) -> str | None:
    """None if a fault's need is met, else the reason."""
    match need:
        case "namespaces":
            return no_namespaces
        case "strace":
            if os.geteuid() != 0:
                return "needs root"
            return None if shutil.which("strace") else "needs strace (package strace)"
        case "faketime":
            if not target.is_dynamic:
                return f"libfaketime has no effect on {target.name}, which makes its system calls itself"
            return None if libfaketime() else "needs libfaketime (package faketime)"
        case "mount":
            return None if os.geteuid() == 0 and shutil.which("mount") else "mounting a tmpfs needs root"
    raise ValueError(need)


# Processes.


async def kill(scene: Scene) -> None:
    """SIGKILL, and a restart at once or after a while."""
    victims = [await scene.victim()] if scene.random.random() < 0.5 else scene.victims()
    scene.tell(*victims)
    for member in victims:
        await member.end(signal.SIGKILL)
    if scene.random.random() < 0.6:
        await asyncio.sleep(scene.seconds(0.2, 4))
    for member in victims:
        await member.start()


async def kill_all(scene: Scene) -> None:
    """All at once: what was acknowledged must be on disks."""
    members = scene.random.sample(scene.cluster.members, len(scene.cluster.members))
    scene.tell(*members)
    for member in members:
        member.is_wanted = False
        member.send(signal.SIGKILL)
    for member in members:
        await member.end(signal.SIGKILL)
    for member in members:
        await member.start()
        await asyncio.sleep(scene.seconds(0, 0.5))


async def pause(scene: Scene) -> None:
    """SIGSTOP for seconds; sometimes of all, which then wake one after the other."""
    everybody = scene.random.random() < 0.15
    victims = list(scene.cluster.members) if everybody else scene.victims()
    if not everybody and scene.random.random() < 0.5:
        victims = [await scene.victim()]
    scene.tell(*victims)
    for member in victims:
        member.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(scene.seconds(1, 6))
    finally:
        for member in scene.random.sample(victims, len(victims)):
            member.send(signal.SIGCONT)
            if everybody:
                await asyncio.sleep(scene.seconds(0, 0.6))


async def rolling_restart(scene: Scene) -> None:
    """SIGTERM and start, one after the other, each when the one before serves again."""
    members = scene.random.sample(scene.cluster.members, len(scene.cluster.members))
    scene.tell(*members)
    for member in members:
        code = await member.end(signal.SIGTERM)
        # etcd ends with the signal that ended it; None: it was down.
        if code not in (0, -signal.SIGTERM, None) and member.excuse is None:
            raise Violation(f"{member.name} ended with exit code {code} after SIGTERM: {member.tail()}")
        await member.start()
        await serves(scene.cluster, member, 30.0)


async def serves(cluster: Cluster, member: Member, seconds: float) -> None:
    """Until it knows a leader."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        with contextlib.suppress(Refused):
            if int((await cluster.status(member)).get("leader", 0)):
                return
        if asyncio.get_running_loop().time() > deadline:
            raise Violation(f"{member.name} has no leader {seconds:.0f} s after its start: {member.tail()}")
        await asyncio.sleep(0.1)


# The network.


@asynccontextmanager
async def cut(cluster: Cluster, links: dict[Member, list[Member]], percent: int = 100) -> AsyncIterator[None]:
    """While it lasts, each receiver loses what these senders send it."""
    try:
        for receiver, senders in links.items():
            await cluster.lab.drop(receiver.number, [sender.number for sender in senders], percent)
        yield
    finally:
        for receiver in links:
            await cluster.lab.heal(receiver.number)


def _both_ways(side: list[Member], others: list[Member]) -> dict[Member, list[Member]]:
    return {**dict.fromkeys(side, others), **dict.fromkeys(others, side)}


async def _sides(scene: Scene) -> tuple[list[Member], list[Member]]:
    side = [await scene.victim()] if scene.random.random() < 0.5 else scene.victims()
    return side, [m for m in scene.cluster.members if m not in side]


async def partition(scene: Scene) -> None:
    side, others = await _sides(scene)
    scene.tell(*side, what="| the rest")
    async with cut(scene.cluster, _both_ways(side, others)):
        await asyncio.sleep(scene.seconds(2, 8))


async def one_way(scene: Scene) -> None:
    """One side hears nothing of the other, which hears it."""
    side, others = await _sides(scene)
    deaf, loud = (side, others) if scene.random.random() < 0.5 else (others, side)
    scene.told = f"{','.join(m.name for m in deaf)} do not hear {','.join(m.name for m in loud)}"
    async with cut(scene.cluster, dict.fromkeys(deaf, loud)):
        await asyncio.sleep(scene.seconds(2, 8))


async def bridge(scene: Scene) -> None:
    """Two sides that do not hear each other, and one member that both hear."""
    middle, *rest = scene.random.sample(scene.cluster.members, len(scene.cluster.members))
    half = len(rest) // 2
    scene.tell(middle, what=f"between {','.join(m.name for m in rest[:half])} | {rest[half].name}…")
    async with cut(scene.cluster, _both_ways(rest[:half], rest[half:])):
        await asyncio.sleep(scene.seconds(2, 8))


async def flapping(scene: Scene) -> None:
    side, others = await _sides(scene)
    scene.tell(*side, what="| the rest, flapping")
    end = asyncio.get_running_loop().time() + scene.seconds(3, 8)
    while asyncio.get_running_loop().time() < end:
        async with cut(scene.cluster, _both_ways(side, others)):
            await asyncio.sleep(scene.random.uniform(0.05, 1.5))
        await asyncio.sleep(scene.random.uniform(0.05, 0.8))


async def loss(scene: Scene) -> None:
    """Random packets are lost, everywhere or around some, and sometimes clients' too."""
    percent = scene.random.choice([5, 15, 30])
    members = scene.cluster.members
    receivers = members if scene.random.random() < 0.5 else scene.victims()
    scene.tell(*receivers, what=f"lose {percent} %")
    links = {m: [other for other in members if other is not m] for m in receivers}
    async with cut(scene.cluster, links, percent):
        if scene.random.random() < 0.4:
            for member in receivers:
                await scene.cluster.lab.drop(member.number, [0], percent)
            scene.told += " of clients' packets too"
        await asyncio.sleep(scene.seconds(2, 8))


async def delay(scene: Scene) -> None:
    """Delay and reordering in the relays, for all that goes to the members behind them."""
    relayed = [m for m in scene.cluster.members if m.relay is not None]
    most = scene.random.choice([0.02, 0.1, 0.4, 1.5])
    least = scene.random.choice([0.0, most / 2])
    scene.tell(*relayed, what=f"delayed by {least * 1000:.0f}–{most * 1000:.0f} ms")
    relays = [m.relay for m in relayed if m.relay is not None]
    for relay in relays:
        relay.delay = (least, most)
    try:
        await asyncio.sleep(scene.seconds(2, 8))
    finally:
        for relay in relays:
            relay.delay = (0.0, 0.0)


# Disks.


@asynccontextmanager
async def injected(member: Member, injection: str) -> AsyncIterator[None]:
    """While it lasts, strace interferes with this member's fdatasync, if the member runs."""
    if not member.is_running:
        yield
        return
    log = member.home / "strace"
    with log.open("ab") as output:
        tracer = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", "strace", "-f", "-o", str(traced(member))),
            *("-p", str(member.pid), "-e", "trace=fdatasync", "-e", f"inject=fdatasync:{injection}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            tracer.terminate()  # it lets go of the member
        await tracer.wait()


def traced(member: Member) -> Path:
    return member.home / "strace.calls"


async def slow_sync(scene: Scene) -> None:
    member = await scene.victim()
    milliseconds = scene.random.choice([20, 100, 400, 1500])
    scene.tell(member, what=f"+{milliseconds} ms for each fdatasync")
    async with injected(member, f"delay_exit={milliseconds * 1000}"):
        await asyncio.sleep(scene.seconds(2, 8))


async def failing_sync(scene: Scene) -> None:
    """EIO once, or from some call on. The member must stop; it is started again on a good disk."""
    member = await scene.victim()
    when = scene.random.choice(["1", "1+", str(scene.random.randrange(2, 6))])  # counted for each thread
    scene.tell(member, what=f"fdatasync fails (when={when})")
    pid = member.pid
    traced(member).write_bytes(b"")
    with member.excused("its fdatasync failed"):
        async with injected(member, f"error=EIO:when={when}"):
            await asyncio.sleep(scene.seconds(1, 4))
        failed = traced(member).read_bytes().count(b"INJECTED")
        has_stopped = await until(lambda: not failed or member.pid != pid, STOP_SECONDS)
    scene.told += f", {failed} times"
    if not has_stopped:
        raise Violation(f"{member.name} went on after an fdatasync had failed: {member.tail()}")


async def full_disk(scene: Scene) -> None:
    """The small disk is filled to the last byte, and freed later."""
    member = scene.small_disk
    assert member is not None
    filler = member.data_dir / "filler"
    pid = member.pid
    try:
        with member.excused("its disk is full"):
            await asyncio.to_thread(fill, filler)
            await asyncio.sleep(scene.seconds(3, 8))
    finally:
        filler.unlink(missing_ok=True)
    scene.told = member.name + (", which ended" if member.pid != pid else "")


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        chunk = bytes(1 << 16)
        while True:
            filler.write(chunk)


# Clocks.


async def clock(scene: Scene) -> None:
    """The wall clock of some jumps by minutes or years, forth or back, and sometimes jumps about."""
    victims = scene.victims(len(scene.cluster.members))
    jumps = [
        scene.random.choice([-3600, -90, 30, 600, 86400, 10**8])
        for _ in range(scene.random.choice([1, 1, 6]))
    ]
    scene.tell(*victims, what=f"clock set off by {', '.join(f'{jump:+d} s' for jump in jumps)}")
    try:
        for jump in jumps:
            for member in victims:
                member.clock_file.write_text(f"{jump:+d}\n")
            await asyncio.sleep(max(1.2, scene.seconds(2, 6) / len(jumps)))
    finally:
        for member in victims:
            member.clock_file.write_text("+0\n")


# Members.


async def replace(scene: Scene) -> None:
    """A member is removed under load and a new one, with an empty disk, takes its place."""
    member = await scene.victim()
    as_learner = scene.random.random() < 0.5
    new_peer_url = member.relay is None and scene.random.random() < 0.5
    details = [
        word for word, said in (("as a learner first", as_learner), ("new peer URL", new_peer_url)) if said
    ]
    scene.tell(member, what=", ".join(details))
    await scene.cluster.status(member)  # its id
    await scene.cluster.replace(
        member, as_learner=as_learner, new_peer_url=new_peer_url, seconds=_REPLACE_SECONDS
    )


async def transfer(scene: Scene) -> None:
    """The leadership is transferred, a few times in a row."""
    said = []
    for _ in range(scene.random.randint(1, 4)):
        try:
            said.append(await scene.cluster.transfer_leadership())
        except Refused as error:
            said.append(str(error))
        await asyncio.sleep(scene.seconds(0.1, 1))
    scene.told = "; ".join(said)


async def sabotage(scene: Scene) -> None:
    """The control, which must be caught: every member goes back to what its disk held a while ago."""
    members = scene.cluster.members
    copies = {member: member.home / "copy" for member in members}
    await asyncio.gather(*(member.end(signal.SIGKILL) for member in members))
    for member in members:
        await asyncio.to_thread(shutil.copytree, member.data_dir / "data", copies[member])
    for member in members:
        await member.start()
    for member in members:
        await serves(scene.cluster, member, 30.0)
    await asyncio.sleep(2)  # in which something is acknowledged
    await asyncio.gather(*(member.end(signal.SIGKILL) for member in members))
    for member in members:
        member.wipe()
        await asyncio.to_thread(shutil.move, copies[member], member.data_dir / "data")
        await member.start()
    scene.told = "acknowledged writes are gone"


KINDS = (
    Kind("kill", kill),
    Kind("kill all", kill_all),
    Kind("pause", pause),
    Kind("rolling restart", rolling_restart),
    Kind("partition", partition, ("namespaces",)),
    Kind("one-way partition", one_way, ("namespaces",)),
    Kind("bridge", bridge, ("namespaces",)),
    Kind("flapping partition", flapping, ("namespaces",)),
    Kind("loss", loss, ("namespaces",)),
    Kind("delay", delay),
    Kind("slow fdatasync", slow_sync, ("strace",)),
    Kind("failing fdatasync", failing_sync, ("strace",)),
    Kind("disk full", full_disk, ("mount",)),
    Kind("clock", clock, ("faketime",)),
    Kind("member replaced", replace),
    Kind("leader transferred", transfer),
)
CONTROL = Kind("sabotage", sabotage)  # only where it is asked for by name
# They harm nobody so far that another fault could not happen at the same time.
MILD = ("delay", "clock", "leader transferred", "slow fdatasync", "loss")
