"""What the shell can complete beside words that are known: files, contexts, and what the server has.

That is its keys, users and roles. Whoever presses Tab waits, and has asked for no message: they are looked
for during ``KEYS_SECONDS`` at most, and where there is no server, no right, or no password, there are none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kvorum.cli.settings import Settings

KEYS_SECONDS = 1.0
KEYS_MAX = 200
PAGE = 100
PART = "part"
"""The type of what is not yet a whole word: no space comes behind it."""
Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]
Read = Callable[[bytes, bytes, int], list[bytes]]
"""The first keys of a range: ``read(start, end, limit)``."""


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def context_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from kvorum.cli import contexts

    return [CompletionItem(name) for name in sorted(contexts.load().by_name) if name.startswith(incomplete)]


def keys(count: int = 1) -> Complete:
    """For an argument of which the first ``count`` words are keys."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        so_far = ctx.params.get(param.name or "") or ()
        if isinstance(so_far, tuple) and len(so_far) >= count:
            return []
        found = []
        with suppress(Exception):  # nobody has asked for a message
            for name in _names_on_the_server(ctx, incomplete):
                found.append(CompletionItem(name, type=PART if name.endswith("/") else "plain"))
        return found

    return complete


def words(*known: str) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in known if word.startswith(incomplete)]

    return complete


def by_position(*completes: Complete) -> Complete:
    """For an argument of several words: each is completed in its own way, and those behind not at all."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        so_far = len(ctx.params.get(param.name or "") or ())
        return completes[so_far](ctx, param, incomplete) if so_far < len(completes) else []

    return complete


def user_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _names_of(ctx, "user", incomplete)


def role_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _names_of(ctx, "role", incomplete)


def _names_of(ctx: click.Context, kind: str, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from kvorum.cli.main import settings_of

    with suppress(Exception):  # nobody has asked for a message
        settings = _hasty(settings_of(ctx.find_root(), asks_a_server=True))
        with settings.gateway() as gateway:
            names = gateway.call(f"/v3/auth/{kind}/list", {}).get(f"{kind}s", [])
        found = (name for name in names if name.startswith(incomplete) and name.isprintable())
        return [CompletionItem(name) for name, _ in zip(found, range(KEYS_MAX), strict=False)]
    return []


def _names_on_the_server(ctx: click.Context, incomplete: str) -> Iterator[str]:
    from kvorum.cli.main import settings_of
    from kvorum.cli.output import raw
    from kvorum.cli.raw_text import to_bytes
    from kvorum.messages import b64, prefix_end

    settings = _hasty(settings_of(ctx.find_root(), asks_a_server=True))
    prefix = to_bytes(incomplete)
    deadline = time.monotonic() + KEYS_SECONDS
    with settings.gateway() as gateway:

        def read(start: bytes, end: bytes, limit: int) -> list[bytes]:
            if time.monotonic() > deadline:
                return []
            request = {"key": b64(start), "range_end": b64(end), "limit": limit, "keys_only": True}
            answer = gateway.call("/v3/kv/range", {**request, "serializable": True})
            return [raw(kv, "key") for kv in answer.get("kvs", [])]

        for name, _ in zip(names_below(prefix, prefix_end(prefix), read), range(KEYS_MAX), strict=False):
            with suppress(UnicodeDecodeError):
                text = name.decode()
                if text.isprintable():
                    yield text


def _hasty(settings: Settings) -> Settings:
    """Raises ValueError where a password would have to be asked for."""
    if settings.user and ":" not in settings.user and not settings.password:
        raise ValueError("there is no password")
    return replace(
        settings,
        dial_timeout=min(settings.dial_timeout, KEYS_SECONDS / 2),
        command_timeout=min(settings.command_timeout, KEYS_SECONDS),
    )


def names_below(prefix: bytes, end: bytes, read: Read) -> Iterator[bytes]:
    """The keys of ``[prefix, end)``, cut behind the first slash after the prefix, each once and in order.
    What is below such a folder is skipped, however much it is."""
    start = prefix or b"\0"
    while found := read(start, end, PAGE):
        folder = b""
        for key in found:
            if folder and key.startswith(folder):
                continue
            slash = key.find(b"/", len(prefix))
            folder = key[: slash + 1]
            yield folder or key
        if len(found) < PAGE:
            return
        start = folder[:-1] + b"0" if folder else found[-1] + b"\0"
