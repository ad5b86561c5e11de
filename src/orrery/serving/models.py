"""A served version: its process is started, watched and started again, and asked for predictions."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from concurrent.futures import Executor
from typing import Any

import msgspec

from orrery.errors import NotUnderstood
from orrery.serving.assignment import Slot
from orrery.serving.channel import Channel, Fault, ProcessDied, Reply, Spawn
from orrery.serving.contract import Columns
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.refusals import ModelFailed, Overloaded, Unavailable

HOST = "orrery.pipeline.host"
"""Module that a model process runs; it gets the folder of the version as its argument."""

START_TIMEOUT = 120.0
MAX_WAITING = 512
FIRST_DELAY, LAST_DELAY = 0.1, 30.0
STEADY = 30.0


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


class Model:
    """One version and its process.

    A process that dies is started again, after a delay that doubles; who asks in the meantime waits. A process that
    cannot be started is a *failure* and is tried again, too; who asks is told at once, if the version never answered.

    Parameters
    ----------
    slot : says which version it is.
    spawn : starts the process.
    threads : an executor of one thread, in which processes are started and reaped.
    """

    def __init__(self, slot: Slot, spawn: Spawn, threads: Executor, metrics: Metrics) -> None:
        self.name, self.version = slot.model, slot.version
        self._argv = [slot.python, "-m", HOST, slot.artifact]
        self._spawn, self._threads, self._metrics = spawn, threads, metrics
        self._channel: Channel | None = None
        self._holds = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self.ready = asyncio.Event()
        """Set while the process answers."""
        self.settled = asyncio.Event()
        """Set when the first start has come to an end, good or bad."""
        self.failure = ""
        """Why the process cannot be started; empty while it can."""
        self._proven = False
        self.columns: dict[str, Any] = {}
        """Types of the inputs as the model itself describes them."""
        self._task = asyncio.create_task(self._supervise())

    def hold(self) -> None:
        """Keep the process until :meth:`release`, whatever is assigned."""
        self._holds += 1
        self._drained.clear()

    def release(self) -> None:
        """Undo one :meth:`hold`."""
        self._holds -= 1
        if not self._holds:
            self._drained.set()

    async def predict(self, columns: Columns, rows: int, timeout: float) -> Output:
        """Return what the model says.

        Raises
        ------
        Overloaded
            If too many wait already.
        Unavailable
            If the process cannot be started, or there is no answer after ``timeout`` seconds.
        NotUnderstood
            If the model names a column that it cannot use.
        ModelFailed
            If it fails otherwise, or returns another number of rows.
        """
        if self._holds >= MAX_WAITING:
            raise Overloaded(f"{self._holds} requests wait for {self}.", todo="Send it again later.")
        self.hold()
        try:
            reply = await self._ask(columns, rows, timeout)
        finally:
            self.release()
        if reply.error is not None:
            raise _failed(reply, self)
        if len(reply.output) != rows:
            raise ModelFailed(f"{self} returned {len(reply.output)} predictions for {rows} rows.")
        return Output(reply.output, reply.missing, reply.extra)

    async def _ask(self, columns: Columns, rows: int, timeout: float) -> Reply:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        for _ in range(
            2
        ):  # a request that was in the process when it died is sent once more: predicting changes nothing
            channel = self._channel or await self._wait(deadline)
            sent = loop.time()
            try:
                async with asyncio.timeout_at(deadline):
                    return await channel.send(columns, rows)
            except ProcessDied:
                if self._channel is channel:
                    self._channel = None
                    self.ready.clear()
            except TimeoutError:
                channel.doubt(sent, timeout)
                raise Unavailable(f"{self} did not answer within {timeout:g} s.", todo="Send it again later.") from None
        raise Unavailable(
            f"{self} ended twice while it had this request.", todo="Look at the request, or send it again later."
        )

    async def _wait(self, deadline: float) -> Channel:
        while self._channel is None:
            if self.failure and not self._proven:
                raise Unavailable(f"{self} cannot be started: {self.failure}.", todo="It is tried again.")
            try:
                async with asyncio.timeout_at(deadline):
                    await self.ready.wait()
            except TimeoutError:
                why = f": {self.failure}" if self.failure else ""
                raise Unavailable(f"{self} is being started again{why}.", todo="Send it again later.") from None
        return self._channel

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY
        while True:
            began = loop.time()
            channel: Channel | None = None
            try:
                channel = await Channel.open(self._spawn, self._argv, self._threads)
                await self._begin(channel)
                await asyncio.shield(channel.lost)
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
                    await asyncio.shield(channel.stop(2.0, self._threads))
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
        self.columns, self.failure, self._proven = first.columns, "", True
        self._channel = channel
        self.ready.set()
        self.settled.set()

    async def stop(self, grace: float = 30.0) -> None:
        """End the process when all who wait have their answers, at the latest after ``grace`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._drained.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def __str__(self) -> str:
        return f"Version {self.version} of {self.name}"


def _failed(reply: Reply, model: Model) -> Exception:
    fault = reply.error
    if not isinstance(fault, Fault):
        return ModelFailed(f"{model} failed: {fault}")
    if fault.kind != "rows":
        return ModelFailed(f"{model} failed: {fault.what}")
    where = f"column {fault.column} of row {fault.row}" if fault.row is not None else f"column {fault.column}"
    return NotUnderstood(f"{model} cannot use {where if fault.column else 'the rows'}: {fault.what}")
