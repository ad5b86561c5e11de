"""A served version: compiled, it answers in this process; otherwise, and for the rest, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Sequence
from concurrent.futures import Executor
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from orrery.serving.assignment import Slot
from orrery.serving.channel import ProcessDied, Spawn
from orrery.serving.contract import Columns
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.model_process import ModelProcess, Output
from orrery.serving.refusals import Unavailable

VERDICT = "compiled.json"
"""File of an artifact that has a compiled form; without it nothing heavy is imported here."""

AT_ONCE = 256
"""Rows that a compiled version is asked for on the event loop; more go to a thread, so that nobody waits for them."""

_TYPES = {"number": "Float64", "single": "Float64", "whole": "Int64", "flag": "Boolean"}


class Compiled(Protocol):
    """The compiled form of a version (:mod:`orrery.pipeline.compiled`)."""

    whole: bool
    verdict: Any

    def predict(self, columns: Columns, rows: int) -> Any:
        """Return an array of numbers, a row for each row; raise ``Unproven`` for rows that it was not proven for."""

    def unlike(self, sent: Columns) -> tuple[Sequence[str], Sequence[str]]:
        """Return the columns that were not sent, and those that are not known."""


class Elsewhere(Exception):
    """The compiled version was not proven for these rows: its process is to be asked."""


class Model:
    """One version in this server.

    Parameters
    ----------
    slot : says which version it is.
    spawn : starts its process.
    threads : an executor of one thread, in which processes are started and reaped, and compiled versions loaded.
    """

    def __init__(self, slot: Slot, spawn: Spawn, threads: Executor, metrics: Metrics) -> None:
        self._slot, self._spawn, self._threads, self._metrics = slot, spawn, threads, metrics
        self._holds = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self.ready = asyncio.Event()
        """Set while it answers."""
        self.settled = asyncio.Event()
        """Set when the first start has come to an end, good or bad."""
        self._compiled: Compiled | None = None
        self._unproven: type[Exception] = Elsewhere
        self._process: ModelProcess | None = None
        self._task: asyncio.Task[None] | None = None
        if Path(slot.artifact, VERDICT).exists():
            self._task = asyncio.create_task(self._begin())
        else:
            self._process = ModelProcess(slot, spawn, threads, metrics, self.ready, self.settled)

    async def _begin(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            self._compiled, self._unproven = await loop.run_in_executor(self._threads, _load, self._slot.artifact)
        except Exception:  # whatever is wrong with the compiled form, there is the version's own
            say(f"the compiled form of {self} is not used: {traceback.format_exc()}")
        if self._compiled is None:
            self._process = ModelProcess(
                self._slot, self._spawn, self._threads, self._metrics, self.ready, self.settled
            )
        else:
            self.ready.set()
            self.settled.set()

    @property
    def failure(self) -> str:
        """Why it cannot be started; empty while it can."""
        return "" if self._compiled is not None or self._process is None else self._process.failure

    @property
    def columns(self) -> dict[str, Any]:
        """Types of the inputs as the model itself describes them."""
        if self._compiled is not None:
            return {column.name: _TYPES.get(column.kind, "String") for column in self._compiled.verdict.columns}
        return self._process.columns if self._process is not None else {}

    @property
    def process(self) -> ModelProcess:
        """Its process, which a compiled version has only after it was first needed."""
        if self._process is None:
            self._process = ModelProcess(
                self._slot, self._spawn, self._threads, self._metrics, asyncio.Event(), asyncio.Event()
            )
        return self._process

    @property
    def compiled(self) -> bool:
        """Whether it answers in this process."""
        return self._compiled is not None

    def quick(self, rows: int) -> bool:
        """Say whether so many rows are asked for by :meth:`at_once`."""
        return self._compiled is not None and rows <= AT_ONCE

    def at_once(self, columns: Columns, rows: int) -> Output:
        """Return what a compiled version says.

        Raises
        ------
        Elsewhere
            If it was not proven for these rows, so that its process is to be asked.
        """
        compiled = self._compiled
        assert compiled is not None
        try:
            found = compiled.predict(columns, rows)
        except self._unproven as error:
            raise Elsewhere(str(error)) from error
        missing, extra = compiled.unlike(columns)
        return Output(found.tolist(), list(missing), list(extra))

    async def in_thread(self, columns: Columns, rows: int) -> Output:
        """Return the same as :meth:`at_once`, for many rows."""
        return await asyncio.get_running_loop().run_in_executor(None, self.at_once, columns, rows)

    async def predict(self, columns: Columns, rows: int, timeout: float) -> Output:
        """Return what the version says about rows on their own, wherever it runs.

        Raises
        ------
        OrreryError
            As :meth:`orrery.serving.model_process.ModelProcess.predict`; a process that ends is Unavailable, too.
        """
        if self._compiled is not None:
            with contextlib.suppress(Elsewhere):
                return self.at_once(columns, rows) if self.quick(rows) else await self.in_thread(columns, rows)
        async with self.process.turn:
            try:
                return await self.process.predict(columns, rows, timeout)
            except ProcessDied as died:
                raise Unavailable(f"{self}: its process {died}.", todo="Send it again later.") from None

    def hold(self) -> None:
        """Keep the version until :meth:`release`, whatever is assigned."""
        self._holds += 1
        self._drained.clear()

    def release(self) -> None:
        """Undo one :meth:`hold`."""
        self._holds -= 1
        if not self._holds:
            self._drained.set()

    async def stop(self, grace: float = 30.0) -> None:
        """End the process when all who wait have their answers, at the latest after ``grace`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._drained.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._process is not None:
            await self._process.stop()

    def __str__(self) -> str:
        return f"Version {self._slot.version} of {self._slot.model}"


def _load(artifact: str) -> tuple[Compiled | None, type[Exception]]:
    """Load the compiled form of a version that answers requests whole, if it has one; and what it raises."""
    module = import_module("orrery.pipeline.compiled")  # heavy, so only where there is such a version
    compiled = module.Compiled.load(artifact)
    return compiled if compiled is not None and compiled.whole else None, module.Unproven
