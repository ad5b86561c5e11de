"""Model processes that share the batches of a long run: the one place where its work is divided."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl


class Member(Protocol):
    """A model process, here or on another machine; for one thread at a time, but that any may kill it."""

    def start(self) -> None:
        """Start it."""

    def predict(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        """Predict for a frame, as :meth:`orrery.pipeline.client.ModelProcess.predict`."""

    def kill(self) -> None:
        """End it at once, from any thread."""

    def close(self) -> None:
        """End it; without effect if it has ended."""


class Crew:
    """Model processes, each with one batch at a time.

    Parameters
    ----------
    start : makes a process, not started yet.
    count : how many.
    """

    def __init__(self, start: Callable[[], Member], count: int) -> None:
        self._members = [start() for _ in range(count)]
        self._started: set[int] = set()
        self._idle: queue.SimpleQueue[Member] = queue.SimpleQueue()
        for member in self._members:
            self._idle.put(member)
        self._threads = ThreadPoolExecutor(count, "asks-model")

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # what is under way is not wanted any more
            for member in self._members:
                member.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for member in self._members:
            member.close()

    def submit(self, frame: pl.DataFrame) -> Future[npt.NDArray[np.float64]]:
        """Have a batch predicted by the next process that is free."""
        return self._threads.submit(self._predict, frame)

    def _predict(self, frame: pl.DataFrame) -> npt.NDArray[np.float64]:
        member = self._idle.get()
        try:
            if id(member) not in self._started:
                self._started.add(id(member))
                member.start()
            return member.predict(frame)
        finally:
            self._idle.put(member)
