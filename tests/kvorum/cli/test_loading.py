"""What bench and check perf have in common."""

from __future__ import annotations

from kvorum.cli import loading
from kvorum.cli.settings import Settings
from kvorum.tls import Tls


def test_load_goes_to_where_the_client_goes() -> None:
    """An endpoint without a scheme is https where TLS is asked for, and http otherwise."""
    for tls, is_encrypted in ((Tls(), False), (Tls(skip_verify=True), True)):
        settings = Settings(("a:1", "http://b", "https://[::1]:3"), "simple", False, 1.0, 1.0, tls)
        with settings.client() as client:
            found = loading.targets(settings, client)
        assert [(one.host, one.port) for one in found] == [("a", 1), ("b", 2379), ("::1", 3)]
        assert [one.context is not None for one in found] == [is_encrypted, False, True]
