"""How the server is checked, and who we are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class Tls:
    """Files in PEM. Empty strings are defaults: the system's CAs, and no certificate of our own."""

    cacert: str = ""
    cert: str = ""
    key: str = ""
    skip_verify: bool = False

    def context(self) -> ssl.SSLContext:
        """Raises OSError, ssl.SSLError: a file that is not there, or is no such file."""
        import ssl  # not for every command

        context = ssl.create_default_context(cafile=self.cacert or None)
        if self.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context
