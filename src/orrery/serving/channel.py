"""A model process and the frames that go to and from it.

Each frame is its length in four bytes, little-endian, and a msgpack map. The child's first frame says that it is
ready (it has answered a sample by then) or why it cannot be; afterwards each request is answered by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import shutil
import signal
from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from subprocess import PIPE
from typing import Any

import msgspec

from orrery.serving.contract import Columns
from orrery.workers.contained import NONE, Contained, Finished
from orrery.workers.contained import spawn as contained
from orrery.workers.walls import Walling, environment_of
from orrery.workers.warm import StillImporting, WarmStarts

MAX_FRAME = 1 << 28
TAIL = 4096
PATIENCE = 1.0
"""Seconds that a process has to end once it says nothing more."""

ASK_AGAIN = 0.05

Spawn = Callable[[Sequence[str], int | None], Contained]
"""Starts a program that may use so many bytes of memory, or raises StillImporting; called in a thread."""


class Fault(msgspec.Struct):
    """What a model says went wrong: with the ``rows`` that it was given, or in the ``project``'s own code."""

    what: str
    kind: str = "project"
    column: str | None = None
    row: int | None = None


class Reply(msgspec.Struct):
    """A frame from the child."""

    id: int | None = None
    ready: bool = False
    warning: str = ""
    columns: dict[str, Any] = msgspec.field(default_factory=dict)
    output: list[Any] = msgspec.field(default_factory=list)
    missing: list[str] = msgspec.field(default_factory=list)
    extra: list[str] = msgspec.field(default_factory=list)
    explanation: dict[str, Any] | None = None
    error: Fault | str | None = None


class ProcessDied(Exception):
    """The model process ended; its text says how."""


