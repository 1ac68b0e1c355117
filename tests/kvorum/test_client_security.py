"""Users and TLS, against real etcd: Kvorum has neither yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from kvorum import ConnectionFailed, KvorumError, PermissionDenied, ServerError, Tls
from tests.common.ports import free_port
from tests.common.servers import Server, running, start_etcd
from tests.kvorum.clients import MakeClient
from tests.kvorum.test_client import SECONDS, following


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """etcd with users: root, and ann who may read and write what begins with ``ann/``."""
    from kvorum import Client
    from kvorum.messages import b64

    server = start_etcd(tmp_path_factory.mktemp("guarded"))
    with running(server), Client(server.url) as client:
        for user in ("root", "ann"):
            client.call("/v3/auth/user/add", {"name": user, "password": f"{user}'s"})
            client.call("/v3/auth/role/add", {"name": user})
            client.call("/v3/auth/user/grant", {"user": user, "role": user})
        permission = {"permType": "READWRITE", "key": b64(b"ann/"), "range_end": b64(b"ann0")}
        client.call("/v3/auth/role/grant", {"name": "ann", "perm": permission})
        client.call("/v3/auth/enable", {})
        yield server


@pytest.fixture
def ann(guarded: Server, make_client: MakeClient) -> Iterator[Any]:
    with make_client(guarded.url, user="ann", password="ann's") as client:
        yield client


def test_a_user_may_do_what_is_granted_and_nothing_else(ann: Any) -> None:
    ann.put("ann/a", "1")
    assert ann.get("ann/a").value == b"1"
    with pytest.raises(PermissionDenied):
        ann.put("bob/a", "1")
    with pytest.raises(PermissionDenied):
        list(ann.watch("bob/a"))


def test_a_wrong_password_is_told(guarded: Server, make_client: MakeClient) -> None:
    with (
        make_client(guarded.url, user="ann", password="bob's") as client,
        pytest.raises(ServerError, match="invalid user ID or password"),
    ):
        client.get("ann/a")


def test_without_a_user_nothing_is_allowed(guarded: Server, make_client: MakeClient) -> None:
    with make_client(guarded.url) as client, pytest.raises(ServerError, match="user name is empty"):
        client.get("ann/a")


def test_a_token_that_has_become_invalid_is_renewed(
    ann: Any, guarded: Server, make_client: MakeClient
) -> None:
    """For calls and for watches, unnoticed."""

    def end_tokens() -> None:
        with make_client(guarded.url, user="root", password="root's") as root:
            root.call("/v3/auth/user/changepw", {"name": "ann", "password": "ann's"})

    ann.put("ann/a", "1")
    end_tokens()
    ann.put("ann/a", "2")
    end_tokens()
    with following(ann.watch("ann/a")) as told:
        ann.put("ann/a", "3")
        assert told.get(timeout=SECONDS).value == b"3"


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("certificates")
    ca, other = trustme.CA(), trustme.CA()
    server, user = ca.issue_cert("127.0.0.1"), ca.issue_cert("ann@example.org")
    files = {
        "ca": ca.cert_pem.bytes(),
        "other_ca": other.cert_pem.bytes(),
        "server": server.cert_chain_pems[0].bytes(),
        "server_key": server.private_key_pem.bytes(),
        "user": user.cert_chain_pems[0].bytes(),
        "user_key": user.private_key_pem.bytes(),
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return {name: str(directory / name) for name in files}


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory, certificates: dict[str, str]) -> Iterator[str]:
    """The URL of an etcd that wants to see a certificate."""
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    server = start_etcd(
        tmp_path_factory.mktemp("encrypted"),
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--cert-file={certificates['server']}",
        f"--key-file={certificates['server_key']}",
        f"--trusted-ca-file={certificates['ca']}",
        "--client-cert-auth",
        "--listen-metrics-urls=http://127.0.0.1:" + str(free_port()),
    )
    try:
        yield url
    finally:
        server.stop()


def test_both_sides_show_who_they_are(
    encrypted: str, certificates: dict[str, str], make_client: MakeClient
) -> None:
    tls = Tls(certificates["ca"], certificates["user"], certificates["user_key"])
    with make_client(encrypted, tls=tls, timeout=SECONDS) as client:
        client.put("tls/a", "1", idempotent=True)
        with following(client.watch("tls/a")) as told:
            client.put("tls/a", "2")
            assert told.get(timeout=SECONDS).value == b"2"
        with client.lease(5) as lease:
            assert client.time_to_live(lease.id).ttl > 0


@pytest.mark.parametrize("ca", ["", "other_ca"])
def test_a_server_of_an_unknown_authority_is_not_talked_to(
    encrypted: str, certificates: dict[str, str], make_client: MakeClient, ca: str
) -> None:
    tls = Tls(certificates.get(ca, ""), certificates["user"], certificates["user_key"])
    with (
        make_client(encrypted, tls=tls, timeout=1) as client,
        pytest.raises(ConnectionFailed, match=r"(?i)certificate") as caught,
    ):
        client.get("tls/a")
    assert not caught.value.maybe_done


def test_an_endpoint_without_a_scheme_is_https_where_tls_is_asked_for(
    encrypted: str, certificates: dict[str, str], make_client: MakeClient
) -> None:
    tls = Tls(certificates["ca"], certificates["user"], certificates["user_key"])
    bare = encrypted.removeprefix("https://")
    with make_client(bare, tls=tls, timeout=SECONDS) as client:
        client.put("tls/a", "1", idempotent=True)
        assert client.status(bare)["leader"]


def test_a_server_of_another_name_is_not_talked_to(
    encrypted: str, certificates: dict[str, str], make_client: MakeClient
) -> None:
    """Its certificate is good, but says 127.0.0.1."""
    tls = Tls(certificates["ca"], certificates["user"], certificates["user_key"])
    other = encrypted.replace("127.0.0.1", "localhost")
    with (
        make_client(other, tls=tls, timeout=1) as client,
        pytest.raises(ConnectionFailed, match=r"(?i)certificate") as caught,
    ):
        client.get("tls/a")
    assert not caught.value.maybe_done
    with (
        make_client(other, tls=replace(tls, skip_verify=True), timeout=SECONDS) as client,
    ):
        client.get("tls/a")


@pytest.mark.parametrize(("name", "is_right"), [("127.0.0.1", True), ("localhost", False)])
def test_the_certificate_s_name_may_be_another_than_the_endpoint_s(
    encrypted: str, certificates: dict[str, str], make_client: MakeClient, name: str, is_right: bool
) -> None:
    """Then it has to be that one, and the endpoint's is not enough."""
    tls = Tls(certificates["ca"], certificates["user"], certificates["user_key"], server_name=name)
    endpoint = encrypted.replace("127.0.0.1", "localhost") if is_right else encrypted
    with make_client(endpoint, tls=tls, timeout=SECONDS if is_right else 1) as client:
        if is_right:
            client.get("tls/a")
            client.watch("tls/a").close()
        else:
            with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
                client.get("tls/a")


def test_who_shows_no_certificate_is_refused(
    encrypted: str, certificates: dict[str, str], make_client: MakeClient
) -> None:
    with (
        make_client(encrypted, tls=Tls(certificates["ca"]), timeout=1) as client,
        pytest.raises(ConnectionFailed),
    ):
        client.get("tls/a")


@pytest.mark.parametrize("tls", [Tls("/nowhere/ca.pem"), Tls("", "/nowhere/cert.pem"), Tls(__file__)])
def test_files_that_are_none_are_told(encrypted: str, make_client: MakeClient, tls: Tls) -> None:
    with make_client(encrypted, tls=tls) as client, pytest.raises(KvorumError, match="expected files in PEM"):
        client.get("tls/a")


def test_a_key_with_a_password_is_refused_and_not_asked_for(
    encrypted: str, certificates: dict[str, str], make_client: MakeClient, tmp_path: Path
) -> None:
    """A service would stand at its start, for nobody sits at its terminal."""
    key = serialization.load_pem_private_key(Path(certificates["user_key"]).read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    tls = Tls(certificates["ca"], certificates["user"], str(locked))
    with make_client(encrypted, tls=tls) as client, pytest.raises(KvorumError, match="unencrypted"):
        client.get("tls/a")
