"""A way out of walls: a proxy that connects a program to the hosts that it may reach, and to no others.

Within walls there is no network. A program that is to reach one finds, in the usual variables (``HTTPS_PROXY``), a port
of its own loopback, behind which this stands in the process that started it: names are resolved here, and the
connection goes to an address that was allowed. It tunnels what asks for that (``CONNECT``, any port) and hands on plain
HTTP. Where this machine itself has a proxy to go by, that is asked.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from orrery.errors import NotAllowed, OrreryError

PORT = 3128
"""Port of a program's own loopback that leads out; the next one where that is taken."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
"""Variables that say how to go out, in small letters and in capitals."""
PATIENCE = 30.0
"""Seconds in which a program must have said where to, and in which there must be a connection."""
HEAD_BYTES = 64 << 10
REMEMBERED = 20
"""So many hosts that were refused are remembered."""
_OURS = ("proxy-", "connection:", "keep-alive:")


class WayOut:
    """Leads one program out.

    Parameters
    ----------
    allowed : returns the addresses of a host that may be connected to; raises NotAllowed where none may, and
        OrreryError where it has none.
    direct : whether the program's own loopback is left out of it.
    """

    def __init__(self, allowed: Callable[[str, int], list[str]], *, direct: bool = True) -> None:
        self._allowed, self._direct = allowed, direct
        self.refused: list[str] = []
        """``HOST:PORT`` of what was asked for, and not allowed."""

    def variables(self, port: int) -> dict[str, str]:
        """Return the variables by which programs find the way."""
        there = f"http://127.0.0.1:{port}"
        found = dict.fromkeys(PROXIES, there) | {"no_proxy": "127.0.0.1,localhost,::1" if self._direct else ""}
        return found | {name.upper(): text for name, text in found.items()}

    def __call__(self, inner: socket.socket) -> socket.socket:
        """Return the connection that a program asks for.

        Raises
        ------
        OSError
            If there is none; the program was told why.
        """
        inner.settimeout(PATIENCE)
        try:
            outer = self._connected(inner)
        except (NotAllowed, OrreryError, ValueError) as error:
            status = "502 Bad Gateway" if isinstance(error, OrreryError) else "400 Bad Request"
            status = "403 Forbidden" if isinstance(error, NotAllowed) else status
            text = f"{error}\n".encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
            inner.sendall(f"{head}Connection: close\r\n\r\n".encode() + text)
            raise OSError(str(error)) from None
        for end in (inner, outer):
            end.settimeout(None)
        return outer

    def _connected(self, inner: socket.socket) -> socket.socket:
        head, rest = _head(inner)
        method, target, version, fields = _words(head)
        tunnel = method == "CONNECT"
        parts = urlsplit(f"//{target}" if tunnel else target)
        host, port = parts.hostname or "", parts.port or (443 if tunnel else 80)
        if not host or (not tunnel and parts.scheme != "http"):
            raise ValueError("This is a proxy: it is told where to.")
        addresses, unknown = list[str](), ""
        try:
            addresses = self._allowed(host, port)
        except NotAllowed:
            if len(self.refused) < REMEMBERED and f"{host}:{port}" not in self.refused:
                self.refused.append(f"{host}:{port}")
            raise
        except OrreryError as error:
            unknown = str(error)  # the proxy of this machine may know it
        kept = [] if tunnel else [line for line in fields if not line.lower().startswith(_OURS)]
        proxy = _proxy_of_this_machine(host, "https" if tunnel else "http")
        if proxy is not None:
            outer = _first([proxy.hostname or ""], proxy.port or 80)
            said = [f"Host: {target}"] if tunnel else [*kept, "Connection: close"]
            outer.sendall(_told(f"{method} {target} {version}", [*said, *_credentials(proxy)]) + rest)
            return outer
        if unknown:
            raise OrreryError(unknown)
        outer = _first(addresses, port)
        if tunnel:
            inner.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            outer.sendall(rest)
        else:
            path = parts._replace(scheme="", netloc="").geturl() or "/"
            outer.sendall(_told(f"{method} {path} {version}", [*kept, "Connection: close"]) + rest)
        return outer


def _head(inner: socket.socket) -> tuple[str, bytes]:
    text = b""
    while b"\r\n\r\n" not in text:
        block = inner.recv(1 << 16)
        if not block or len(text) > HEAD_BYTES:
            raise ValueError("This is no request.")
        text += block
    head, _, rest = text.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def _words(head: str) -> tuple[str, str, str, list[str]]:
    """Return the three words of a request, and its fields."""
    request, *fields = head.split("\r\n")
    words = request.split(" ")
    if len(words) != 3:
        raise ValueError("This is no request.")
    return words[0], words[1], words[2], fields


def _told(request: str, fields: list[str]) -> bytes:
    return "\r\n".join([request, *fields, "", ""]).encode("latin-1")


def _first(addresses: list[str], port: int) -> socket.socket:
    """Return a connection to the first address that answers."""
    failure: OSError = OSError("it has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), PATIENCE)
        except OSError as error:
            failure = error
    raise OrreryError(f"{' or '.join(addresses)} does not answer on port {port}: {failure}.")


def _proxy_of_this_machine(host: str, scheme: str) -> SplitResult | None:
    said = getproxies_environment()
    url = said.get(scheme) or said.get("all")
    if not url or proxy_bypass(host):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http":
        raise OrreryError("The proxy of this machine is asked in plain HTTP only.")
    return parts


def _credentials(proxy: SplitResult) -> list[str]:
    if not proxy.username:
        return []
    both = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return [f"Proxy-Authorization: Basic {base64.b64encode(both.encode()).decode()}"]
