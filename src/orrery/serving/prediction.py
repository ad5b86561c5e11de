"""From a request to an answer that is written down: contract, champion, journal; and then the challengers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, Protocol

from orrery.errors import NotAllowed, OrreryError
from orrery.serving.assignment import Slot
from orrery.serving.contract import Broken, Columns, masked, refuse
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.models import Output
from orrery.serving.refusals import ModelFailed, Unavailable
from orrery.serving.requests import Answer, Request
from orrery.serving.route import Route
from orrery.serving.shadow import Lane


class Journal(Protocol):
    """Where predictions are written down before their answer leaves."""

    def append(self, model: str, environment: str, columns: dict[str, list[Any]]) -> object:
        """Write rows; on return they outlive this process. OSError or NotAllowed: nothing was written."""

    def close(self) -> None:
        """Write out what is held back."""


class NotWritten(OrreryError):
    """Predictions could not be written down."""


class Predictor:
    """Answers requests.

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

    async def answer(self, route: Route, request: Request, at: int) -> Answer:
        """Return the champion's answer, which is in the journal by then.

        Parameters
        ----------
        at : instant of the request, microseconds since 1970.

        Raises
        ------
        ContractBroken
            If a row breaks the contract and the policy is to refuse.
        Unavailable
            If the model or the journal is not there.
        """
        slot, columns = route.slot, request.columns
        began = time.perf_counter()
        broken = route.checker.broken(columns, request.rows)
        if broken is not None:
            self._metrics.broken.add(_labels(slot), sum(map(bool, broken)))
            if slot.broken == "refuse":
                refuse(columns, broken)
            elif slot.broken == "mask":
                columns = masked(columns, broken)
        said = await route.model.predict(columns, request.rows, slot.timeout)
        rows = _numbers(said, slot)
        if route.trial is not None:
            route.trial.check(rows)
        record = _record(slot, request, at, rows, time.perf_counter() - began, broken)
        record.update(request.columns)
        try:
            self._write(slot, record)
        except NotWritten as error:
            if self._full == "refuse":
                raise Unavailable(
                    f"The prediction cannot be written down, so it is not given. {error}",
                ) from error
        self._count(slot, request.rows)
        return Answer(request, slot, rows, broken, said.missing, said.extra)

    async def ask(self, route: Route, request: Request) -> list[list[Any]]:
        """Return what a version says, without writing it down."""
        said = await route.model.predict(request.columns, request.rows, route.slot.timeout)
        return _numbers(said, route.slot)

    async def see(self, lane: Lane, request: Request, at: int) -> None:
        """Have a challenger predict, and write that down; what goes wrong is counted and harms nobody."""
        slot, columns = lane.slot, request.columns
        began = time.perf_counter()
        try:
            broken = lane.checker.broken(columns, request.rows)
            if broken is not None and slot.broken == "mask":
                columns = masked(columns, broken)
            said = await lane.model.predict(columns, request.rows, slot.timeout)
            rows = _numbers(said, slot)
            self._write(slot, _record(slot, request, at, rows, time.perf_counter() - began, broken))
        except NotWritten:
            return  # it is counted, and the log says so
        except Exception as error:  # whatever it is, the next request must find this challenger's lane open
            self._metrics.shadow_failures.add(_labels(slot))
            if not isinstance(error, OrreryError):
                say(f"{slot.key} in shadow: {error!r}")
        else:
            self._count(slot, request.rows)

    def shed(self, slot: Slot) -> None:
        """Count a request that a challenger does not get to see."""
        self._metrics.shed.add(_labels(slot))

    def _write(self, slot: Slot, record: dict[str, list[Any]]) -> None:
        try:
            self._journal.append(slot.model, slot.environment, record)
        except (OSError, NotAllowed) as error:
            self._metrics.journal_lost.add((), len(record["_id"]))
            say(f"predictions of {slot.key} are not written down: {error}")
            raise NotWritten(str(error)) from error
        self._metrics.journal_rows.add((), len(record["_id"]))

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


def _numbers(said: Output, slot: Slot) -> list[list[Any]]:
    """Return the output as one list for each row; of two probabilities of a binary task, the positive one's."""
    rows = [row if type(row) is list else [row] for row in said.rows]
    width = len(rows[0])
    if not width or any(len(row) != width for row in rows):
        raise ModelFailed(f"Version {slot.version} of {slot.model} returned rows of different lengths.")
    if slot.task == "binary" and width == 2:
        rows = [row[1:] for row in rows]
    return rows if slot.repair is None else [[repaired(row[0], *slot.repair)] for row in rows]


def repaired(probability: float, slope: float, intercept: float) -> float:
    """Return a probability with Platt's two numbers applied on the logit scale.

    Examples
    --------
    >>> round(repaired(0.5, 1.0, 1.0), 3)
    0.731
    """
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    return 0.5 * (1.0 + math.tanh(0.5 * (slope * math.log(clipped / (1 - clipped)) + intercept)))


def _record(
    slot: Slot, request: Request, at: int, rows: list[list[Any]], latency: float, broken: Broken | None
) -> Columns:
    count = request.rows
    entity = request.columns.get(slot.entity)
    return {
        "_id": [f"{request.id}#{row}" for row in range(count)],
        "_at": [at] * count,
        "_environment": [slot.environment] * count,
        "_version": [slot.version] * count,
        "_role": [slot.role] * count,
        "_entity": ["" if value is None else str(value) for value in entity] if entity else [""] * count,
        "_output": rows,
        "_latency": [latency] * count,
        "_broken": broken or [[] for _ in range(count)],
    }
