"""What every request passes first: who may ask, and how much may be sent.

A browser reaches the control plane on behalf of any page that it shows, so requests that a foreign page can cause are
refused: by the Host header against DNS rebinding, by Origin and ``Sec-Fetch-Site`` against forged forms. Who asks is a
matter of the entrance, which comes next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from orrery.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SAFE = ("GET", "HEAD", "OPTIONS")
MB = 2**20
LIMITS = (("/hooks/", 8 * MB), ("/api/data/", 512 * MB), ("/labels", 64 * MB))
"""Part of a path -> bytes that a body may have; elsewhere :data:`LIMIT`."""
LIMIT = 1 * MB
FOREIGN = ("/mlflow", "/git")
"""Mounted programs: they have pages and limits of their own."""
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-cache"),
]


class TooLarge(Exception):
    """The body is larger than this address takes."""


class Guard:
    """The middleware.

    Parameters
    ----------
    app : what is guarded.
    url : address that people use, where a proxy or orrery does TLS; empty where there is none.
    settings : how large what is pushed and sent to MLflow may be, and how long browsers remember that there is TLS.
    """

    def __init__(self, app: App, settings: Settings, url: str = "") -> None:
        self._app, self._url = app, url
        self._foreign = (("/mlflow", settings.artifact_bytes), ("/git", settings.push_bytes))
        self._by_tls = (b"strict-transport-security", f"max-age={settings.hsts_seconds}".encode())
        self._tells = bool(url) and settings.hsts_seconds > 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        foreign = scope["path"].startswith(FOREIGN)
        if self._tells and headers.get(b"host") == self._url.removeprefix("https://"):
            send = _adding(send, self._by_tls)
        reason = refuse(scope["method"], headers, scope["path"], self._url)
        if reason:
            await _say(send, 403, reason, "Nothing was changed.", "Open orrery by its own address, on this machine.")
            return
        limit = next((size for part, size in LIMITS if part in scope["path"]), LIMIT)
        if foreign:
            limit = next(size for part, size in self._foreign if scope["path"].startswith(part))
        if not headers.get(b"content-length", "0").isdigit() or int(headers.get(b"content-length", "0")) > limit:
            await _too_large(send, limit)
            return
        await self._limited(scope, receive, send, limit, dress=not foreign)

    async def _limited(self, scope: Scope, receive: Receive, send: Send, limit: int, *, dress: bool) -> None:
        taken, started = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise TooLarge
            return message

        async def dressed(message: Message) -> None:
            nonlocal started
            if taken > limit and not started:
                return  # whatever a mounted program makes of it: what is answered is said below
            started = True
            if message["type"] == "http.response.start" and dress:
                known = {name for name, _ in message["headers"]}
                message = {
                    **message,
                    "headers": [*message["headers"], *(one for one in HEADERS if one[0] not in known)],
                }
            await send(message)

        try:
            await self._app(scope, counted, dressed)
        except Exception:
            if taken <= limit:
                raise
        if taken > limit and not started:
            await _too_large(send, limit)


def _adding(send: Send, header: tuple[bytes, bytes]) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], header]}
        await send(message)

    return adding


def refuse(method: str, headers: dict[bytes, str], path: str = "/", url: str = "") -> str:
    """Return why a request is refused; empty if it is not.

    Parameters
    ----------
    url : address that people use, besides loopback.

    Examples
    --------
    >>> refuse("GET", {b"host": "127.0.0.1:8700"})
    ''
    >>> refuse("GET", {b"host": "evil.example"})
    "'evil.example' is not an address of orrery."
    """
    host = headers.get(b"host", "")
    public = bool(url) and host == url.removeprefix("https://")
    if not public and host.rpartition(":")[0] not in LOOPBACK and host not in LOOPBACK:
        return f"{host!r} is not an address of orrery."
    site = headers.get(b"sec-fetch-site", "none")
    if method in SAFE:
        # A link from elsewhere may lead to a page; what programs read, and poll, is no page.
        return "A page of another site may not read this." if site == "cross-site" and path.startswith("/api/") else ""
    origin = headers.get(b"origin")
    if origin is not None:
        ours = (url,) if public else (f"http://{host}", *((url,) if url else ()))
        return "" if origin in ours else "A page of another origin may not change anything here."
    if site not in ("same-origin", "none"):
        return "A page of another site may not change anything here."
    return ""


async def _too_large(send: Send, limit: int) -> None:
    await _say(
        send, 413, f"The body is larger than {limit // MB} MiB.", "Nothing was changed.", "Send it in several parts."
    )


async def _say(send: Send, status: int, what: str, safe: str, todo: str) -> None:
    body = msgspec.json.encode({"error": {"what": what, "safe": safe, "todo": todo}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
