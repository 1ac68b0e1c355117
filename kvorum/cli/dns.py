"""dns: a small DNS server for registered services, from a memory that follows the store."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import click
import dns.exception
import dns.name
import dns.rcode
import dns.rdatatype

from kvorum.async_client import AsyncClient
from kvorum.cache import AsyncCache
from kvorum.cli import output
from kvorum.cli.examples import examples
from kvorum.cli.settings import EXIT_BAD_ARGUMENTS, Failure, current, duration
from kvorum.errors import KvorumError
from kvorum.mirror import Change
from kvorum.nameserver.answers import Answer, Answers, ZoneSettings
from kvorum.nameserver.server import Nameserver
from kvorum.services.asking import PAGE
from kvorum.services.records import prefix_of, split_addr
from kvorum.services.watched import Taken

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RETRY_SECONDS = 1.0
TTL_SECONDS_MAX = (1 << 31) - 1
"""RFC 2181. No answer could be given with a longer one."""
_LONGEST = dns.name.from_text(f"{'n' * 63}.service", None)


@click.command(
    name="dns",
    epilog=examples("kvorum dns", "kvorum dns --listen 10.0.0.53:53 --domain kvorum.example. --zone eu/1a"),
)
@click.option("--listen", default="127.0.0.1:5353", show_default=True, help="HOST:PORT, for UDP and TCP.")
@click.option("--domain", default="kvorum.", show_default=True, help="What all its names are below.")
@click.option("--zone", default="", help="What is nearest to it is answered first.")
@click.option("--ttl", default="1s", show_default=True, callback=duration, help="How long answers are kept.")
@click.option(
    "--negative-ttl",
    default="1s",
    show_default=True,
    callback=duration,
    help="And that there is no such name.",
)
def serve_dns(listen: str, domain: str, zone: str, ttl: float, negative_ttl: float) -> None:
    """Answer questions of DNS for registered services, until a signal comes.

    web.service.kvorum is the service web: A, AAAA, SRV and TXT. v2.web.service.kvorum are its instances
    with the tag v2, _web._tcp.service.kvorum is its SRV as RFC 2782 names it. While no member of the store
    can be reached it goes on with what it knows.
    """
    host, port = split_addr(listen)
    if not host or (not port and not listen.endswith(":0")):
        raise Failure(
            f"--listen {listen!r} is wrong: expected HOST:PORT, such as 127.0.0.1:5353", EXIT_BAD_ARGUMENTS
        )
    for option, seconds in (("--ttl", ttl), ("--negative-ttl", negative_ttl)):
        if seconds > TTL_SECONDS_MAX:
            raise Failure(
                f"{option} of {seconds:.0f} s is too long: expected at most {TTL_SECONDS_MAX} s",
                EXIT_BAD_ARGUMENTS,
            )
    address = host if host not in ("0.0.0.0", "::") else ""
    settings = ZoneSettings(_name(domain), int(ttl), int(negative_ttl), zone, address)
    asyncio.run(_Serving(settings, host, port).run(current().async_client()))


def _name(domain: str) -> dns.name.Name:
    try:
        name = dns.name.from_text(domain)
        _LONGEST.concatenate(name)
    except dns.name.NameTooLong:
        raise Failure(
            f"--domain {domain!r} is too long: expected room for a name of 63 letters and service before it",
            EXIT_BAD_ARGUMENTS,
        ) from None
    except (dns.exception.DNSException, ValueError) as error:
        raise Failure(f"--domain {domain!r} is no name of DNS: {error}", EXIT_BAD_ARGUMENTS) from None
    if name == dns.name.root:
        raise Failure(
            "--domain '.' is wrong: expected a domain of its own, such as kvorum.", EXIT_BAD_ARGUMENTS
        )
    return name


def _has_failed(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is not None


class _Serving:
    def __init__(self, settings: ZoneSettings, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._domain = settings.domain
        self._taken = Taken()
        self._answers = Answers(self._taken.directory, settings)
        self._is_loaded = False

    async def run(self, client: AsyncClient) -> None:
        ended = asyncio.Event()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        async with AsyncExitStack() as stack:
            try:
                server = await stack.enter_async_context(Nameserver(self._ask, self._host, self._port))
            except OSError as error:
                raise Failure(
                    f"cannot listen on {self._host}:{self._port}: {error.strerror or error}"
                ) from None
            self._tell(f"answering for {self._domain} on {self._host} port {server.port}, UDP and TCP")
            await stack.enter_async_context(client)
            following = asyncio.create_task(self._follow(client))
            stack.callback(following.cancel)
            following.add_done_callback(lambda task: ended.set() if _has_failed(task) else None)
            await ended.wait()
            if following.done():
                following.result()  # raises what has ended it, if anything has

    def _ask(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, most: int) -> Answer:
        """Until something is known nothing is said: that there is no such name would be believed."""
        return self._answers.to(name, rdtype, most) if self._is_loaded else Answer(dns.rcode.SERVFAIL)

    async def _follow(self, client: AsyncClient) -> None:
        def take(change: Change) -> None:
            self._taken.take(change)

        cache = AsyncCache(client, prefix_of(), take, PAGE)
        is_told = False
        while not self._is_loaded:
            try:
                await cache.load()
                self._is_loaded = True
            except KvorumError as error:
                if not is_told:
                    self._tell(f"no answers yet: {error}")
                is_told = True
                await asyncio.sleep(RETRY_SECONDS)
        self._taken.take_all(cache.items())
        self._tell(f"knows {len(self._taken.directory.instances())} instances")
        cache.follow()

    def _tell(self, text: str) -> None:
        output.tell(f"kvorum dns: {text}")
