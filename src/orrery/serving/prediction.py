"""From requests to answers that are written down: contract, version, journal; one batch at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from asyncio import Future
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from orrery.errors import NotAllowed, OrreryError
from orrery.serving.assignment import Slot
from orrery.serving.channel import ProcessDied
from orrery.serving.contract import Broken, Columns, broken_row, masked
from orrery.serving.gather import Batch, Waiting, batches
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.model_process import ModelProcess, Output
from orrery.serving.models import Elsewhere
from orrery.serving.numbers import numbers
from orrery.serving.refusals import Unavailable
from orrery.serving.requests import Answer, Request
from orrery.serving.route import Route
from orrery.serving.shadow import Lane

MOST = 128
"""Requests that are gathered for one call of a compiled version."""

Who = Route | Lane
"""Who is asked: somebody whose answer is given, or a challenger."""


class Journal(Protocol):
    """Where predictions are written down before their answer leaves."""

    def append(
        self, model: str, environment: str, columns: dict[str, list[Any]], same: dict[str, Any] | None = None
    ) -> object:
        """Write rows; on return they outlive this process. OSError or NotAllowed: nothing was written."""

    def begin(self) -> None:
        """Write what comes from now on to a new file, so that the one before can be removed."""

    def close(self) -> None:
        """Write out what is held back."""


class NotWritten(OrreryError):
    """Predictions could not be written down."""


class Entered(msgspec.Struct):
    """A batch that may be predicted.

    Parameters
    ----------
    batch : the requests as they came.
    columns : what the version is asked with: broken values may be masked.
    broken : columns of each row that break the contract.
    began, entered : when the contract was looked at, from when to when, by ``time.perf_counter``.
    """

    batch: Batch
    columns: Columns
    broken: Broken | None
    began: float
    entered: float


class Predictor:
    """Answers requests: what waits for a version is answered together, and fails apart.

    Parameters
    ----------
    journal : gets every prediction.
    metrics : counts.
    full : what to do when the journal cannot be written: ``refuse`` the request, or ``shed`` the record, loudly.
    """

    def __init__(self, journal: Journal, metrics: Metrics, full: Literal["refuse", "shed"] = "refuse") -> None:
        self._journal, self._metrics, self._full = journal, metrics, full
        self.served: dict[str, int] = {}
        """Rows predicted by each slot since the start."""

    def answer(self, route: Route, request: Request, at: int) -> Future[Answer]:
        """Return what will be the answer of who answers there, which is in the journal by then.

        Parameters
        ----------
        at : instant of the request, microseconds since 1970.

        Raises
        ------
        ContractBroken
            If a row breaks the contract and the policy is to refuse.
        Overloaded, Unavailable
            If too much waits already, or the model or the journal is not there.
        NotUnderstood, ModelFailed
            If the model cannot use the rows, or fails.
        """
        answer: Future[Answer] = asyncio.get_running_loop().create_future()
        route.model.hold()
        self._admit(route, Waiting(request, at, answer, time.perf_counter()))
        return answer

    def _admit(self, route: Route, one: Waiting) -> None:
        """Let a request go where its version answers; the version is held for it."""
        loop, model, line = asyncio.get_running_loop(), route.model, route.line
        if model.quick(one.request.rows):
            line.fresh.append(one)
            if len(line.fresh) == 1:
                loop.call_soon(self._gather, route, 0)
        elif model.compiled or model.undecided:
            task = loop.create_task(self._in_thread(route, one) if model.compiled else self._when_decided(route, one))
            line.large.add(task)
            task.add_done_callback(line.large.discard)
        else:
            self._queue(route, one)
            model.release()

    async def _when_decided(self, route: Route, one: Waiting) -> None:
        """Wait with a request that came while the compiled version is loaded: a process may never be needed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(route.slot.timeout):
                await route.model.decided()
        if one.answer.done() or route.model.undecided:
            self._fail(route, [one], Unavailable(f"{route.model} is still being loaded.", todo="Send it again later."))
            route.model.release()
        else:
            self._admit(route, one)

    async def ask(self, route: Route, request: Request) -> list[list[Any]]:
        """Return what a version says, without writing it down."""
        said = await route.model.predict(request.columns, request.rows, route.slot.timeout)
        return numbers(said.rows, route.slot)

    async def see(self, lane: Lane, asked: list[Waiting]) -> None:
        """Have a challenger predict, and write that down; what goes wrong is counted and harms nobody."""
        await lane.model.decided()
        if lane.model.quick(max(one.request.rows for one in asked)):
            asked = self._at_once(lane, asked)
        if asked:
            process = lane.model.process
            for one in asked:
                try:
                    process.check(one.request)
                except OrreryError as error:
                    self._fail(lane, [one], error)
            async with process.turn:
                await self._together(lane, asked, process)

    def begin_journal(self) -> None:
        """Let the journal's file be finished: somebody is erased from it."""
        self._journal.begin()

    def shed(self, slot: Slot) -> None:
        """Count a request that a challenger does not get to see."""
        self._metrics.shed.add(_labels(slot))

    def _gather(self, route: Route, seen: int) -> None:
        """Answer what has arrived, once a round of the event loop brings nothing more."""
        found = len(route.line.fresh)
        if seen < found < MOST:
            asyncio.get_running_loop().call_soon(self._gather, route, found)
        else:
            self._flush(route)

    def _flush(self, route: Route) -> None:
        asked, route.line.fresh = route.line.fresh, []
        for one in self._at_once(route, asked):
            self._queue(route, one)
        for _ in asked:
            route.model.release()

    def _queue(self, route: Route, one: Waiting) -> None:
        """Let a request wait for the version's process."""
        model, line, timeout = route.model, route.line, route.slot.timeout
        process = model.process
        try:
            process.admit(one.request, timeout)
        except OrreryError as error:
            self._fail(route, [one], error)
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout, lambda: self._fail(route, [one], process.late(timeout)))

        def end(_: Future[Answer]) -> None:
            timer.cancel()
            process.leave(one.request)
            model.release()

        model.hold()
        one.answer.add_done_callback(end)
        line.queue.append(one)
        if line.task is None:
            line.task = loop.create_task(self._work(route))

    async def _work(self, route: Route) -> None:
        process, line = route.model.process, route.line
        while line.queue:
            async with process.turn:  # what comes until it is ours is gathered
                await self._together(route, line.take(process.pace.limit), process)
        line.task = None

    def _at_once(self, who: Who, asked: list[Waiting]) -> list[Waiting]:
        """Answer by a compiled version; return the requests that it was not proven for."""
        left: list[Waiting] = []
        todo = batches(asked)
        while todo:
            batch = todo.pop()
            try:
                if (entered := self._enter(who, batch)) is not None:
                    batch = entered.batch
                    self._leave(who, entered, who.model.at_once(entered.columns, batch.rows))
            except Elsewhere:
                if len(batch.asked) == 1:
                    left += batch.asked
                else:
                    todo += batch.halves()
            except Exception as error:
                todo += self._blame(who, batch, error)
        return left

    async def _in_thread(self, route: Route, one: Waiting) -> None:
        """Answer a large request by a compiled version."""
        batch = Batch.of([one])
        try:
            if (entered := self._enter(route, batch)) is not None:
                self._leave(route, entered, await route.model.in_thread(entered.columns, batch.rows))
        except Elsewhere:
            self._queue(route, one)
        except Exception as error:
            self._blame(route, batch, error)
        route.model.release()

    async def _together(self, who: Who, asked: list[Waiting], process: ModelProcess) -> None:
        """Answer by the version's process, whose turn is ours."""
        todo = batches(asked)
        while todo:
            batch = todo.pop()
            try:
                if (entered := self._enter(who, batch)) is not None:
                    batch = entered.batch
                    said = await process.predict(entered.columns, batch.rows, who.slot.timeout)
                    self._leave(who, entered, said)
            except ProcessDied as died:
                todo += self._died(who, batch, process, died)
            except Exception as error:
                todo += self._blame(who, batch, error)

    def _died(self, who: Who, batch: Batch, process: ModelProcess, died: ProcessDied) -> list[Batch]:
        """Return what is tried again after the process has ended: each request once more, and alone."""
        for one in batch.asked:
            one.deaths += 1
        if len(batch.asked) == 1 and batch.asked[0].deaths > 1:
            self._fail(who, batch.asked, process.never_again(batch.asked[0].request, died))
            return []
        return [Batch.of([one]) for one in reversed(batch.asked)]

    def _blame(self, who: Who, batch: Batch, error: Exception) -> tuple[Batch, ...]:
        """Return what is tried again after a failure, to find the request that it is about, and answer the others."""
        if len(batch.asked) == 1 or isinstance(error, Unavailable):
            if not isinstance(error, OrreryError):
                say(f"{who.slot.key}: {''.join(traceback.format_exception(error))}")
            self._fail(who, batch.asked, error)
            return ()
        row = getattr(error, "row", None)
        return batch.halves() if row is None else batch.apart(row)

    def _enter(self, who: Who, batch: Batch) -> Entered | None:
        """Hold what is still waited for to the contract; nothing if nothing is left."""
        batch = batch.without([one.answer.done() for one in batch.asked])
        began = time.perf_counter()
        slot, columns = who.slot, batch.columns
        broken = who.checker.broken(columns, batch.rows)
        if broken is not None and slot.broken == "refuse" and isinstance(who, Route):
            for one, part in batch.per_request(broken):
                if any(part):
                    self._metrics.broken.add(_labels(slot), sum(map(bool, part)))
                    self._fail(who, [one], broken_row(one.request.columns, part))
            batch = batch.without([one.answer.done() for one in batch.asked])
            columns, broken = batch.columns, None
        elif broken is not None and slot.broken == "mask":
            columns = masked(columns, broken)
        return Entered(batch, columns, broken, began, time.perf_counter()) if batch.rows else None

    def _leave(self, who: Who, entered: Entered, said: Output) -> None:
        """Write predictions down, and hand them out."""
        now = time.perf_counter()
        slot, batch, broken = who.slot, entered.batch, entered.broken
        rows = numbers(said.rows, slot)
        if isinstance(who, Route) and who.trial is not None:
            who.trial.check(rows)
        over = [one.answer.done() for one in batch.asked]
        if True in over:  # somebody was told meanwhile that it takes too long
            rows, broken = _still(batch, rows), broken and _still(batch, broken)
            batch = batch.without(over)
        shadow = isinstance(who, Lane)
        try:
            self._write(slot, _record(slot, batch, rows, now, broken, inputs=not shadow))
        except NotWritten as error:
            if shadow or self._full == "refuse":
                what = f"The prediction cannot be written down, so it is not given. {error}"
                self._fail(who, batch.asked, Unavailable(what))
                return
        if broken is not None:
            self._metrics.broken.add(_labels(slot), sum(map(bool, broken)))
        self._count(slot, batch.rows)
        start = 0
        for one in batch.asked:
            end = start + one.request.rows
            wrong = broken[start:end] if broken is not None and any(broken[start:end]) else None
            one.answer.set_result(Answer(one.request, slot, rows[start:end], wrong, said.missing, said.extra))
            start = end
        count, labels = len(batch.asked), (slot.model,)
        self._metrics.preprocess.add(labels, entered.entered - entered.began, count)
        self._metrics.predict.add(labels, now - entered.entered, count)
        self._metrics.postprocess.add(labels, time.perf_counter() - now, count)

    def _fail(self, who: Who, asked: list[Waiting], error: Exception) -> None:
        for one in asked:
            if not one.answer.done():
                one.answer.set_exception(error)
                if isinstance(who, Lane):
                    one.answer.exception()  # nobody else asks for it
                    self._metrics.shadow_failures.add(_labels(who.slot))

    def _write(self, slot: Slot, record: tuple[Columns, dict[str, Any]]) -> None:
        columns, same = record
        count = len(columns["_id"])
        try:
            self._journal.append(slot.model, slot.environment, columns, same)
        except (OSError, NotAllowed) as error:
            self._metrics.journal_lost.add((), count)
            say(f"predictions of {slot.key} are not written down: {error}")
            raise NotWritten(str(error)) from error
        self._metrics.journal_rows.add((), count)

    def _count(self, slot: Slot, rows: int) -> None:
        self._metrics.predictions.add(_labels(slot), rows)
        self.served[slot.key] = self.served.get(slot.key, 0) + rows


