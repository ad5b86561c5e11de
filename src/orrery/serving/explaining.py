"""Explanations beside the hot path: in processes of their own, one request at a time for each version, few in line.

The processes are the model processes of :mod:`orrery.pipeline.host`, started when a version is first asked to explain
and ended when nobody asked for a while. They give way to everything else on the machine (``--nice``), so that many
requests for explanations make each other wait, and not those that ask for predictions alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

from orrery.errors import NotUnderstood
from orrery.serving.assignment import Slot
from orrery.serving.channel import Channel, Fault, ProcessDied, Reply, Spawn
from orrery.serving.contract import Columns, masked
from orrery.serving.metrics import Metrics
from orrery.serving.refusals import ModelFailed, NotInstalled, Overloaded, TooLarge, Unavailable
from orrery.serving.requests import Answer, Request

HOST = "orrery.pipeline.host"
MAX_ROWS = 200
"""Rows that are explained at once, at most."""
MAX_WAITING = 16
"""Requests for explanations that are worked on or wait; who comes then is told to come back."""
PROCESSES = 2
"""Versions that explain at once; a third one takes the place of the one that was asked longest ago."""
IDLE = 300.0
"""Seconds after which a process that nobody asks is ended."""
TURN_WITHIN, START_WITHIN, ANSWER_WITHIN = 60.0, 120.0, 60.0
"""Seconds that a request waits for those before it, for a process that has to be started, and for its explanation."""


class Explaining:
    """Explains answers.

    Parameters
    ----------
    spawn, threads : start a process, in the executor's one thread.
    metrics : counts how long explanations take.
    """

    def __init__(self, spawn: Spawn, threads: Executor, metrics: Metrics) -> None:
        self._spawn, self._threads, self._metrics = spawn, threads, metrics
        self._desks: dict[tuple[str, str, str], _Desk] = {}
        self._inside = 0
        self._ending: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def place(self, request: Request) -> Iterator[None]:
        """Keep a place in the line for a request, before anything is done for it.

        Raises
        ------
        TooLarge
            If it has too many rows.
        Overloaded
            If the line is full.
        """
        if request.rows > MAX_ROWS:
            raise TooLarge(f"{request.rows} rows cannot be explained at once.", todo=f"Send at most {MAX_ROWS}.")
        if self._inside >= MAX_WAITING:
            raise Overloaded(
                f"{self._inside} requests for explanations are worked on.",
                todo="Send it again later, or ask without explain.",
            )
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def explain(self, answer: Answer) -> dict[str, Any]:
        """Return why an answer is what it is: the fields of :class:`orrery.pipeline.explain.Explanation`.

        Raises
        ------
        NotInstalled
            If a package that it takes is not there.
        ModelFailed, Unavailable, NotUnderstood
            As for predictions.
        """
        began = time.perf_counter()
        slot, columns = answer.slot, answer.request.columns
        if answer.broken is not None and slot.broken == "mask":
            columns = masked(columns, answer.broken)
        desk = self._desk(slot)
        desk.inside += 1
        try:
            reply = await self._reply(desk, columns, answer.request.rows)
        finally:
            desk.inside -= 1
            desk.asked = time.monotonic()
            asyncio.get_running_loop().call_later(IDLE + 1, self._tidy)
        found = _understood(reply, slot)
        self._metrics.explain.add((slot.model,), time.perf_counter() - began)
        return found if slot.repair is None else _repaired(found, *slot.repair)

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(*self._ending, *(self._end(desk) for desk in self._desks.values()))

    def _desk(self, slot: Slot) -> _Desk:
        desk = self._desks.get(slot.process)
        if desk is None:
            if len(self._desks) >= PROCESSES:
                idle = [key for key, one in self._desks.items() if not one.inside]
                if not idle:
                    raise Overloaded(f"{PROCESSES} other versions explain already.", todo="Send it again later.")
                self._dismiss(min(idle, key=lambda key: self._desks[key].asked))
            desk = self._desks[slot.process] = _Desk(slot)
        return desk

    async def _reply(self, desk: _Desk, columns: Columns, rows: int) -> Reply:
        what = f"The explanation of {desk.slot.key}"
        try:
            async with asyncio.timeout(TURN_WITHIN):
                await desk.turn.acquire()
        except TimeoutError:
            raise Overloaded(f"{what} had to wait for others too long.", todo="Send it again later.") from None
        try:
            if desk.channel is not None:
                with contextlib.suppress(ProcessDied):  # it ended while nobody asked: the next one is asked instead
                    return await self._asked(desk, columns, rows)
            return await self._asked(desk, columns, rows)
        except ProcessDied as error:
            await self._end(desk)
            raise Unavailable(f"{what} failed ({error}).") from None
        except OSError as error:  # a timeout is one, too
            await self._end(desk)
            why = "took too long" if isinstance(error, TimeoutError) else f"failed: {error.strerror or error}"
            raise Unavailable(f"{what} {why}.", todo="Ask for fewer rows, or send it again later.") from None
        finally:
            desk.turn.release()

    async def _asked(self, desk: _Desk, columns: Columns, rows: int) -> Reply:
        channel = await self._channel(desk)
        async with asyncio.timeout(ANSWER_WITHIN):
            return await channel.send(columns, rows, "explain")

    async def _channel(self, desk: _Desk) -> Channel:
        if desk.channel is None or desk.channel.over:
            await self._end(desk)
            slot = desk.slot
            argv = [slot.python, "-m", HOST, "--nice", slot.artifact]
            desk.channel = await Channel.open(self._spawn, argv, self._threads, slot.memory)
            async with asyncio.timeout(START_WITHIN):
                first = await desk.channel.first
            if first.error is not None or not first.ready:
                raise ProcessDied(first.error.what if isinstance(first.error, Fault) else first.error or "is not ready")
        return desk.channel

    async def _end(self, desk: _Desk) -> None:
        channel, desk.channel = desk.channel, None
        if channel is not None:
            channel.kill("was stopped")
            await asyncio.shield(channel.stop(2.0))

    def _tidy(self) -> None:
        for key, desk in list(self._desks.items()):
            if not desk.inside and time.monotonic() - desk.asked >= IDLE:
                self._dismiss(key)

    def _dismiss(self, key: tuple[str, str, str]) -> None:
        task = asyncio.get_running_loop().create_task(self._end(self._desks.pop(key)))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Desk:
    """The process that explains one version, if it runs, who is there, and whose turn it is."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.channel: Channel | None = None
        self.inside = 0
        self.turn = asyncio.Lock()
        self.asked = time.monotonic()


