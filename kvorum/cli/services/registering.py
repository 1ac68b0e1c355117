"""service register: on the list as long as the service is well, and off it at any end.

    kvorum service register web --addr 10.0.0.1:8080 --check http://127.0.0.1:8080/health -- ./web

All that happens here does so in one event loop: signals, the end of the command, checks, and the list. The
list follows what the checks say, as well as the store can be reached; that it cannot never ends the
command.
"""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import click

from kvorum.async_client import AsyncClient
from kvorum.cli import output
from kvorum.cli.child import Child, check_command, exit_code
from kvorum.cli.examples import examples
from kvorum.cli.holding import Ended, Signalled
from kvorum.cli.services.checks import Check, parsed
from kvorum.cli.services.health import Health
from kvorum.cli.services.listing import checked, pairs
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, current, duration, positive_duration
from kvorum.errors import KvorumError
from kvorum.services.asynchronous import AsyncRegistration
from kvorum.services.records import Instance, instance
from kvorum.services.registering import TTL_SECONDS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RETRY_SECONDS = 1.0
FIRST_CHECKS_SECONDS = 0.5
"""Between checks of a service that has not been well yet: it has just been started, and is awaited."""
WITHDRAWAL_SECONDS = 1.0
"""So long the command is left running when a signal comes, for the list to be told first."""


@dataclass(frozen=True)
class Checking:
    """Times in seconds."""

    check: Check
    interval: float
    timeout: float
    failures: int
    successes: int


@click.command(
    epilog=examples(
        "kvorum service register web --addr 10.0.0.1:8080 --tag v2 --zone eu/1a",
        "kvorum service register web --addr 10.0.0.1:8080 --check http://127.0.0.1:8080/health -- ./web",
        "kvorum service register db --addr 10.0.0.2:5432 --ttl 5s --check 'pg_isready -q'",
    )
)
@click.argument("arguments", nargs=-1, metavar="NAME [-- COMMAND...]")
@click.option("--addr", required=True, metavar="HOST:PORT", help="Where it is to be found.")
@click.option("--id", "id_", default="", help="Its id; the address, where none is given.")
@click.option(
    "--meta", "metadata", multiple=True, callback=pairs, metavar="K=V", help="Metadata; again for more."
)
@click.option("--tag", "tags", multiple=True, help="A tag; again for more.")
@click.option("--weight", default=1, show_default=True, help="Its share, beside others'. 0: nothing.")
@click.option("--zone", default="", help="Where it is, from the large to the small: eu/1a.")
@click.option(
    "--ttl",
    default=f"{TTL_SECONDS}s",
    show_default=True,
    callback=duration,
    help="After so long it is off the list if this is killed, or cut off.",
)
@click.option(
    "--check", "check_text", metavar="CHECK", help="http://…, https://…, tcp://HOST:PORT or a command."
)
@click.option(
    "--check-interval",
    default="2s",
    show_default=True,
    callback=positive_duration,
    help="From check to check.",
)
@click.option(
    "--check-timeout",
    default="1s",
    show_default=True,
    callback=positive_duration,
    help="What hangs has failed.",
)
@click.option(
    "--failures", default=2, show_default=True, type=click.IntRange(1), help="So many in a row: off the list."
)
@click.option(
    "--successes", default=1, show_default=True, type=click.IntRange(1), help="So many in a row: on the list."
)
def register(
    arguments: Sequence[str],
    addr: str,
    id_: str,
    metadata: dict[str, str],
    tags: Sequence[str],
    weight: int,
    zone: str,
    ttl: float,
    check_text: str | None,
    check_interval: float,
    check_timeout: float,
    failures: int,
    successes: int,
) -> None:
    """Keep the service NAME on the list until a signal comes; or while COMMAND runs, whose exit code is
    passed on.

    With --check it is there only while it is well. COMMAND finds in its environment KVORUM_SERVICE_NAME,
    KVORUM_SERVICE_ID and KVORUM_SERVICE_ADDR, gets our signals when it is off the list, and ends with us.
    """
    if not arguments:
        raise Failure("service register takes a name and an optional command to execute", EXIT_BAD_ARGUMENTS)
    name, *command = arguments
    one = checked(instance, name, addr, metadata=metadata, tags=tags, weight=weight, zone=zone, id=id_)
    checking = None
    if check_text is not None:
        check = checked(parsed, check_text)
        checking = Checking(check, check_interval, check_timeout, failures, successes)
    if command:
        check_command(command)
    settings = current()
    keeper = _Keeper(one, max(1, math.ceil(ttl)), checking, command)
    code = asyncio.run(keeper.run(settings.async_client()))
    click.get_current_context().exit(code)


