"""The process of a version: started, watched, started again, and given rows one batch after the other."""

from __future__ import annotations

import asyncio
import traceback
from asyncio import Event
from concurrent.futures import Executor
from hashlib import blake2b
from typing import Any

import msgspec

from orrery.serving.assignment import Slot
from orrery.serving.channel import Channel, Fault, ProcessDied, Reply, Spawn
from orrery.serving.contract import Columns
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.pace import Pace
from orrery.serving.refusals import ModelFailed, Overloaded, RowsRefused, Unavailable
from orrery.serving.requests import Request

HOST = "orrery.pipeline.host"
"""Module that a model process runs; it gets the folder of the version as its argument."""

START_TIMEOUT = 120.0
MAX_ROWS_WAITING = 100_000
MAX_WAITING = 512
"""Rows, and requests, that may wait for one process."""

FIRST_DELAY, LAST_DELAY = 0.1, 30.0
STEADY = 30.0
REMEMBERED = 1000


class Output(msgspec.Struct):
    """What a model said about some rows.

    Parameters
    ----------
    rows : one list of numbers for each row.
    missing : inputs that the model knows and the request did not have.
    extra : inputs of the request that the model does not know.
    """

    rows: list[Any]
    missing: list[str]
    extra: list[str]


class ModelProcess:
    """One version's process.

    A process that dies is started again, after a delay that doubles; who asks in the meantime waits. A process that
    cannot be started is a *failure* and is tried again, too; who asks is told at once, if the version never answered.

    Parameters
    ----------
    slot : says which version it is.
    spawn : starts the process.
    threads : an executor of one thread, in which processes are started and reaped.
    ready : set while the process answers; it has answered rows of its artifact by then.
    settled : set when the first start has come to an end, good or bad.
    """

    def __init__(
        self, slot: Slot, spawn: Spawn, threads: Executor, metrics: Metrics, ready: Event, settled: Event
    ) -> None:
        self.name, self.version = slot.model, slot.version
        self._argv, self._memory = [slot.python, "-m", HOST, slot.artifact], slot.memory
        self._spawn, self._threads, self._metrics = spawn, threads, metrics
        self._channel: Channel | None = None
        self._proven = False
        self._deadly: dict[bytes, None] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self.ready, self.settled = ready, settled
        self.turn = asyncio.Lock()
        """Held by who has the process answer; whoever waits for it gathers requests."""
        self.pace = Pace()
        self.requests = self.rows = 0
        """What waits for it."""
        self.failure = ""
        """Why the process cannot be started; empty while it can."""
        self.columns: dict[str, Any] = {}
        """Types of the inputs as the model itself describes them."""
        self._task = asyncio.create_task(self._supervise())

    def check(self, request: Request) -> None:
        """Check that a request may be given to the process.

        Raises
        ------
        Unavailable
            If the process cannot be started.
        ModelFailed
            If such a request has ended it twice.
        """
        if self.failure and not self._proven:
            raise Unavailable(f"{self} cannot be started: {self.failure}.", todo="It is tried again.")
        if self._deadly and self._digest(request) in self._deadly:
            raise ModelFailed(f"{self} ended twice while it had these rows; it is not given them again.")

    def admit(self, request: Request, timeout: float) -> None:
        """Count a request as waiting, until :meth:`leave`; raises as :meth:`check`, too.

        Raises
        ------
        Overloaded
            If what waits already is too much, or takes as long as this one may wait.
        """
        self.check(request)
        most = self.requests >= MAX_WAITING or self.rows + request.rows > MAX_ROWS_WAITING
        if self.rows and (most or self.pace.seconds(self.rows) > timeout):
            raise Overloaded(f"{self.requests} requests wait for {self}.", todo="Send it again later.")
        self.requests += 1
        self.rows += request.rows

    def leave(self, request: Request) -> None:
        """Undo one :meth:`admit`."""
        self.requests -= 1
        self.rows -= request.rows

    async def predict(self, columns: Columns, rows: int, timeout: float) -> Output:
        """Return what the model says; to be called by who has the :attr:`turn`.

        Raises
        ------
        ProcessDied
            If the process ends before it has answered.
        Unavailable
            If the process cannot be started within ``timeout`` seconds, or says nothing for twice as long.
        RowsRefused
            If the model names a column that it cannot use.
        ModelFailed
            If it fails otherwise, or returns another number of rows.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while (channel := self._channel or await self._wait(until)).over:  # its end is no fault of these rows
            self._gone(channel)
        sent = loop.time()
        reply = channel.send(columns, rows)
        await asyncio.wait((reply,), timeout=2 * timeout)  # who asked has been told after half of that
        if not reply.done():
            self._gone(channel)
            channel.kill(f"did not answer for {loop.time() - sent:.1f} s")
            raise Unavailable(f"{self} did not answer.", todo="Send it again later.")
        try:
            said = reply.result()
        except ProcessDied:
            self._gone(channel)
            raise
        self.pace.took(rows, loop.time() - sent)
        if said.error is not None:
            raise _failed(said, self)
        if len(said.output) != rows:
            raise ModelFailed(f"{self} returned {len(said.output)} predictions for {rows} rows.")
        return Output(said.output, said.missing, said.extra)

    def late(self, timeout: float) -> Unavailable:
        """Return what somebody is told who waited for too long."""
        if self._channel is not None:
            return Unavailable(f"{self} did not answer within {timeout:g} s.", todo="Send it again later.")
        why = f": {self.failure}" if self.failure else ""
        return Unavailable(f"{self} is being started again{why}.", todo="Send it again later.")

    def never_again(self, request: Request, died: ProcessDied) -> ModelFailed:
        """Remember a request that ended the process twice, and return what its sender is told."""
        if len(self._deadly) >= REMEMBERED:
            del self._deadly[next(iter(self._deadly))]
        self._deadly[self._digest(request)] = None
        return ModelFailed(
            f"{self} ended twice while it had these rows; the last time it {died}.",
            safe="It was started again, and is not given these rows any more.",
        )

    def _digest(self, request: Request) -> bytes:
        return blake2b(self._encode(request.columns), digest_size=16).digest()

    def _gone(self, channel: Channel) -> None:
        if self._channel is channel:
            self._channel = None
            self.ready.clear()

    async def _wait(self, deadline: float) -> Channel:
        while self._channel is None:
            if self.failure and not self._proven:
                raise Unavailable(f"{self} cannot be started: {self.failure}.", todo="It is tried again.")
            try:
                async with asyncio.timeout_at(deadline):
                    await (self.ready if self.settled.is_set() else self.settled).wait()
            except TimeoutError:
                raise self.late(0.0) from None
        return self._channel

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY
        while True:
            began = loop.time()
            channel: Channel | None = None
            try:
                channel = await Channel.open(self._spawn, self._argv, self._threads, self._memory)
                await self._begin(channel)
                await asyncio.shield(channel.lost)
                say(f"{self}: its process {channel.lost.result()}")
            except ProcessDied as error:
                self.failure = str(error)
            except OSError as error:
                self.failure = f"{error.strerror or error}: {error.filename or self._argv[0]}"
            except Exception as error:  # who supervises must not end by what it did not foresee
                self.failure = repr(error)
                say(f"{self}: {traceback.format_exc()}")
            finally:
                self._channel = None
                self.ready.clear()
                self.settled.set()
                if channel is not None:
                    await asyncio.shield(channel.stop(2.0))
            self._metrics.restarts.add((self.name, str(self.version)))
            if loop.time() - began > STEADY:
                delay = FIRST_DELAY
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY)

    async def _begin(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                first = await channel.first
        except TimeoutError:
            raise ProcessDied(f"it was not ready after {START_TIMEOUT:g} s") from None
        if first.error is not None or not first.ready:
            raise ProcessDied(first.error.what if isinstance(first.error, Fault) else first.error or "it is not ready")
        if first.warning:
            say(f"{self}: {first.warning}")
        self.columns, self.failure, self._proven = first.columns, "", True
        self._channel = channel
        self.ready.set()
        self.settled.set()

    async def stop(self) -> None:
        """End the process."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def __str__(self) -> str:
        return f"Version {self.version} of {self.name}"


def _failed(reply: Reply, process: ModelProcess) -> Exception:
    fault = reply.error
    if not isinstance(fault, Fault):
        return ModelFailed(f"{process} failed: {fault}")
    if fault.kind != "rows":
        return ModelFailed(f"{process} failed: {fault.what}")
    where = f"column {fault.column} of row {fault.row}" if fault.row is not None else f"column {fault.column}"
    return RowsRefused(f"{process} cannot use {where if fault.column else 'the rows'}: {fault.what}", row=fault.row)
