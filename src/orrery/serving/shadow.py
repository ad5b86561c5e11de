"""Challengers ride along: they see the champion's requests after its answer has left, and may miss some."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable

from orrery.serving.assignment import Slot
from orrery.serving.contract import Checker
from orrery.serving.gather import Waiting
from orrery.serving.models import Model
from orrery.serving.requests import Answer, Request

QUEUE = 1024
"""Rows that wait for one challenger at most, or one request; what comes then is shed."""

BATCH = 128
"""Rows that a challenger is asked for at once, or one request."""

GATHER = 0.005
"""Seconds that a request waits for others: a challenger that predicts for many at once takes less from the callers."""

RESTS = 19
"""Times as long as it has predicted does a challenger rest, so that it takes a twentieth of the time."""

LONGEST = 0.2
"""Seconds that it rests at most."""

See = Callable[["Lane", list[Waiting]], Awaitable[None]]


class Lane:
    """One challenger and the requests that it has yet to see.

    Parameters
    ----------
    slot, model, checker : the challenger and its contract.
    see : has the challenger predict, and writes that down; raises nothing.
    shed : called for each request that the challenger does not get to see.
    """

    def __init__(self, slot: Slot, model: Model, checker: Checker, see: See, shed: Callable[[Slot], None]) -> None:
        self.slot, self.model, self.checker = slot, model, checker
        self._see, self._shed = see, shed
        self._queue: deque[Waiting] = deque()
        self._rows = 0
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def offer(self, request: Request, at: int) -> None:
        """Queue a request, or shed it when the queue is full."""
        if self._queue and self._rows + request.rows > QUEUE:
            self._shed(self.slot)
        else:
            self._put(request, at)

    def put(self, request: Request, at: int) -> Future[Answer]:
        """Queue a request in any case, to be seen at once; the future ends when the challenger is done with it."""
        self._hurry.set()
        return self._put(request, at)

    def _put(self, request: Request, at: int) -> Future[Answer]:
        self.model.hold()  # so that a challenger that leaves sees first what was queued for it
        answer: Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(request, at, answer, 0.0))
        self._rows += request.rows
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return answer

    async def _run(self) -> None:
        rest = GATHER
        while self._queue:
            try:
                async with asyncio.timeout(rest):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            asked = self._take()
            if not self._queue:
                self._hurry.clear()
            began = time.perf_counter()
            for one in asked:
                one.began = began
            try:
                await self._see(self, asked)
            finally:
                for _ in asked:
                    self.model.release()
            rest = min(max(RESTS * (time.perf_counter() - began), GATHER), LONGEST)
        self._task = None

    def _take(self) -> list[Waiting]:
        taken: list[Waiting] = []
        rows = 0
        while self._queue and (not taken or rows + self._queue[0].request.rows <= BATCH):
            taken.append(self._queue.popleft())
            rows += taken[-1].request.rows
        self._rows -= rows
        return taken
