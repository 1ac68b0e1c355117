"""How the server is checked, and who we are. What comes of it: test_client_security.py."""

from __future__ import annotations

import ssl

import pytest

from kvorum import KvorumError, Tls


def test_the_server_is_checked_unless_that_is_given_up() -> None:
    context = Tls().context()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    context = Tls(skip_verify=True).context()
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_NONE)


def test_a_key_without_its_certificate_is_refused() -> None:
    """Nobody would be shown who we are, and the server's refusal would not say why."""
    with pytest.raises(KvorumError, match=r"the key me\.key is of no use alone: expected its certificate"):
        Tls(key="me.key").context()
