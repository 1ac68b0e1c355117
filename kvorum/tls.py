"""How to check a server, and who we are to it. Light: ``ssl`` is imported when a connection needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files; empty strings are defaults: the system's CAs, no client certificate."""

    cacert: str = ""
    cert: str = ""
    key: str = ""
    skip_verify: bool = False

    def context(self) -> ssl.SSLContext:
        """Raises OSError when a file cannot be read or is no PEM."""
        import ssl

        context = ssl.create_default_context(cafile=self.cacert or None)
        if self.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context
