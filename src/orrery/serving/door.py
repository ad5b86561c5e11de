"""The limits at the door: how many requests at once, how large, how slow; and bodies that come packed.

What is refused here never reaches a model, and costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import zlib
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from orrery.errors import NotUnderstood
from orrery.serving.refusals import Overloaded, TooLarge, TooSlow, WrongKind

if TYPE_CHECKING:
    from orrery.serving.exchange import Exchange

PACKED_FROM = 64 << 10
"""Bytes of an answer from which on it is packed for a caller who accepts that."""

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Limits(msgspec.Struct, frozen=True):
    """What one inference server takes on.

    Parameters
    ----------
    body : bytes of one body, unpacked.
    bodies : bytes of all bodies that are being worked on.
    requests : predictions that are being worked on.
    seconds : in which a body must be there.
    header : bytes of the request line and the header fields together, about.
    header_seconds : in which these must be there; an idle connection is closed after it, too.
    connections : open at once; who comes then waits for one to close.
    """

    body: int = 32 << 20
    bodies: int = 256 << 20
    requests: int = 1024
    seconds: float = 20.0
    header: int = 64 << 10
    header_seconds: float = 20.0
    connections: int = 4096


class Door:
    """Lets requests in, and counts who is inside.

    Parameters
    ----------
    limits : what is refused.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.entered = self.inside = 0
        self.held = 0
        self.closing = False
        """Whether this server is about to stop: who is inside is answered, and asked not to come again this way."""
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._watch: asyncio.TimerHandle | None = None

    def enter(self) -> Visit:
        """Let one request in, for as long as the context that is returned.

        Raises
        ------
        Overloaded
            If too many are inside.
        """
        if self.inside >= self.limits.requests:
            raise Overloaded(f"{self.inside} requests are being answered.", todo="Send it again later.")
        return Visit(self)

    async def quiet(self, seconds: float) -> None:
        """Return when nobody is inside, and nobody has come for a while."""
        entered, loop = -1, asyncio.get_running_loop()
        since = loop.time()
        while self.inside or loop.time() - since < seconds:
            if self.entered != entered:
                entered, since = self.entered, loop.time()
            await asyncio.sleep(seconds / 10)

    def begin(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task when its time for a body is over, unless it is told to :meth:`end` before.

        All have the same time, so who began first is late first: one timer serves all.
        """
        loop = task.get_loop()
        until = self._reading[task] = loop.time() + self.limits.seconds
        if self._watch is None:
            self._watch = loop.call_at(until, self._hurry)

    def end(self, task: asyncio.Task[Any]) -> bool:
        """Say whether a task was in time."""
        return self._reading.pop(task, None) is not None

    def _hurry(self) -> None:
        self._watch = None
        loop = asyncio.get_running_loop()
        while self._reading:
            task, until = next(iter(self._reading.items()))
            if until > loop.time():
                self._watch = loop.call_at(until, self._hurry)
                return
            del self._reading[task]
            task.cancel()


class Visit:
    """One request that is inside."""

    __slots__ = ("_door", "_held")

    def __init__(self, door: Door) -> None:
        self._door, self._held = door, 0

    def __enter__(self) -> Visit:
        self._door.inside += 1
        self._door.entered += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._door.inside -= 1
        self._door.held -= self._held

    def hold(self, size: int) -> None:
        """Take room for so many bytes.

        Raises
        ------
        TooLarge, Overloaded
            If one request, or all that are inside, would have too many.
        """
        door = self._door
        if self._held + size > door.limits.body:
            raise TooLarge(
                f"The request has more than {door.limits.body} bytes.", todo="Send fewer rows at once, or Arrow."
            )
        if door.held + size > door.limits.bodies:
            raise Overloaded(f"Requests of {door.held} bytes are being answered.", todo="Send it again later.")
        door.held += size
        self._held += size

    async def body(self, exchange: Exchange) -> bytes:
        """Return the body, unpacked.

        Raises
        ------
        TooLarge
            If it is over the limit.
        TooSlow
            If it takes too long to arrive.
        Overloaded
            If the bodies of all who are inside are.
        WrongKind, NotUnderstood
            If it is packed in a way that is not known, or not packed as it says, or it breaks off.
        """
        length = exchange.headers.get("content-length")
        if length is not None:
            self.hold(int(length))
        if not exchange.over:
            await self._arrival(exchange)
        if exchange.size > self._held:  # nobody told its length
            self.hold(exchange.size - self._held)
        body = exchange.body()
        encoding = exchange.headers.get("content-encoding")
        return body if encoding is None else self._unpacked(body, encoding.strip().lower())

    async def _arrival(self, exchange: Exchange) -> None:
        """Wait until the body is there."""
        door, task = self._door, asyncio.current_task()
        assert task is not None
        door.begin(task)
        try:
            while not exchange.over:
                await exchange.more()
                if exchange.size > self._held:
                    self.hold(exchange.size - self._held)
        except asyncio.CancelledError:
            if door.end(task):  # it is somebody else who ends this
                raise
            task.uncancel()
            seconds = door.limits.seconds
            raise TooSlow(f"The request's body was not there after {seconds:g} s.", todo="Send it again.") from None
        finally:
            door.end(task)

    def _unpacked(self, body: bytes, encoding: str) -> bytes:
        if encoding in ("", "identity"):
            return body
        if encoding not in _WINDOWS:
            raise WrongKind(f"The content encoding {encoding} is not read here.", todo="Send gzip, deflate or nothing.")
        limit = self._door.limits.body
        unpack = zlib.decompressobj(_WINDOWS[encoding])
        try:
            found = unpack.decompress(body, limit + 1)
        except zlib.error as error:
            raise NotUnderstood(f"The request is not {encoding}: {error}.") from None
        if len(found) > limit:
            raise TooLarge(f"The request has more than {limit} bytes once it is unpacked.", todo="Send less at once.")
        if not unpack.eof or unpack.unused_data:
            raise NotUnderstood(f"The request is not {encoding}: it ends too early, or not where it says.")
        self._held -= len(body)
        self._door.held -= len(body)
        self.hold(len(found))
        return found


def packed(content: bytes, accepts: str | None) -> bytes | None:
    """Return a large answer packed with gzip if the caller accepts it, else nothing."""
    if accepts is None or len(content) < PACKED_FROM or "gzip" not in accepts or "gzip;q=0" in accepts:
        return None
    pack = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    return pack.compress(content) + pack.flush()
