"""A snapshot's way from one member to another: over HTTP, resumed where it broke off.

    HEAD /raft/snapshot/<id>    → 200, Kvorum-Snapshot-Offset: how much of it is there
    POST /raft/snapshot/<id>    the rest of the file, from Kvorum-Snapshot-Offset on, with
                                Kvorum-Snapshot-Length and -Sha256 of the whole, and -Message, what it
                                stands for
        → 204 it is complete, verified, durable, and was handed to consensus
          409 it does not go on from this offset: ask again
          422 it is not what was announced: all of it was dropped, begin anew

The id is made for one copy and one follower; the receiver keeps one id per sender, and a newer one
replaces it. Both sides read and write the file on threads, a chunk at a time, so memory does not
depend on its size, and neither loop is held up.

A sender gives up a follower that takes nothing for a while; consensus asks again. A receiver drops
what nobody goes on with for a while. Neither keeps anything over a restart.

The messages are not authenticated here: whoever mounts ``SnapshotReceiver.handle`` checks the peer first.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from secrets import token_hex
from typing import IO, TypeVar

import aiohttp
from aiohttp import web

from raft import codec
from raft.core.errors import InvariantViolated
from raft.core.messages import InstallSnapshot
from raft.snapshots import Copies, Copy, SnapshotSource, StandsFor, clear, meta_of, remove

log = logging.getLogger(__name__)

PATH = "/raft/snapshot"
OFFSET = "Kvorum-Snapshot-Offset"
LENGTH = "Kvorum-Snapshot-Length"
SHA256 = "Kvorum-Snapshot-Sha256"
MESSAGE = "Kvorum-Snapshot-Message"
CHUNK_BYTES = 1 << 20
# What is handed to the socket at once: copying it must not be felt by the loop.
_PIECE_BYTES = 128 << 10
# What gathers in the page cache would hold up the log's next fdatasync.
_SYNC_BYTES = 16 << 20
_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


class _Refused(Exception):
    """The follower will not take this transfer, or nothing of it."""


class _Damaged(Exception):
    """The follower got something else than was sent."""


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """Times in seconds."""

    # Sender: a follower that takes nothing for this long is given up.
    stalled_after: float = 10.0
    # Sender: how long the follower may take to verify the whole and make it durable.
    finish_timeout: float = 30.0
    backoff: float = 0.1
    backoff_max: float = 2.0
    # Sender: so often is a transfer begun anew that arrived damaged.
    restarts_max: int = 3
    # Receiver: a connection that brings nothing for this long is closed; what came stays …
    silent_after: float = 30.0
    # … for this long, in case it is resumed.
    kept_for: float = 120.0


class SnapshotSender:
    """Sends copies of the state, one transfer per follower at a time."""

    def __init__(
        self,
        directory: Path,
        source: SnapshotSource,
        session: aiohttp.ClientSession,
        settings: TransferSettings | None = None,
    ) -> None:
        self.settings = settings or TransferSettings()
        self.session = session
        self._source = source
        self._threads = ThreadPoolExecutor(4, "snapshot-out")
        self._copies = Copies(directory, source, self._threads)
        self._sending: dict[int, asyncio.Task[bool]] = {}
        self._is_closed = False

    async def send(self, message: InstallSnapshot, url: str, headers: Mapping[str, str]) -> bool:
        """Send the state, at or beyond what the message says, to the member at ``url``. True: it has all of
        it, verified and durable. A newer transfer to the same follower ends the one under way."""
        follower = message.target
        while (older := self._sending.get(follower)) is not None:
            older.cancel()
            await asyncio.wait([older])
        if self._is_closed:
            return False
        task = asyncio.create_task(self._send(message, url.rstrip("/"), headers))
        self._sending[follower] = task
        # Not in a finally below: whoever waits for the task must find its place free.
        task.add_done_callback(lambda _: self._sending.pop(follower))
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        return not task.cancelled() and task.result()

    async def close(self) -> None:
        """End all transfers and remove all copies."""
        self._is_closed = True
        self._source.stop_copies()
        while self._sending:
            tasks = list(self._sending.values())
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.sleep(0)
        await self._copies.close()
        self._threads.shutdown(wait=False)

    async def _send(self, message: InstallSnapshot, url: str, headers: Mapping[str, str]) -> bool:
        try:
            async with self._copies.at_least(message.snapshot.position.index) as copy:
                if copy.meta.position.term > message.term:
                    # Another leads by now. A follower that knows only this leader would have a log that ends
                    # in a term beyond its own, and could not start again.
                    raise RuntimeError(f"the state is at {copy.meta.position}, beyond term {message.term}")
                transfer = _Transfer(self, copy, replace(message, snapshot=copy.meta), url, headers)
                return await transfer.run()
        except Exception as error:  # of whatever the source raises; consensus will ask again
            log.warning("no snapshot for member %x: %s", message.target, error)
            return False

    async def on_thread(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


class _Transfer:
    """One copy to one follower."""

    def __init__(
        self,
        sender: SnapshotSender,
        copy: Copy,
        message: InstallSnapshot,
        url: str,
        headers: Mapping[str, str],
    ) -> None:
        self._sender = sender
        self._copy = copy
        self._message = message
        self._url = f"{url}{PATH}/{token_hex(16)}"
        self._headers = dict(headers)
        self._settings = sender.settings
        self._loop = asyncio.get_running_loop()
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._settings.stalled_after)
        self._began = self._progressed = self._loop.time()
        self._confirmed = 0  # what the follower said it has
        self._sent = 0
        # The most that was sent since that grew: what is only sent once more is no progress.
        self._furthest = 0
        self._watchdog: asyncio.Timeout

    async def run(self) -> bool:
        settings, restarts, fruitless, backoff = self._settings, 0, 0, self._settings.backoff
        while True:
            before = self._progressed
            try:
                async with asyncio.timeout(settings.stalled_after) as self._watchdog:
                    if await self._post_from(await self._offset()):
                        self._log_arrival()
                        return True
                why = "the follower has another offset"
            except _Refused as error:
                log.warning("%s refuses the snapshot: %s", self, error)
                return False
            except _Damaged as error:
                restarts += 1
                log.warning("%s got a damaged snapshot: %s", self, error)
                if restarts > settings.restarts_max:
                    return False
                self._confirmed, self._furthest, why = 0, 0, str(error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
            if self._progressed > before:
                fruitless, backoff = 0, settings.backoff
            else:
                fruitless += 1
            # What was taken by buffers only, another attempt finds out.
            if fruitless > 1 and self._loop.time() - self._progressed > settings.stalled_after:
                log.warning("%s makes no progress with its snapshot and is given up: %s", self, why)
                return False
            log.info("the snapshot for %s broke off at byte %d: %s", self, self._sent, why)
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, settings.backoff_max)

    async def _offset(self) -> int:
        """Where to go on: how much of this transfer the follower has."""
        async with self._sender.session.request(
            "HEAD", self._url, headers=self._headers, timeout=self._timeout, allow_redirects=False
        ) as response:
            _check(response)
            try:
                offset = int(response.headers[OFFSET])
            except (KeyError, ValueError):
                raise _Refused(f"it does not say how much it has, but answers {response.status}") from None
        if not 0 <= offset <= self._copy.size:
            raise _Refused(f"it says it has {offset} bytes of {self._copy.size}")
        if offset > self._confirmed:
            self._confirmed, self._furthest, self._progressed = offset, offset, self._loop.time()
        self._extend(self._settings.stalled_after)
        return offset

    async def _post_from(self, offset: int) -> bool:
        """Send the rest. False: it did not fit."""
        headers = self._headers | {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self._copy.size - offset),
            OFFSET: str(offset),
            LENGTH: str(self._copy.size),
            SHA256: self._copy.sha256,
            MESSAGE: encode_message(self._message),
        }
        self._sent = offset
        async with self._sender.session.request(
            "POST",
            self._url,
            headers=headers,
            data=self._body(),
            timeout=self._timeout,
            allow_redirects=False,
        ) as response:
            if response.status == HTTPStatus.CONFLICT:
                return False
            if response.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                raise _Damaged(await _reason(response))
            _check(response, await _reason(response))
            return True

    async def _body(self) -> AsyncIterator[memoryview]:
        # No file stays open: an abandoned generator is closed by nobody.
        while chunk := await self._sender.on_thread(_read_at, self._copy.path, self._sent):
            view = memoryview(chunk)
            for start in range(0, len(chunk), _PIECE_BYTES):
                piece = view[start : start + _PIECE_BYTES]
                yield piece
                self._reached(self._sent + len(piece))
        self._extend(self._settings.finish_timeout)

    def _reached(self, offset: int) -> None:
        """The follower, or the sockets in between, took what lies before ``offset``."""
        self._sent = offset
        if offset > self._furthest:
            self._furthest, self._progressed = offset, self._loop.time()
        self._extend(self._settings.stalled_after)

    def _extend(self, seconds: float) -> None:
        with suppress(RuntimeError):  # too late: the attempt has ended
            self._watchdog.reschedule(self._loop.time() + seconds)

    def _log_arrival(self) -> None:
        seconds = self._loop.time() - self._began
        log.info("%s has the snapshot at %s after %.1f s", self, self._copy.meta.position, seconds)

    def __str__(self) -> str:
        return f"member {self._message.target:x}"


class SnapshotReceiver:
    """Takes what ``SnapshotSender`` sends, verifies it and hands it on.

    ``deliver`` is called on the loop with the message and a file that is complete, verified and
    durable, and that is the callee's from then on; what it raises is told to the sender.
    """

    def __init__(
        self,
        directory: Path,
        stands_for: StandsFor,
        deliver: Callable[[InstallSnapshot, Path], None],
        settings: TransferSettings | None = None,
    ) -> None:
        self.settings = settings or TransferSettings()
        self._directory = directory
        self._stands_for = stands_for
        self._deliver = deliver
        self._threads = ThreadPoolExecutor(2, "snapshot-in")
        self._incoming: dict[int, _Incoming] = {}  # by sender
        self._changing = asyncio.Lock()  # held while an entry of the above is replaced
        self._is_closed = False
        clear(directory, "incoming-")

    def routes(self) -> list[web.RouteDef]:
        return [
            web.head(PATH + "/{id}", self.handle),
            web.post(PATH + "/{id}", self.handle),
        ]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a HEAD or POST below ``PATH``."""
        transfer_id = request.path.removeprefix(PATH + "/")
        if not _ID.fullmatch(transfer_id):
            return _answer(HTTPStatus.BAD_REQUEST, "not the id of a transfer")
        if self._is_closed:
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "this member is stopping")
        if request.method == "HEAD":
            offset = next((one.received for one in self._incoming.values() if one.id == transfer_id), 0)
            return web.Response(headers={OFFSET: str(offset)})
        if request.method != "POST":
            return _answer(HTTPStatus.METHOD_NOT_ALLOWED, "expected HEAD or POST")
        try:
            offset = int(request.headers[OFFSET])
            announced = _Announced(
                transfer_id,
                int(request.headers[LENGTH]),
                request.headers[SHA256],
                decode_message(request.headers[MESSAGE]),
            )
            if not (0 <= offset <= announced.length and _DIGEST.fullmatch(announced.sha256)):
                raise ValueError("offset, length or checksum are none")
        except (KeyError, ValueError) as error:
            return _answer(HTTPStatus.BAD_REQUEST, f"not the headers of a snapshot: {error}")
        return await self._receive(request, offset, announced)

    async def close(self) -> None:
        """Drop all that is not complete."""
        self._is_closed = True
        async with self._changing:
            for incoming in list(self._incoming.values()):
                await self._drop(incoming)
        self._threads.shutdown(wait=False)

    async def _receive(
        self, request: web.BaseRequest, offset: int, announced: _Announced
    ) -> web.StreamResponse:
        async with self._changing:
            try:
                incoming = await self._admit(announced)
            except OSError as error:
                log.warning("no room for a snapshot of %d bytes: %s", announced.length, error)
                return _answer(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
            if incoming.is_delivered:
                return _answer(HTTPStatus.NO_CONTENT)
            if incoming.announced != announced or incoming.received != offset:
                return _answer(HTTPStatus.CONFLICT, "not what follows", {OFFSET: str(incoming.received)})
            incoming.keep()
            reading = incoming.reading = asyncio.create_task(self._read(request.content, incoming))
        try:
            await asyncio.wait([reading])
        except asyncio.CancelledError:
            reading.cancel()
            await asyncio.wait([reading])
            raise
        finally:
            if incoming.reading is reading:
                incoming.reading = None
                if self._incoming.get(incoming.source) is incoming and not incoming.is_delivered:
                    self._expire_later(incoming)
        if (reading.cancelled() or reading.exception()) and request.transport is not None:
            request.transport.abort()  # or the server would go on to wait for the rest
        if reading.cancelled():
            return _answer(HTTPStatus.CONFLICT, "another request took over", {OFFSET: str(incoming.received)})
        try:
            return reading.result()
        except (
            aiohttp.ClientError,
            aiohttp.http.HttpProcessingError,
            ConnectionError,
            TimeoutError,
        ) as error:
            log.info("%s broke off at byte %d: %r", incoming, incoming.received, error)
            return _answer(HTTPStatus.REQUEST_TIMEOUT, "the transfer broke off")

    async def _admit(self, announced: _Announced) -> _Incoming:
        """The transfer that this one is, or begins, with nobody reading it."""
        source = announced.message.source
        incoming = self._incoming.get(source)
        if incoming is not None and incoming.id == announced.id:
            await incoming.stop()
            return incoming
        if incoming is not None:
            await self._drop(incoming)
        if self._is_closed:
            raise OSError("this member is stopping")
        path = self._directory / f"incoming-{announced.id}"
        file = await self._on_thread(_make_room, path, announced.length)
        incoming = self._incoming[source] = _Incoming(announced, path, file)
        return incoming

    async def _read(self, content: aiohttp.StreamReader, incoming: _Incoming) -> web.StreamResponse:
        """Take in the rest of the file, and all that follows from its end."""
        try:
            if await self._take_in(content, incoming):
                await self._whole(self._on_thread(self._verify, incoming))
                self._deliver(incoming.announced.message, incoming.path)
                incoming.is_delivered = True
                log.info("%s arrived", incoming)
                return _answer(HTTPStatus.NO_CONTENT)
            raise _Damaged(f"it goes on behind the {incoming.announced.length} bytes announced")
        except _Damaged as error:
            log.warning("%s was dropped: %s", incoming, error)
            await self._forget(incoming)
            return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, ConnectionError, TimeoutError):
            raise  # it may be resumed
        except Exception as error:
            log.warning("%s was dropped: %s", incoming, error)
            await self._forget(incoming)
            return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    async def _take_in(self, content: aiohttp.StreamReader, incoming: _Incoming) -> bool:
        """Write what comes, until it ends. False: more came than was announced."""
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                async with asyncio.timeout(self.settings.silent_after):
                    data = await content.readany()
                if not data:
                    break
                parts.append(data)
                size += len(data)
                if incoming.received + size > incoming.announced.length:
                    return False
                if size >= CHUNK_BYTES:
                    taken, parts, size = parts, [], 0
                    await self._whole(self._on_thread(incoming.write, taken))
        finally:
            # What came before the connection broke counts, or a bad one would never bring anything.
            if parts and incoming.received + size <= incoming.announced.length:
                await self._whole(self._on_thread(incoming.write, parts))
        return True

    def _verify(self, incoming: _Incoming) -> None:
        """On a thread."""
        announced = incoming.announced
        if incoming.received != announced.length:
            raise _Damaged(f"it ended at byte {incoming.received} of {announced.length}")
        if not hmac.compare_digest(incoming.digest.hexdigest(), announced.sha256):
            raise _Damaged("its checksum is wrong")
        os.fsync(incoming.file.fileno())
        incoming.file.close()
        try:
            meta = meta_of(incoming.path, self._stands_for)
        except InvariantViolated as error:
            raise _Damaged(str(error)) from error
        if meta != announced.message.snapshot:
            raise _Damaged(f"it stands for {meta}, but was announced as {announced.message.snapshot}")

    def _expire_later(self, incoming: _Incoming) -> None:
        def expire() -> None:
            incoming.expiry = None
            log.info("%s is not gone on with, and dropped", incoming)
            incoming.expiring = asyncio.ensure_future(self._forget(incoming))

        incoming.expiry = asyncio.get_running_loop().call_later(self.settings.kept_for, expire)

    async def _drop(self, incoming: _Incoming) -> None:
        await incoming.stop()
        await self._forget(incoming)

    async def _forget(self, incoming: _Incoming) -> None:
        incoming.keep()
        if self._incoming.get(incoming.source) is incoming:
            del self._incoming[incoming.source]
        if not incoming.is_delivered:
            await self._whole(self._on_thread(incoming.remove))

    async def _whole(self, work: asyncio.Future[T]) -> T:
        """A thread's work cannot be cancelled: wait for its end in any case."""
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    def _on_thread(self, work: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


@dataclass(frozen=True, slots=True)
class _Announced:
    id: str
    length: int
    sha256: str
    message: InstallSnapshot


class _Incoming:
    """A snapshot on its way in. One thread at a time writes it."""

    def __init__(self, announced: _Announced, path: Path, file: IO[bytes]) -> None:
        self.announced = announced
        self.path = path
        self.file = file
        self.received = 0
        self.digest = hashlib.sha256()
        self.is_delivered = False
        self.reading: asyncio.Task[web.StreamResponse] | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.expiring: asyncio.Future[None] | None = None
        self._unsynced = 0

    @property
    def id(self) -> str:
        return self.announced.id

    @property
    def source(self) -> int:
        return self.announced.message.source

    async def stop(self) -> None:
        """Nobody reads it any more when this returns, nor will it expire."""
        self.keep()
        if self.expiring is not None:
            await asyncio.wait([self.expiring])
        while (reading := self.reading) is not None and not reading.done():
            reading.cancel()
            await asyncio.wait([reading])

    def keep(self) -> None:
        """It does not expire."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None

    def write(self, parts: list[bytes]) -> None:
        """On a thread."""
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[self.file.write(view) :]
            self.digest.update(part)
            self.received += len(part)
            self._unsynced += len(part)
        if self._unsynced >= _SYNC_BYTES:
            os.fdatasync(self.file.fileno())
            self._unsynced = 0

    def remove(self) -> None:
        """On a thread."""
        self.file.close()
        remove(self.path)

    def __str__(self) -> str:
        message = self.announced.message
        return f"the snapshot at {message.snapshot.position} from member {message.source:x}"


def encode_message(message: InstallSnapshot) -> str:
    """For a header."""
    return base64.b64encode(codec.encode([message])).decode()


def decode_message(header: str) -> InstallSnapshot:
    """Raises ValueError."""
    try:
        messages = codec.decode(base64.b64decode(header, validate=True))
    except (binascii.Error, codec.Malformed) as error:
        raise ValueError(str(error)) from error
    if len(messages) != 1 or not isinstance(messages[0], InstallSnapshot):
        raise ValueError("the header holds no InstallSnapshot")
    return messages[0]


def _read_at(path: Path, offset: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)


def _make_room(path: Path, length: int) -> IO[bytes]:
    free = shutil.disk_usage(path.parent).free
    if free < length:
        raise OSError(f"{free} bytes are free in {path.parent}")
    return path.open("xb", buffering=0)


async def _reason(response: aiohttp.ClientResponse) -> str:
    return (await response.text())[:200]


def _check(response: aiohttp.ClientResponse, reason: str = "") -> None:
    """Raises _Refused where another try is of no use, ClientError where it may be."""
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status in (
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
    ):
        raise aiohttp.ClientError(f"it answers {response.status} {reason}")
    if response.status >= HTTPStatus.MULTIPLE_CHOICES:
        raise _Refused(f"{response.status} {reason}")


def _answer(
    status: HTTPStatus, reason: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(status=status, text=reason, headers=headers)
