"""How the server is checked, and who we are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvorum.errors import KvorumError

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class Tls:
    """Files in PEM. Empty strings are defaults: the system's CAs, and no certificate of our own. The server's
    must be for the endpoint's name, or for ``server_name``."""

    cacert: str = ""
    cert: str = ""
    key: str = ""
    skip_verify: bool = False
    server_name: str = ""

    def context(self) -> ssl.SSLContext:
        """Raises KvorumError: a file that is not there, or is not what it should be."""
        import ssl  # not for every command

        if self.key and not self.cert:
            raise KvorumError(
                f"the key {self.key} is of no use alone: expected its certificate with it, as cert"
            )
        try:
            context = ssl.create_default_context(cafile=self.cacert or None)
            if self.skip_verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert:
                # Without a password given, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert, self.key or None, password="")
        except OSError as error:
            files = ", ".join(file for file in (self.cacert, self.cert, self.key) if file)
            raise KvorumError(f"cannot use {files}: {error}: expected files in PEM, unencrypted") from error
        return context