def _understood(reply: Reply, slot: Slot) -> dict[str, Any]:
    fault = reply.error
    if isinstance(fault, Fault) and fault.kind == "absent":
        raise NotInstalled(fault.what)
    if isinstance(fault, Fault) and fault.kind == "rows":
        raise NotUnderstood(fault.what)
    if fault is not None or reply.explanation is None:
        what = fault.what if isinstance(fault, Fault) else fault or "it gave no explanation"
        raise ModelFailed(f"The explanation of {slot.key} failed: {what}")
    return reply.explanation


def _repaired(found: dict[str, Any], slope: float, intercept: float) -> dict[str, Any]:
    """Return the explanation of the repaired answer: on the scale of log-odds, a repair is two numbers more."""
    if found["scale"] != "log-odds":
        return {**found, "scale": f"{found['scale']} before the repair"}
    return {
        **found,
        "base": [slope * base + intercept for base in found["base"]],
        "contributions": [[[slope * one for one in output] for output in row] for row in found["contributions"]],
    }


def wanted(value: object) -> bool:
    """Read the word ``explain`` of a request's parameters.

    Raises
    ------
    NotUnderstood
        If it is neither true nor false.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    raise NotUnderstood(f"explain is {value!r:.40}.", todo="Send true or false.")


def by_row(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an explanation row by row, as the forms of JSON answer it.

    Examples
    --------
    >>> by_row({"columns": ["a"], "base": [0.5], "contributions": [[[0.25]]], "method": "m", "scale": "value"})
    [{'base': 0.5, 'contributions': {'a': 0.25}}]
    """
    names, base = found["columns"], found["base"]
    rows = []
    for outputs in found["contributions"]:
        each = [dict(zip(names, output, strict=True)) for output in outputs]
        rows.append({"base": base[0] if len(base) == 1 else base, "contributions": each[0] if len(each) == 1 else each})
    return rows


def about(found: dict[str, Any]) -> dict[str, Any]:
    """Return what holds for all rows: how the explanation was made, on which scale, how sure it is, what it cost."""
    known = {name: found[name] for name in ("method", "scale", "error", "asked", "cost", "note") if name in found}
    return {name: value for name, value in known.items() if value not in (None, "")}
