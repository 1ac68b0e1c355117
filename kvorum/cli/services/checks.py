"""Checks of a service: does it answer over HTTP, does it accept a connection, is a command content.

    check = parsed("http://127.0.0.1:8080/health")
    problem = await check(timeout=1.0)          # None if all is well

Whatever hangs is ended when the time is over, the command with all that it has started.
"""

from __future__ import annotations

import asyncio
import base64
import math
import os
import shutil
import signal
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import SplitResult, unquote, urlsplit

import h11

Check = Callable[[float], Awaitable[str | None]]
READ_BYTES = 64 * 1024


def parsed(text: str) -> Check:
    """An address of HTTP or TCP, or else a command for the shell. Raises ValueError."""
    scheme = text.partition("://")[0]
    if scheme in ("http", "https", "tcp"):
        try:
            parts = urlsplit(text)
            is_whole = bool(parts.hostname) and (scheme != "tcp" or parts.port is not None)
        except ValueError:
            is_whole = False
        if not is_whole:
            raise ValueError(f"the check {text!r} is wrong: expected {scheme}://HOST:PORT")
        if scheme == "tcp":
            return lambda timeout: _in_time(_connects(parts), timeout)
        try:
            request = _request(parts)
        except (ValueError, h11.LocalProtocolError):
            raise ValueError(
                f"the check {text!r} is wrong: expected {scheme}://HOST:PORT/PATH, with signs as %20"
            ) from None
        return lambda timeout: _in_time(_answers(parts, request), timeout)
    if not text.strip():
        raise ValueError("the check is empty: expected http://…, https://…, tcp://HOST:PORT or a command")
    return lambda timeout: _command(text, timeout)


async def _in_time(check: Awaitable[str | None], timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout):
            return await check
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except (OSError, ValueError, h11.ProtocolError) as error:
        return str(error) or type(error).__name__


async def _connects(parts: SplitResult) -> str | None:
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.close()
    return None


def _request(parts: SplitResult) -> h11.Request:
    headers = [
        ("Host", parts.netloc.rpartition("@")[2]),
        ("User-Agent", "kvorum"),
        ("Connection", "close"),
    ]
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers.append(("Authorization", "Basic " + base64.b64encode(user.encode()).decode()))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return h11.Request(method="GET", target=target, headers=headers)


async def _answers(parts: SplitResult, request: h11.Request) -> str | None:
    """With a status of success, whatever else."""
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls)
    try:
        http = h11.Connection(h11.CLIENT)
        writer.write(http.send(request) or b"")
        while True:
            match http.next_event():
                case h11.Response(status_code=status):
                    return None if 200 <= status < 300 else f"it answers with status {status}"
                case h11.NEED_DATA:
                    if not (data := await reader.read(READ_BYTES)):
                        return "it hangs up without an answer"
                    http.receive_data(data)
    except h11.RemoteProtocolError:
        return "its answer is not HTTP"
    finally:
        writer.close()


async def _command(text: str, timeout: float) -> str | None:
    # It ends by itself should we be killed and not see to it: else each would leave what hangs behind.
    ender = [shutil.which("timeout"), "-s", "KILL", str(math.ceil(timeout) + 1)]
    try:
        process = await asyncio.create_subprocess_exec(
            *(ender if ender[0] else ()),
            *("/bin/sh", "-c", text),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            process_group=0,
        )
    except OSError as error:
        return f"the command cannot be run: {error.strerror}"
    try:
        async with asyncio.timeout(timeout):
            code = await process.wait()
    except TimeoutError:
        return f"the command has not ended within {timeout:g} s"
    finally:
        with suppress(ProcessLookupError):  # what it has started ends with it
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return None if code == 0 else f"the command has ended with {code}"