def microseconds(instant: datetime) -> int:
    """Return an instant as whole microseconds since 1970."""
    return round(instant.timestamp() * 1_000_000)


Now = Callable[[], int]
"""Tells the time, in microseconds since 1970."""


def _labels(slot: Slot) -> tuple[str, ...]:
    return slot.model, slot.environment, str(slot.version), slot.role


def _still(batch: Batch, rows: list[Any]) -> list[Any]:
    """Return the rows of the requests that are still waited for."""
    return [row for one, part in batch.per_request(rows) if not one.answer.done() for row in part]


def _record(
    slot: Slot, batch: Batch, rows: list[list[Any]], now: float, broken: Broken | None, inputs: bool
) -> tuple[Columns, dict[str, Any]]:
    """Return the log's columns of a batch, and those that hold the same in all of its rows."""
    asked = batch.asked
    entity = batch.columns.get(slot.entity)
    columns: Columns = {"_output": rows}
    if batch.rows == len(asked):
        columns["_id"] = [f"{one.request.id}#0" for one in asked]
        columns["_at"] = [one.at for one in asked]
        columns["_latency"] = [now - one.began for one in asked]
    else:
        columns["_id"] = [f"{one.request.id}#{row}" for one in asked for row in range(one.request.rows)]
        columns["_at"] = [one.at for one in asked for _ in range(one.request.rows)]
        columns["_latency"] = [now - one.began for one in asked for _ in range(one.request.rows)]
    same: dict[str, Any] = {"_version": slot.version, "_role": slot.role}
    if entity is None:
        same["_entity"] = ""
    else:
        columns["_entity"] = ["" if value is None else str(value) for value in entity]
    if broken is None:
        same["_broken"] = []
    else:
        columns["_broken"] = broken
    if inputs:
        columns.update(batch.columns)
        if any(one.request.caller for one in asked):
            columns["_caller"] = [one.request.caller or None for one in asked for _ in range(one.request.rows)]
    return columns, same
