"""HTTP/1.1 on the event loop itself: connections, requests and their answers, in order.

What arrives is parsed by llhttp, the parser of Node.js; no thread lies between the socket and whoever answers.
A connection is read no further while one request of it is answered and another one waits.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from orrery.access.tls import common_name
from orrery.serving import closing
from orrery.serving.door import Limits
from orrery.serving.exchange import Exchange
from orrery.serving.log import say
from orrery.serving.requests import CERTIFICATE, Headers
from orrery.settings import LOOPBACK

BACKLOG = 1024
HANDSHAKE = 10.0
"""Seconds that both sides have to agree on how they encrypt."""
LINGER = 2.0
"""Seconds in which the other side may notice that it is answered, and that the rest of what it sends is not read."""

_CLOSE = ("connection", "close")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


App = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Answers an exchange, whatever happens."""


class Connection(asyncio.Protocol):
    """One connection: reads requests, and has them answered one after the other."""

    __slots__ = (
        *("_begun", "_fed", "_full", "_head", "_last", "_leaving", "_listener", "_name", "_parser", "_queue"),
        *("_transport", "_wrong", "until"),
    )

    def __init__(self, listener: Listener) -> None:
        self._listener, self._parser = listener, HttpRequestParser(self)
        self._begun: Exchange | None = None  # whose header or body is being read
        self._queue: deque[Exchange] = deque()  # who is answered, and who waits for that
        self._head = self._fed = 0  # bytes of the header, and of the request with all that is around it
        self._last = False  # whether nothing is read any more
        self._wrong = 0  # status of the last answer, to what was no request
        self._full = False  # whether the other side does not take its answers
        self._leaving = False
        self._name = ""  # by the certificate that was shown
        self.until = math.inf
        """When it is closed unless something happens before."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        if self._listener.tls is not None:
            self._name = common_name(transport.get_extra_info("peercert"))
        self._listener.connections.add(self)
        self._expect(self._listener.limits.header_seconds)

    def connection_lost(self, error: Exception | None) -> None:
        """End what is being read; what is being answered goes on, for the log."""
        self._leaving = True
        self._listener.left(self)
        if self._begun is not None:
            self._begun.end(broken=True)

    def eof_received(self) -> None:
        """Close: who has closed its half is taken for somebody who has gone."""

    def pause_writing(self) -> None:
        """Read nothing from somebody who does not take its answers."""
        self._full = True
        if not self._leaving:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        self._read_on()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived."""
        if self._leaving or self._last:
            return
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            # Another protocol is offered, and this one is good enough; but the parser has not read the body.
            rest = data[upgrade.args[0] :]
            self.data_received(rest if self._begun is None else self._begun.body_alone() + rest)
        except HttpParserCallbackError:  # a fault of this module, and no mistake of the caller's
            say(traceback.format_exc())
            self._refuse(500)
        except HttpParserError:
            if not self._last:
                self._refuse(400)
        if (exchange := self._begun) is not None and not self._last:
            limits = self._listener.limits
            if self._fed > limits.header + (2 * limits.body if exchange.method else 0):
                self._refuse(431)

    def on_message_begin(self) -> None:
        """Of the parser: a request begins."""
        if self._begun is not None:  # its body was not read yet
            return
        self._begun, self._head = Exchange(self), 0
        if not self._queue:
            self._expect(self._listener.limits.header_seconds)

    def on_url(self, url: bytes) -> None:
        """Of the parser: a part of the address."""
        assert self._begun is not None
        if self._begun.method:
            return
        self._begun.url += url
        self._head += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the parser: a header field, or one after the body, which nobody needs."""
        assert self._begun is not None
        if self._begun.method:
            return
        self._begun.fields.append((name, value))
        self._head += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Of the parser: the header is there; whoever answers may begin."""
        exchange = self._begun
        assert exchange is not None
        if self._last or self._leaving or exchange.method:
            return
        if self._head > self._listener.limits.header:
            self._refuse(431)
            return
        exchange.begin(self._parser.get_method(), self._parser.should_keep_alive())
        if self._name:
            exchange.headers[CERTIFICATE] = self._name
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self._start(exchange)
        else:
            self._transport.pause_reading()

    def on_body(self, data: bytes) -> None:
        """Of the parser: a part of the body."""
        assert self._begun is not None
        self._begun.feed(data)

    def on_message_complete(self) -> None:
        """Of the parser: the request is there."""
        exchange = self._begun
        assert exchange is not None
        if self._parser.should_upgrade() and exchange.body_alone():
            return
        self._begun, self._fed = None, 0
        if self._last or self._leaving:
            return
        self._last = not exchange.keep
        exchange.end()
        if exchange.answered:
            self._next()

    def answer(self, exchange: Exchange, status: int, headers: Headers, content: bytes) -> None:
        """Send the answer to the request whose turn it is, and go on with the next one."""
        if self._leaving:
            return
        leave = not exchange.keep or _CLOSE in headers
        lines = [_STATUS[status], self._listener.date, f"content-length: {len(content)}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers if name != "connection"]
        if leave:
            lines.append("connection: close\r\n")
        elif "connection" in exchange.headers:  # somebody of HTTP/1.0 wants to be told
            lines.append("connection: keep-alive\r\n")
        lines.append("\r\n")
        head = "".join(lines).encode("latin-1")
        self._transport.write(head if exchange.method == "HEAD" else head + content)
        if leave:
            self._leave()
        elif exchange.over:
            self._next()
        else:  # what is still to come of its body is read and dropped
            self._expect(self._listener.limits.seconds)

    def overdue(self) -> None:
        """Close because nothing has happened for too long."""
        if self._leaving or self._queue or self._full:
            self._transport.abort()
        elif self._begun is not None:
            self._refuse(408)
        else:
            self._leave()

    def close(self) -> None:
        """Close when everything is sent."""
        self._leaving = True
        self._transport.close()

    def _start(self, exchange: Exchange) -> None:
        self.until = math.inf
        if "expect" in exchange.headers and not exchange.over:
            self._transport.write(_CONTINUE)
        exchange.task = self._listener.loop.create_task(self._listener.app(exchange))

    def _next(self) -> None:
        self._queue.popleft()
        if self._queue:
            self._start(self._queue[0])
        elif self._wrong:
            self._say_wrong()
        else:
            self._expect(self._listener.limits.header_seconds)
            self._read_on()

    def _read_on(self) -> None:
        if not (self._leaving or self._full or len(self._queue) > 1):
            self._transport.resume_reading()

    def _refuse(self, status: int) -> None:
        """Read no more; whoever reads this body says why, or else it is said once the requests before are answered."""
        self._last = True
        exchange = self._begun
        if exchange is not None and exchange.method:
            exchange.keep = False
            exchange.end(broken=True)
            if exchange.answered:
                self._leave()
            return
        self._wrong = status
        if not self._queue:
            self._say_wrong()

    def _say_wrong(self) -> None:
        text = f"{_STATUS[self._wrong]}{self._listener.date}content-length: 0\r\nconnection: close\r\n\r\n"
        self._transport.write(text.encode())
        self._leave()

    def _leave(self) -> None:
        """Close, if more may be coming only when the other side may have noticed: a reset would lose the answer."""
        self._leaving = True
        if self._begun is None:
            self._expect(self._listener.limits.seconds)
            self._transport.close()
        else:
            self._expect(LINGER)
            if self._transport.can_write_eof():  # by TLS nobody closes one half
                self._transport.write_eof()

    def _expect(self, seconds: float) -> None:
        self.until = self._listener.loop.time() + seconds


class Listener:
    """Accepts connections on a port.

    Parameters
    ----------
    app : answers.
    limits : what is refused, and when a connection is given up.
    port : where to listen.
    shared : whether other processes listen there, too.
    host : address; by default that of loopback.
    tls : how connections are encrypted; nothing where they are not.

    Raises
    ------
    OSError
        If the port is taken.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        port: int,
        *,
        shared: bool = False,
        host: str = LOOPBACK,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.app, self.limits, self.loop = app, limits, asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.date = ""
        """The header field."""
        self.tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
        self._socket.setblocking(False)
        self._joining: set[asyncio.Task[None]] = set()  # accepted, and not a connection yet
        self._waits = False  # whether nobody is accepted until somebody has left
        self._every = min(1.0, limits.header_seconds / 4)
        self._look()
        self.loop.add_reader(self._socket, self._accept)

    def left(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self._accept_again()

    async def refuse(self) -> None:
        """Listen no more; who is on the way in already is let in, and who is connected stays."""
        closing.shut(self._socket)
        until = self.loop.time() + closing.WITHIN
        while closing.waiting(self._socket) and self.loop.time() < until:
            await asyncio.sleep(closing.EACH)
        self.loop.remove_reader(self._socket)
        self._waits = False
        self._socket.close()
        if self._joining:  # who was accepted is let in: else it would be sent away without an answer
            await asyncio.wait(self._joining)

    def close(self) -> None:
        """Close every connection."""
        self._timer.cancel()
        for connection in list(self.connections):
            connection.close()

    def _accept(self) -> None:
        """Let in one who waits."""
        if len(self.connections) + len(self._joining) >= self.limits.connections:
            self._wait()
            return
        try:
            found, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):  # who was there has gone
            return
        except OSError as error:  # such as too many open files
            say(f"a connection cannot be accepted: {error}")
            self._wait()
            self.loop.call_later(self._every, self._accept_again)
            return
        found.setblocking(False)
        task = self.loop.create_task(self._join(found))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, found: socket.socket) -> None:
        tls = self.tls
        within = HANDSHAKE if tls is not None else None
        try:
            await self.loop.connect_accepted_socket(
                lambda: Connection(self), found, ssl=tls, ssl_handshake_timeout=within
            )
        except OSError as error:
            found.close()
            if tls is None:  # strangers who speak no TLS, or show no certificate, fill no log
                say(f"a connection was lost as it began: {error}")

    def _wait(self) -> None:
        self._waits = True
        self.loop.remove_reader(self._socket)

    def _accept_again(self) -> None:
        if self._waits:
            self._waits = False
            self.loop.add_reader(self._socket, self._accept)

    def _look(self) -> None:
        """Close connections whose time is over, and tell the time."""
        now = self.loop.time()
        for connection in [one for one in self.connections if one.until < now]:
            connection.overdue()
        self.date = f"date: {formatdate(usegmt=True)}\r\n"
        self._timer = self.loop.call_later(self._every, self._look)
