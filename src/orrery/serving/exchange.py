"""One HTTP request and its answer."""

from __future__ import annotations

import asyncio
import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from httptools import HttpParserInvalidURLError, parse_url

from orrery.errors import NotUnderstood
from orrery.serving.requests import Headers

if TYPE_CHECKING:
    from orrery.serving.http1 import Connection

USUAL = 256
"""Bytes of an address that is remembered as it was read; long ones, of which anybody can send many, fill no memory."""


class Exchange:
    """One request and its answer.

    Parameters
    ----------
    method, path, query : of the request line; the path is unquoted.
    headers : the header fields, names in lower case; of several with one name the values, with commas between.
    over : whether the whole body is there.
    size : bytes of it that are there.
    """

    __slots__ = (
        *("_arrived", "_broken", "_chunks", "_connection", "answered", "fields", "headers", "keep", "method", "over"),
        *("path", "query", "size", "task", "url"),
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: list[bytes] = []
        self._arrived: asyncio.Future[None] | None = None
        self._broken = self.over = self.answered = self.keep = False
        self.url, self.size = b"", 0
        self.fields: list[tuple[bytes, bytes]] = []
        self.method = self.path = self.query = ""
        self.headers: dict[str, str] = {}
        self.task: asyncio.Task[None] | None = None

    def begin(self, method: bytes, keep: bool) -> None:
        """Take the request line and the header fields as complete."""
        self.method, self.keep = method.decode("latin-1"), keep
        self.path, self.query = _usual(self.url) if len(self.url) <= USUAL else _target(self.url)
        headers = self.headers
        for raw, value in self.fields:
            name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text

    def body_alone(self) -> bytes:
        """Return a request line and header that announce the same body and nothing else; without a body, nothing."""
        for name in ("content-length", "transfer-encoding"):
            if name in self.headers:
                return f"POST / HTTP/1.1\r\n{name}: {self.headers[name]}\r\n\r\n".encode("latin-1")
        return b""

    def feed(self, data: bytes) -> None:
        """Take a part of the body; who has answered already does not need it."""
        if not self.answered:
            self._chunks.append(data)
            self.size += len(data)
            self._wake()

    def end(self, broken: bool = False) -> None:
        """Take the body as complete, or as broken off."""
        self.over, self._broken = True, broken
        self._wake()

    async def more(self) -> None:
        """Wait until more of the body is there, or it is over."""
        self._arrived = asyncio.get_running_loop().create_future()
        await self._arrived

    def body(self) -> bytes:
        """Return the body.

        Raises
        ------
        NotUnderstood
            If it broke off.
        """
        if self._broken:
            raise NotUnderstood("The request's body ends before it is complete.", todo="Send it again.")
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def answer(self, status: int, headers: Headers, content: bytes) -> None:
        """Send the answer, once; to somebody who has gone, nothing."""
        if self.answered:
            return
        self.answered = True
        self._chunks.clear()
        self._connection.answer(self, status, headers, content)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def _target(url: bytes) -> tuple[str, str]:
    """Return path and query of a request's address; what is none has no path.

    Examples
    --------
    >>> _target(b"/a%20b?c=d"), _target(b"http://there/x"), _target(b"*")
    (('/a b', 'c=d'), ('/x', ''), ('*', ''))
    """
    text = url.decode("latin-1")
    if "://" in text:
        with contextlib.suppress(HttpParserInvalidURLError):
            found = parse_url(url)
            return unquote((found.path or b"/").decode("latin-1")), (found.query or b"").decode("latin-1")
    path, _, query = text.partition("?")
    return unquote(path), query


_usual = lru_cache(1024)(_target)
