"""Challengers ride along: they see the champion's requests after its answer has left, and may miss some."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable

from orrery.serving.assignment import Slot
from orrery.serving.contract import Checker
from orrery.serving.models import Model
from orrery.serving.requests import Request

QUEUE = 64
"""Requests that wait for one challenger at most; what comes then is shed."""

See = Callable[["Lane", Request, int], Awaitable[None]]


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
        self._queue: deque[tuple[Request, int, Future[None] | None]] = deque()
        self._task: asyncio.Task[None] | None = None

    def offer(self, request: Request, at: int) -> None:
        """Queue a request, or shed it when the queue is full."""
        if len(self._queue) >= QUEUE:
            self._shed(self.slot)
        else:
            self._put(request, at, None)

    def put(self, request: Request, at: int) -> Future[None]:
        """Queue a request in any case; the future ends when the challenger is done with it."""
        done: Future[None] = asyncio.get_running_loop().create_future()
        self._put(request, at, done)
        return done

    def _put(self, request: Request, at: int, done: Future[None] | None) -> None:
        self.model.hold()  # so that a challenger that leaves sees first what was queued for it
        self._queue.append((request, at, done))
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._queue:
            request, at, done = self._queue.popleft()
            try:
                await self._see(self, request, at)
            finally:
                self.model.release()
                if done is not None and not done.done():
                    done.set_result(None)
        self._task = None
