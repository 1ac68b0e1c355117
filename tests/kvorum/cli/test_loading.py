"""What bench and check perf have in common."""

from __future__ import annotations

from typing import Any

import pytest

from kvorum import Client
from kvorum.cli import loading
from kvorum.cli.settings import Settings
from kvorum.tls import Tls
from tests.common.servers import Server


def test_load_goes_to_where_the_client_goes() -> None:
    """An endpoint without a scheme is https where TLS is asked for, and http otherwise."""
    for tls, is_encrypted in ((Tls(), False), (Tls(skip_verify=True), True)):
        settings = Settings(("a:1", "http://b", "https://[::1]:3"), "simple", False, 1.0, 1.0, tls)
        with settings.client() as client:
            found = loading.targets(settings, client)
        assert [(one.host, one.port) for one in found] == [("a", 1), ("b", 2379), ("::1", 3)]
        assert [one.context is not None for one in found] == [is_encrypted, False, True]


def test_what_comes_late_is_cleaned_up_too(
    kvorum_server: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that was under way when its load was interrupted may be carried out after the deletion."""
    with Client(kvorum_server.url) as client:
        late = ["2", "1"]
        call = client.call

        def call_and_put(path: str, *rest: Any, **more: Any) -> Any:
            answer = call(path, *rest, **more)
            if late:
                client.put(key + late.pop(), "")
            return answer

        client.put(f"{key}0", "")
        monkeypatch.setattr(client, "call", call_and_put)
        revision = loading.clean_up(client, key.encode())
        left = client.range(key, prefix=True)
    assert (left.count, left.revision) == (0, revision)
