"""TLS of our own: the certificate that servers show, and the issuers of those that they ask for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from orrery.errors import NotUnderstood
from orrery.settings import Settings

EVERY = 60.0
"""Seconds after which it is looked whether the certificate was renewed."""


class Certificate:
    """Certificate and key of a server, read anew when their files change: certificates are renewed every few weeks.

    Parameters
    ----------
    settings : which files.
    clients : file with the issuers of certificates that whoever connects must show; empty where nobody must.

    Raises
    ------
    NotUnderstood
        If a file cannot be read, or key and certificate do not belong together.
    """

    def __init__(self, settings: Settings, clients: str = "") -> None:
        self._files, self._clients = (settings.tls_certificate, settings.tls_key), clients
        self._seen = self._stamp()
        self.context = self._made()

    def renew(self) -> bool:
        """Show a certificate that has come in the meantime; say whether one has.

        Raises
        ------
        NotUnderstood
            If it cannot be read. The one before is shown on.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._made()  # a context that is in use would keep half of what does not fit together
        self.context.load_cert_chain(*self._files)
        self._seen = stamp
        return True

    async def follow(self, say: Callable[[str], None]) -> None:
        """Renew it again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                if self.renew():
                    say("a new certificate is shown")
            except NotUnderstood as error:
                say(f"{error} The certificate from before is shown on.")

    def files(self) -> tuple[bytes, bytes, bytes | None]:
        """Return key, certificate, and the issuers of clients, as they are now."""
        issuers = Path(self._clients).read_bytes() if self._clients else None
        return Path(self._files[1]).read_bytes(), Path(self._files[0]).read_bytes(), issuers

    def _made(self) -> ssl.SSLContext:
        try:
            made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self._clients or None)
        except (OSError, ssl.SSLError) as error:
            raise NotUnderstood(f"{self._clients} names no issuers of certificates: {error}.") from None
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.verify_mode = ssl.CERT_REQUIRED if self._clients else ssl.CERT_NONE
        made.set_alpn_protocols(["http/1.1"])
        try:
            # Asked for a password, it says that it has none: a server that starts by itself cannot be told one.
            made.load_cert_chain(*self._files, password=lambda: "")
        except (OSError, ssl.SSLError, ValueError) as error:
            raise NotUnderstood(
                f"The certificate {self._files[0]} with the key {self._files[1]} cannot be used: {error}.",
                todo="Both are PEM; the key has no password.",
            ) from None
        return made

    def _stamp(self) -> tuple[float, ...]:
        try:
            return tuple(Path(one).stat().st_mtime for one in self._files)
        except OSError:
            return ()


def common_name(peer: object) -> str:
    """Return the common name of a certificate as :meth:`ssl.SSLSocket.getpeercert` says it; empty if it has none.

    Examples
    --------
    >>> common_name({"subject": ((("organizationName", "House"),), (("commonName", "robot"),))}), common_name(None)
    ('robot', '')
    """
    subject = peer.get("subject", ()) if isinstance(peer, dict) else ()
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else ""
