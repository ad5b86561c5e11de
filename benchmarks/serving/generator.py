"""Ask over HTTP: ``generator.py URL FILE --seconds S (--clients N | --rate R)``; prints JSON, times in milliseconds.

``--clients`` is a closed loop: each client sends when it has its answer. ``--rate`` is an open loop: requests are due
at even intervals whatever the server does, and each is timed from when it was *due*, so that one that had to wait for
a free connection counts its waiting (coordinated omission corrected). ``late`` is the part of that which is the
generator's own fault: how much later than due it sent where a connection was free. Only the standard library.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

CONNECTIONS = 128
"""Connections of an open loop."""
PATIENCE = 10.0
"""Seconds that are waited for answers after the last request."""


class Connection(asyncio.Protocol):
    """One connection that is asked one thing at a time."""

    def __init__(self, generator: Generator) -> None:
        self._generator, self._buffer, self._due = generator, bytearray(), 0.0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True

    def ask(self, data: bytes, due: float) -> None:
        self._due = due
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        top = bytes(self._buffer[:head]).lower()
        place = top.find(b"content-length:")
        if place >= 0:
            length = int(top[place + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < head + 4 + length:
                return
        elif not self._buffer.endswith(b"0\r\n\r\n"):  # chunked, and not whole
            return
        ok = top[9:12] == b"200"
        self._buffer.clear()
        self._generator.answered(self, self._due, ok)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._generator.lost(self)


class Generator:
    """Sends requests and keeps how long they took."""

    def __init__(self, url: str, lines: list[str], seconds: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self._requests = [f"{head}Content-Length: {len(line)}\r\n\r\n{line}".encode() for line in lines]
        self._seconds, self._sent = seconds, 0
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._waiting: deque[float] = deque()
        self._closed = False
        self.times: list[float] = []
        self.late: list[float] = []
        self.errors = 0

    async def connect(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
            self._idle.append(connection)

    def answered(self, connection: Connection, due: float, ok: bool) -> None:
        now = time.perf_counter()
        self.times.append(now - due)
        self.errors += not ok
        self._busy.discard(connection)
        if self._closed and now < self._end:
            self._send(connection, now)
        elif self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            self.errors += 1
        elif connection in self._idle:
            self._idle.remove(connection)

    def _send(self, connection: Connection, due: float) -> None:
        self._busy.add(connection)
        self._sent += 1
        connection.ask(self._requests[self._sent % len(self._requests)], due)

    async def closed(self, clients: int) -> None:
        """Each client sends when it has its answer."""
        await self.connect(clients)
        self._closed, self._end = True, time.perf_counter() + self._seconds
        for connection in list(self._idle):
            self._idle.remove(connection)
            self._send(connection, time.perf_counter())
        await self._finish(self._end)

    async def open(self, rate: float) -> None:
        """Requests are due at even intervals."""
        await self.connect(CONNECTIONS)
        self._end = 0.0
        began = time.perf_counter()
        number, count = 0, int(rate * self._seconds)
        while number < count:
            now = time.perf_counter()
            while number < count and (due := began + number / rate) <= now:
                number += 1
                if self._idle:
                    self.late.append(time.perf_counter() - due)
                    self._send(self._idle.pop(), due)
                else:
                    self._waiting.append(due)
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()) if number < count else 0)
        await self._finish(time.perf_counter())

    async def _finish(self, end: float) -> None:
        while time.perf_counter() < end + PATIENCE and (self._busy or self._waiting or time.perf_counter() < end):
            await asyncio.sleep(0.005)
        self.errors += len(self._busy) + len(self._waiting)
        now = time.perf_counter()
        self.times += [now - due for due in self._waiting]  # at least so long


def percentile(values: list[float], share: float) -> float:
    """Milliseconds; 0 where there are none."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Closed or open loop over HTTP.")
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--clients", type=int)
    how.add_argument("--rate", type=float)
    asked = parser.parse_args()
    generator = Generator(asked.url, asked.file.read_text().splitlines(), asked.seconds)
    gc.disable()
    began = time.perf_counter()
    asyncio.run(generator.closed(asked.clients) if asked.clients else generator.open(asked.rate))
    said = {
        f"p{name}": percentile(generator.times, share) for name, share in (("50", 0.5), ("99", 0.99), ("999", 0.999))
    }
    took = time.perf_counter() - began
    counts = {"requests": len(generator.times), "seconds": took, "errors": generator.errors}
    print(json.dumps({**counts, **said, "late": percentile(generator.late, 0.99)}))


if __name__ == "__main__":
    main()
