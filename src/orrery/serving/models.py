"""A served version: compiled, it answers in this process; otherwise, and for the rest, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orrery.errors import Damaged
from orrery.pipeline.verdict import VERDICT, read_verdict
from orrery.serving.assignment import Slot
from orrery.serving.channel import ProcessDied, Spawn
from orrery.serving.contract import Columns
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.model_process import ModelProcess, Output
from orrery.serving.refusals import Unavailable

if TYPE_CHECKING:
    from orrery.pipeline.compiled import Compiled

AT_ONCE = 256
"""Rows that a compiled version is asked for on the event loop; more go to a thread, so that nobody waits for them."""


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
        self._columns: dict[str, Any] = {}
        self._process: ModelProcess | None = None
        self._task: asyncio.Task[None] | None = None
        if Path(slot.artifact, VERDICT).exists():
            self._task = asyncio.create_task(self._begin())
        else:
            self._process = ModelProcess(slot, spawn, threads, metrics, self.ready, self.settled)

    async def _begin(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            self._compiled, self._unproven = await loop.run_in_executor(
                self._threads, load_compiled, self._slot.artifact
            )
        except Exception:  # whatever is wrong with the compiled form, there is the version's own
            say(f"the compiled form of {self} is not used: {traceback.format_exc()}")
        if self._compiled is None:
            self._process = ModelProcess(
                self._slot, self._spawn, self._threads, self._metrics, self.ready, self.settled
            )
        else:
            self._columns = {column.name: column.type for column in self._compiled.verdict.columns}
            self.ready.set()
            self.settled.set()

    @property
    def failure(self) -> str:
        """Why it cannot be started; empty while it can."""
        return "" if self._compiled is not None or self._process is None else self._process.failure

    @property
    def columns(self) -> dict[str, Any]:
        """Types of the inputs as the model itself describes them."""
        if self._compiled is None and self._process is not None:
            return self._process.columns
        return self._columns

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

    @property
    def undecided(self) -> bool:
        """Whether it is not known yet if it answers in this process: its compiled form is being loaded."""
        return self._compiled is None and self._process is None

    async def decided(self) -> None:
        """Wait until that is known."""
        if self.undecided and self._task is not None:
            await asyncio.wait([self._task])

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
        await self.decided()
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


def load_compiled(artifact: str) -> tuple[Compiled | None, type[Exception]]:
    """Load the compiled form of a version that answers requests whole, if it has one; and what it raises.

    Raises
    ------
    Exception
        If it cannot be loaded, or says something else here than where it was proven.
    """
    verdict = read_verdict(artifact)
    if verdict is None or verdict.why or not verdict.whole:
        return None, Elsewhere
    from orrery.pipeline.compiled import Compiled, Unproven  # heavy, so only where there is such a version

    compiled = Compiled.load(artifact)
    if compiled is None:
        raise Damaged(f"{artifact} has no compiled form any more.")
    compiled.try_out()
    return compiled, Unproven
