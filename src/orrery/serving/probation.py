"""A new version is watched where it answers, and taken back before it is felt.

Whatever goes wrong is measured against the version before, on the same request: where the new version fails, is slow or
says what is no answer, the version before answers instead, and only if it can is the failure counted. So a request that
no version can answer speaks against none.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orrery.errors import ContractBroken
from orrery.serving.assignment import Probation, Slot
from orrery.serving.log import say
from orrery.serving.refusals import ModelFailed, Overloaded
from orrery.serving.requests import Answer, Request

if TYPE_CHECKING:
    from orrery.serving.prediction import Predictor
    from orrery.serving.route import Route

PATIENCE = 0.25
"""Seconds after which the version before is asked, too; for each request that is in the new version."""
FLOOR = 0.005
"""Seconds below which it makes no difference how many times as long something took."""
FAILURES = 3
"""Failures that are not yet a reason."""
EACH, EVERY = 20, 10
"""The first requests that are timed with the version before, too, and then every how many."""
LAST, LEAST = 20, 10
"""Comparisons of time that are looked at, and how many there must be."""


class Trial:
    """One new version and what it has shown so far.

    Parameters
    ----------
    slot : the new version, with its :class:`~orrery.serving.assignment.Probation`.
    before : route of the version that answers in its place.
    predictor : asks them.
    take_back : called once, with the reason, when it has shown that it must go.
    passed : called once when it has shown that it may stay.
    """

    def __init__(
        self,
        slot: Slot,
        before: Route,
        predictor: Predictor,
        take_back: Callable[[Slot, str], None],
        passed: Callable[[Slot], None],
    ) -> None:
        self.slot, self.before, self._predictor = slot, before, predictor
        self._limits = slot.probation or Probation()
        self._take_back, self._passed = take_back, passed
        self.requests = self.failures = 0
        self._began = time.monotonic()
        self._over: Future[None] = asyncio.get_running_loop().create_future()
        self._excused = False
        self._running = 0
        self._width = 0
        self._ratios: deque[float] = deque(maxlen=LAST)
        self._timing: asyncio.Task[None] | None = None

    async def answer(self, route: Route, request: Request, at: int) -> Answer:
        """Return the new version's answer, or that of the version before where the new one has none in time.

        Raises
        ------
        OrreryError
            As the new version does, if the version before cannot answer either.
        """
        predictor = self._predictor
        if self._over.done():
            return await predictor.answer(self.before, request, at)
        if not self._width:
            await self._time(request, None)
        self._running += 1
        crowd, began = self._running, time.perf_counter()
        asked: Future[Answer] | None = None
        spare: Future[Answer] | None = None
        error: BaseException | None = ModelFailed(f"Version {self.slot.version} of {self.slot.model} is not running.")
        try:
            if route.model.ready.is_set():
                self._excused = False
                asked, error = asyncio.ensure_future(predictor.answer(route, request, at)), None
                await _first(asked, self._over, timeout=PATIENCE * crowd)
                if asked.done() and (error := asked.exception()) is None:
                    return self._answered(asked.result(), (time.perf_counter() - began) / crowd)
            if isinstance(error, Overloaded | ContractBroken):  # neither says anything of the version
                raise error
            asked_at = time.perf_counter()
            spare = asyncio.ensure_future(predictor.answer(self.before, request, at))
            if error is None and asked is not None:  # it is slow: who of both answers first is heard
                await _first(asked, spare)
                if not spare.done() or spare.exception() is not None:
                    await _first(asked)
                    if (error := asked.exception()) is None:
                        return self._answered(asked.result(), (time.perf_counter() - began) / crowd)
            await _first(spare)
            if spare.exception() is not None:
                # Rows that end both versions speak against neither, nor does the time in which this one starts again.
                self._excused = not route.model.ready.is_set()
                raise error or spare.exception()  # type: ignore[misc]
            now = time.perf_counter()
            if self._excused and not route.model.failure:
                return spare.result()
            if error is not None:
                self._failed(str(error), spare.result())
            elif (now - began) / crowd > self._limits.latency * max(now - asked_at, FLOOR):
                self._failed(f"There was no answer after {now - began:.2f} s.")
            return spare.result()
        finally:
            self._running -= 1
            for future in (asked, spare):
                if future is not None and not future.cancel():
                    future.exception()  # nobody needs to be told of it any more

    def check(self, rows: list[list[Any]]) -> None:
        """See that an answer is one: finite numbers, as many for each row as the version before says.

        Raises
        ------
        ModelFailed
            If it is not.
        """
        if self._width and len(rows[0]) != self._width:
            raise ModelFailed(f"{len(rows[0])} numbers for each row instead of {self._width}.")
        if not _finite(rows):
            raise ModelFailed("What it returned for a row is no finite number.")

    def _answered(self, answer: Answer, seconds: float) -> Answer:
        self.requests += 1
        if (self.requests <= EACH or self.requests % EVERY == 0) and self._timing is None:
            self._timing = asyncio.create_task(self._time(answer.request, seconds))
        limits = self._limits
        if self.slot.role == "champion" and not self._over.done() and self.requests >= limits.requests:
            enough = time.monotonic() - self._began >= limits.time
            if enough and self.failures <= limits.failures * self.requests:
                self._over.set_result(None)
                self._passed(self.slot)
        return answer

    def _failed(self, why: str, instead: Answer | None = None) -> None:
        if instead is not None and not _finite(instead.output):
            return  # the version before has no better answer
        self.requests += 1
        self.failures += 1
        if self.failures >= FAILURES and self.failures > self._limits.failures * self.requests:
            before = self.before.slot.version
            self._take(
                f"It failed on {self.failures} of its first {self.requests:,} requests, "
                f"which version {before} answered instead. The last time: {why}"
            )

    async def _time(self, request: Request, seconds: float | None) -> None:
        """Ask the version before, too, to know how long it takes and how many numbers it returns."""
        before = self.before
        try:
            began = time.perf_counter()
            self._width = len((await self._predictor.ask(before, request))[0])
            took = time.perf_counter() - began
        except Exception:  # then there is nothing to compare with: the next request is another chance
            return
        finally:
            self._timing = None
        if seconds is None:
            return
        self._ratios.append(seconds / max(took, FLOOR))
        middle = statistics.median(self._ratios)
        if len(self._ratios) >= LEAST and middle > self._limits.latency:
            self._take(
                f"It took {middle:.1f} times as long as version {before.slot.version} for the same requests "
                f"(at most {self._limits.latency:g} times is allowed)."
            )

    def _take(self, why: str) -> None:
        if not self._over.done():
            self._over.set_result(None)
            self._take_back(self.slot, why)


class Taken(msgspec.Struct, kw_only=True):
    """A version that was taken back: why, in which trial, and whether the control plane knows."""

    since: str
    role: str
    why: str
    reported: bool = False


class Memory:
    """What was taken back, on disk, so that neither a restart nor a control plane that is away brings it back.

    Parameters
    ----------
    path : the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.taken: dict[str, Taken] = {}
        try:
            self.taken = msgspec.json.decode(path.read_bytes(), type=dict[str, Taken])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            say(f"what was taken back cannot be read, so all that is assigned is tried again: {error}")

    def add(self, slot: Slot, why: str) -> None:
        """Remember that a version was taken back."""
        self.taken[slot.key] = Taken(since=slot.since, role=slot.role, why=why)
        self._save()

    def holds(self, slot: Slot) -> bool:
        """Say whether a version was taken back in the trial that it is assigned for."""
        taken = self.taken.get(slot.key)
        return taken is not None and (taken.since, taken.role) == (slot.since, slot.role)

    def reported(self, keys: list[str]) -> None:
        """Note that the control plane knows."""
        for key in keys:
            if key in self.taken:
                self.taken[key].reported = True
        self._save()

    def forget(self, slots: list[Slot]) -> None:
        """Forget what the control plane knows and assigns no more."""
        present = {slot.key for slot in slots if self.holds(slot)}
        gone = [key for key, taken in self.taken.items() if taken.reported and key not in present]
        for key in gone:
            del self.taken[key]
        if gone:
            self._save()

    def _save(self) -> None:
        fresh = self._path.with_suffix(f".{os.getpid()}")
        try:
            with open(fresh, "wb") as file:
                file.write(msgspec.json.encode(self.taken))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
        except OSError as error:
            say(f"what was taken back cannot be kept on disk: {error}")


async def _first(*futures: Future[Any], timeout: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def _finite(rows: list[list[Any]]) -> bool:
    return all(type(value) in (float, int) and math.isfinite(value) for row in rows for value in row)