@dataclass(frozen=True)
class _Broken:
    """Something of ours has ended that should not."""

    error: BaseException


class _Keeper:
    """One entry, what is known of its health, and the command."""

    def __init__(self, one: Instance, ttl: int, checking: Checking | None, command: Sequence[str]) -> None:
        self._one, self._ttl = one, ttl
        self._checking, self._command = checking, command
        self._child: Child | None = None
        self._is_well, self._is_unwell = asyncio.Event(), asyncio.Event()
        self._why = ""  # it is not well
        self._events: asyncio.Queue[Signalled | Ended | _Broken] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: asyncio.Task[None] | None = None
        self._withdrawing: asyncio.Task[None] | None = None

    async def run(self, client: AsyncClient) -> int:
        """The exit code. Raises KvorumError where the first registration fails, and there is no command that
        could go on without it."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._events.put_nowait, Signalled(number))
        async with client:
            try:
                if self._command:
                    self._start(loop)
                self._begin(self._stay_listed(client))
                self._begin(self._check())
                return await self._until_over()
            finally:
                await self._leave()
                if self._child is not None:
                    self._child.end(signal.SIGKILL)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        told = {
            "KVORUM_SERVICE_NAME": self._one.name,
            "KVORUM_SERVICE_ID": self._one.id,
            "KVORUM_SERVICE_ADDR": self._one.addr,
        }
        child = self._child = Child(self._command, told)

        def wait() -> None:
            ended = Ended(child.wait())
            with suppress(RuntimeError):  # the loop is over, and nobody asks any more
                loop.call_soon_threadsafe(self._events.put_nowait, ended)

        threading.Thread(target=wait, daemon=True).start()

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._events.put_nowait(_Broken(error))

        task = asyncio.create_task(coroutine)
        task.add_done_callback(ended)
        self._tasks.append(task)

    async def _until_over(self) -> int:
        while True:
            match await self._events.get():
                case Ended(code):
                    await self._leave()
                    return exit_code(code)
                case _Broken(error):
                    raise error
                case Signalled(number):
                    leaving = self._leave()
                    if self._child is None:
                        await leaving
                        return 0
                    # First off the list, so that nobody is sent to it while it ends.
                    await asyncio.wait({leaving}, timeout=WITHDRAWAL_SECONDS)
                    self._child.forward(number)

    def _leave(self) -> asyncio.Task[None]:
        """Off the list, and not back on it."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._end_tasks())
        return self._leaving

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._withdrawing is not None:
            await self._withdrawing

    # On the list and off it.

    async def _stay_listed(self, client: AsyncClient) -> None:
        may_fail = bool(self._command)
        while True:
            await self._is_well.wait()
            one = self._one
            registration = client.services.register(
                *(one.name, one.addr),
                id=one.id,
                metadata=one.metadata,
                tags=one.tags,
                weight=one.weight,
                zone=one.zone,
                ttl=self._ttl,
                on_problem=self._tell_problem,
            )
            try:
                await registration.open()
            except KvorumError as error:
                if not may_fail:
                    raise
                self._tell_problem(str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            may_fail = True
            self._tell("registered")
            try:
                await self._is_unwell.wait()
            finally:
                # A task of its own: who cancels this one does not cut that off.
                self._withdrawing = asyncio.create_task(self._withdraw(registration))
                await asyncio.shield(self._withdrawing)

    async def _withdraw(self, registration: AsyncRegistration) -> None:
        try:
            await registration.close()
        except KvorumError as error:
            self._tell(f"not withdrawn: {error}; it leaves the list within {registration.ttl} s")
        else:
            self._tell(f"withdrawn{self._why}")

    async def _check(self) -> None:
        """Without checks it is well."""
        checking = self._checking
        if checking is None:
            self._is_well.set()
            return
        health, loop = Health(checking.failures, checking.successes), asyncio.get_running_loop()
        pause = min(checking.interval, FIRST_CHECKS_SECONDS)
        while True:
            begun = loop.time()
            problem = await checking.check(checking.timeout)
            if health.checked(problem is None):
                pause = checking.interval
                self._why = f": {problem}" if problem else ""
                became, was = self._is_well, self._is_unwell
                if problem is not None:
                    became, was = was, became
                was.clear()
                became.set()
            await asyncio.sleep(max(0.0, begun + pause - loop.time()))

    def _tell_problem(self, problem: str | None) -> None:
        self._tell(
            "registered again" if problem is None else f"cannot be registered at the moment: {problem}"
        )

    def _tell(self, text: str) -> None:
        """On stderr: the other one is the command's."""
        output.tell(f"kvorum: {self._one.name} {self._one.id}: {text}")