def spawn(
    argv: Sequence[str], memory: int | None, warm: WarmStarts | None = None, walling: Walling | None = None
) -> Contained:
    """Start a program that is ended when this process ends, or when it and all that it starts use too much memory.

    Raises
    ------
    OSError
        If there is no such program.
    StillImporting
        If ``warm`` says so.
    """
    if shutil.which(argv[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    limits = dataclasses.replace(NONE, memory_bytes=memory)
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    walls = None
    if walling is not None:  # of what it is told to load, it reads what is there
        walls = walling.around([environment_of(argv[0]), *(word for word in argv[1:] if os.path.isabs(word))])
    return contained(
        argv,
        cwd=Path("/") if walls else Path.cwd(),
        env=threads,
        limits=limits,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        warm=warm,
        walls=walls,
    )


class Channel(asyncio.Protocol):
    """One model process, from its start to its end.

    Parameters
    ----------
    child : the running program.
    loop : the event loop that everything happens on.
    threads : an executor, in which the program is waited for.
    """

    def __init__(self, child: Contained, loop: AbstractEventLoop, threads: Executor) -> None:
        self._child, self._loop, self._threads = child, loop, threads
        self._ending: Task[None] | None = None
        self._pending: dict[int, Future[Reply]] = {}
        self._next = 0
        self._buffer = bytearray()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Reply).decode
        self._why = ""
        self._errors = _Tail()
        self.pid = child.pid
        self.first: Future[Reply] = loop.create_future()
        """The child's first frame, or :class:`ProcessDied`."""
        self.lost: Future[str] = loop.create_future()
        """Why the child ended, once it has."""

    @classmethod
    async def open(cls, start: Spawn, argv: Sequence[str], threads: Executor, memory: int | None) -> Channel:
        """Start a model process, which may use so many bytes of memory, and connect to it."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                child = await loop.run_in_executor(threads, start, argv, memory)
                break
            except StillImporting:  # the thread is for others meanwhile
                await asyncio.sleep(ASK_AGAIN)
        channel = cls(child, loop, threads)
        assert child.stdin is not None and child.stdout is not None
        try:
            channel._writer, _ = await loop.connect_write_pipe(lambda: _Input(channel), child.stdin)
            if child.stderr is not None:
                await loop.connect_read_pipe(lambda: channel._errors, child.stderr)
            await loop.connect_read_pipe(lambda: channel, child.stdout)
        except BaseException:
            await asyncio.shield(channel._reap())
            raise
        return channel

    _writer: asyncio.WriteTransport

    @property
    def over(self) -> bool:
        """Whether the child takes no more, or has said its last; why is known a moment later, from :attr:`lost`."""
        return self._ending is not None or self._writer.is_closing()

    def send(self, columns: Columns, rows: int, op: str = "predict") -> Future[Reply]:
        """Hand over rows to ``predict`` or ``explain``; the future has the reply, or :class:`ProcessDied`."""
        future: Future[Reply] = self._loop.create_future()
        if self.over:
            future.set_exception(ProcessDied(self._why or "has just ended"))
            return future
        self._next += 1
        frame = self._encode({"id": self._next, "op": op, "columns": columns, "n": rows})
        self._pending[self._next] = future
        self._writer.write(len(frame).to_bytes(4, "little") + frame)
        return future

    def kill(self, why: str) -> None:
        """End the process at once."""
        self._why = self._why or why
        if self.pid > 0 and self._ending is None:
            with contextlib.suppress(ProcessLookupError):  # it ended at this moment
                os.kill(self.pid, signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """Let the process end by itself, then end it; return when nothing of it is left."""
        self._why = self._why or "was stopped"
        self._writer.close()
        await asyncio.wait([self.lost], timeout=grace)
        await self._reap()
        await asyncio.wait([self.lost], timeout=grace)

    async def _reap(self) -> Finished:
        """End whatever is left of the process; return how it ended."""
        return await self._loop.run_in_executor(self._threads, _end, self._child)

    def data_received(self, data: bytes) -> None:
        """Take what the child wrote."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) >= start + 4:
            size = int.from_bytes(buffer[start : start + 4], "little")
            if size > MAX_FRAME:
                self.kill("wrote something else than frames to its output")
                return
            if len(buffer) < start + 4 + size:
                break
            try:
                reply = self._decode(memoryview(buffer)[start + 4 : start + 4 + size])
            except msgspec.MsgspecError as error:
                self.kill(f"wrote a frame that cannot be read: {error}")
                return
            start += 4 + size
            self._take(reply)
        del buffer[:start]

    def _take(self, reply: Reply) -> None:
        if not self.first.done():
            self.first.set_result(reply)
        elif reply.id is not None:
            future = self._pending.pop(reply.id, None)
            if future is not None and not future.done():
                future.set_result(reply)

    def deaf(self) -> None:
        """See that the child ends, which takes no more: what it still says is heard before."""
        if not self._why:
            self._loop.call_later(PATIENCE, self.kill, "took no more rows")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits that the child is gone."""
        if not self._writer.is_closing():
            self._writer.abort()
        self._ending = self._loop.create_task(self._lost())

    async def _lost(self) -> None:
        finished = await self._reap()
        said = self._errors.last_line()
        how = finished.reason or "ended without being told to"
        self._why = self._why or f"{how}{': ' + said if said else ''}"
        if not self.first.done():
            self.first.set_exception(ProcessDied(self._why))
            self.first.exception()  # it may be that nobody waits any more
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ProcessDied(self._why))
        self._pending.clear()
        if not self.lost.done():
            self.lost.set_result(self._why)


def _end(child: Contained) -> Finished:
    return child.wait(PATIENCE) or child.kill()


class _Input(asyncio.BaseProtocol):
    """Tells that nobody reads what is written; the end of a process may be seen here first."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.deaf()


class _Tail(asyncio.Protocol):
    """Keeps the end of what a program writes to its error output."""

    def __init__(self) -> None:
        self._text = b""

    def data_received(self, data: bytes) -> None:
        self._text = (self._text + data)[-TAIL:]

    def last_line(self) -> str:
        lines = self._text.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
