"""How messages reach the peers, and come from them: one connection per direction and pair (``link``),
one HTTP server for all of them (``peer_server``).

A message is offered to the link of its target; an InstallSnapshot goes, with its content, beside
the messages (``snapshot_transfer``). Addresses are whatever the node knows of the members; one who
connects to us says where it is reached, which counts until the membership says more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import aiohttp

from raft.core.messages import InstallSnapshot, Message
from raft.handshake import REFUSED, Identity, Reason, Sender
from raft.link import Link, LinkSettings

log = logging.getLogger(__name__)

CALL_TIMEOUT_SECONDS = 10.0


class SnapshotSender(Protocol):
    """Brings a snapshot's content to a follower (``raft.snapshot_transfer``)."""

    async def send(self, message: InstallSnapshot, url: str, headers: Mapping[str, str]) -> bool: ...


class CallFailed(Exception):
    """A peer could not be asked, or did not answer; whether it acted is unknown."""


class NotReached(CallFailed):
    """A peer could not be asked, so it did nothing."""


class PeerTransport:
    """The driver's transport. ``close`` it after the driver."""

    def __init__(
        self,
        us: Identity,
        settings: LinkSettings,
        snapshots: SnapshotSender,
        *,
        on_snapshot_sent: Callable[[int, int, bool], None],
        on_refused: Callable[[int, Reason | None, str], None],
        on_gone: Callable[[int], None],
        log_is_empty: Callable[[], bool],
    ) -> None:
        """``on_snapshot_sent(follower, index, arrived)``; ``on_refused(member, reason, text)`` and
        ``on_gone(member)`` as for ``Link``."""
        self.us = us
        self.links: dict[int, Link] = {}
        self._settings = settings
        self._snapshots = snapshots
        self._on_snapshot_sent = on_snapshot_sent
        self._on_refused = on_refused
        self._on_gone = on_gone
        self._log_is_empty = log_is_empty
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        self._transfers: set[asyncio.Task[None]] = set()
        self._newest: dict[int, InstallSnapshot] = {}  # the last one asked for, by follower
        self._closing: set[asyncio.Task[None]] = set()  # links
        self._is_closed = False

    def set_peers(self, addresses: Mapping[int, tuple[str, ...]]) -> None:
        """These, and nobody else, are sent messages from now on. Who has no URL is not reached."""
        if self._is_closed:
            return
        wanted = {member: urls for member, urls in addresses.items() if urls and member != self.us.member_id}
        for member in self.links.keys() - wanted.keys():
            self._close_later(self.links.pop(member))
        for member, urls in wanted.items():
            link = self.links.get(member)
            if link is None:
                self.links[member] = self._new_link(member, urls)
            elif link.urls != urls:
                # What is open stays: a member that moves is still there, and may lead, until it is restarted.
                log.info("member %x is reached at %s from its next start on", member, ", ".join(urls))
                link.urls = urls
                link.try_now()

    def heard_of(self, sender: Sender) -> None:
        """A member has connected to us."""
        if self._is_closed:
            return
        link = self.links.get(sender.member_id)
        if link is not None:
            link.try_now()
        elif sender.peer_urls:
            # It was added by a change of members that has not reached us yet.
            self.links[sender.member_id] = self._new_link(sender.member_id, sender.peer_urls)

    def send(self, messages: Sequence[Message]) -> None:
        """See ``driver.Transport``."""
        used = set()
        for message in messages:
            link = self.links.get(message.target)
            if type(message) is InstallSnapshot:
                self._send_snapshot(message, link)
            elif link is not None:
                link.offer(message)
                used.add(link)
        for link in used:
            link.flush()

    def connected_since(self, member: int) -> float | None:
        """Since when, by the loop's clock, there is a connection to this member; None if there is none."""
        link = self.links.get(member)
        return None if link is None else link.connected_since

    async def call(self, member: int, path: str, body: bytes) -> bytes:
        """Ask a peer's server for something beside consensus. Raises NotReached or CallFailed."""
        link = self.links.get(member)
        if link is None:
            raise NotReached(f"where member {member:x} is reached is not known")
        failure: object = None
        kind: type[CallFailed] = NotReached
        for url in link.urls:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                    async with self._session.post(
                        url.rstrip("/") + path, data=body, headers=self._headers(member)
                    ) as response:
                        if response.status == 200:
                            return await response.read()
                        failure = response.headers.get(REFUSED)
                        if failure is None:
                            failure, kind = f"HTTP status {response.status}", CallFailed
                        if response.status >= 500:
                            break  # it may have acted: nobody must be asked again
            except aiohttp.ClientConnectorError as error:
                failure = error
            except (aiohttp.ClientError, OSError) as error:
                # It may have acted: nobody must be asked again.
                raise CallFailed(
                    f"member {member:x} was asked and did not answer: {str(error) or 'timed out'}"
                ) from None
        raise kind(f"member {member:x} cannot be asked: {failure}")

    async def close(self) -> None:
        self._is_closed = True
        for task in self._transfers:
            task.cancel()
        for link in self.links.values():
            self._close_later(link)
        self.links = {}
        await asyncio.gather(*self._transfers, *self._closing, return_exceptions=True)
        await self._session.close()

    def _new_link(self, member: int, urls: tuple[str, ...]) -> Link:
        return Link(
            member,
            urls,
            self._session,
            self._settings,
            self._headers,
            self._on_refused,
            self._on_gone,
        )

    def _headers(self, receiver: int) -> Mapping[str, str]:
        return self.us.headers(receiver, log_is_empty=self._log_is_empty())

    def _close_later(self, link: Link) -> None:
        self._in_background(link.close(), self._closing)

    def _send_snapshot(self, message: InstallSnapshot, link: Link | None) -> None:
        self._newest[message.target] = message
        self._in_background(self._transfer(message, link), self._transfers)

    async def _transfer(self, message: InstallSnapshot, link: Link | None) -> None:
        index, arrived = message.snapshot.position.index, False
        try:
            if link is not None:
                headers = self.us.headers(message.target)
                arrived = await self._snapshots.send(message, link.url, headers)
        except Exception:
            log.exception("the snapshot for member %x was not sent", message.target)
        finally:
            # The end of one that a newer one has ended would be taken for the end of that.
            if self._newest.get(message.target) is message:
                self._on_snapshot_sent(message.target, index, arrived)

    def _in_background(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = self._loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
