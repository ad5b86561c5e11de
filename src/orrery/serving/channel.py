"""A model process and the frames that go to and from it.

Each frame is its length in four bytes, little-endian, and a msgpack map. The child's first frame says that it is
ready (it has answered a sample by then) or why it cannot be; afterwards each request is answered by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import IO, Any, Protocol

import msgspec

from orrery.serving.contract import Columns
from orrery.workers.contained import harmless

MAX_FRAME = 1 << 28
TAIL = 4096


class Child(Protocol):
    """A running program with three pipes; :class:`subprocess.Popen` is one."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None
    pid: int

    def kill(self) -> object:
        """End it."""

    def wait(self, timeout: float | None = None) -> object:
        """Wait for its end."""


Spawn = Callable[[Sequence[str]], Child]
"""Starts a program; called in one thread that lives as long as this process."""


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


def spawn(argv: Sequence[str]) -> Child:
    """Start a program that the kernel ends when this process ends.

    Raises
    ------
    OSError
        If there is no such program.
    """
    if shutil.which(argv[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"OMP_NUM_THREADS": "1", **harmless()},
    )


# Between fork and exec nothing but exec is safe in a process with threads, so the child asks for its own end first.
_LEASH = """
import ctypes, os, sys
if sys.platform.startswith("linux"):
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class Channel(asyncio.Protocol):
    """One model process, from its start to its end.

    Parameters
    ----------
    child : the running program.
    loop : the event loop that everything happens on.
    """

    def __init__(self, child: Child, loop: AbstractEventLoop) -> None:
        self._child, self._loop = child, loop
        self._pending: dict[int, Future[Reply]] = {}
        self._next = 0
        self._buffer = bytearray()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Reply).decode
        self._heard = loop.time()
        self._why = ""
        self._errors = _Tail()
        self.pid = child.pid
        self.first: Future[Reply] = loop.create_future()
        """The child's first frame, or :class:`ProcessDied`."""
        self.lost: Future[str] = loop.create_future()
        """Why the child ended, once it has."""

    @classmethod
    async def open(cls, start: Spawn, argv: Sequence[str], threads: Executor) -> Channel:
        """Start a model process and connect to it."""
        loop = asyncio.get_running_loop()
        child = await loop.run_in_executor(threads, start, argv)
        channel = cls(child, loop)
        assert child.stdin is not None and child.stdout is not None
        try:
            channel._writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, child.stdin)
            if child.stderr is not None:
                await loop.connect_read_pipe(lambda: channel._errors, child.stderr)
            await loop.connect_read_pipe(lambda: channel, child.stdout)
        except BaseException:
            await asyncio.shield(channel.reap(threads))
            raise
        return channel

    _writer: asyncio.WriteTransport

    def send(self, columns: Columns, rows: int, op: str = "predict") -> Future[Reply]:
        """Hand over rows to ``predict`` or ``explain``; the future has the reply, or :class:`ProcessDied`."""
        future: Future[Reply] = self._loop.create_future()
        if self.lost.done():
            future.set_exception(ProcessDied(self._why))
            return future
        self._next += 1
        frame = self._encode({"id": self._next, "op": op, "columns": columns, "n": rows})
        self._pending[self._next] = future
        self._writer.write(len(frame).to_bytes(4, "little") + frame)
        return future

    def doubt(self, since: float, patience: float) -> None:
        """End the process if it has said nothing from an instant of the loop's clock to so many seconds from now."""

        def check() -> None:
            if self._heard < since and not self.lost.done():
                self.kill(f"did not answer for {self._loop.time() - since:.1f} s")

        self._loop.call_later(patience, check)

    def kill(self, why: str) -> None:
        """End the process at once."""
        self._why = self._why or why
        if self.pid > 0 and not self.lost.done():
            with contextlib.suppress(ProcessLookupError):  # it ended at this moment
                os.kill(self.pid, signal.SIGKILL)

    async def stop(self, grace: float, threads: Executor) -> None:
        """Let the process end by itself, then end it; return when nothing of it is left."""
        self._why = self._why or "was stopped"
        self._writer.close()
        await asyncio.wait([self.lost], timeout=grace)
        await self.reap(threads)

    async def reap(self, threads: Executor) -> None:
        """End whatever is left of the process."""

        def end() -> None:
            self._child.kill()
            self._child.wait()

        await self._loop.run_in_executor(threads, end)

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
        self._heard = self._loop.time()
        if not self.first.done():
            self.first.set_result(reply)
        elif reply.id is not None:
            future = self._pending.pop(reply.id, None)
            if future is not None and not future.done():
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits that the child is gone."""
        if not self._writer.is_closing():
            self._writer.abort()
        said = self._errors.last_line()
        self._why = self._why or f"ended without being told to{': ' + said if said else ''}"
        if not self.first.done():
            self.first.set_exception(ProcessDied(self._why))
            self.first.exception()  # it may be that nobody waits any more
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ProcessDied(self._why))
        self._pending.clear()
        if not self.lost.done():
            self.lost.set_result(self._why)


class _Tail(asyncio.Protocol):
    """Keeps the end of what a program writes to its error output."""

    def __init__(self) -> None:
        self._text = b""

    def data_received(self, data: bytes) -> None:
        self._text = (self._text + data)[-TAIL:]

    def last_line(self) -> str:
        lines = self._text.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
