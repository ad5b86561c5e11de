"""Requests that are answered together: what arrives while a version is busy, with the same columns, is one batch."""

from __future__ import annotations

from asyncio import Future, Task
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec

from orrery.serving.contract import Columns
from orrery.serving.requests import Answer, Request


class Waiting(msgspec.Struct, eq=False):
    """A request that waits.

    Parameters
    ----------
    request, at : what was asked, and when: microseconds since 1970.
    answer : gets the answer, or why there is none; of a challenger's request what it said, for nobody.
    began : when it was asked, by ``time.perf_counter``.
    deaths : how many processes have ended while they had this.
    """

    request: Request
    at: int
    answer: Future[Answer]
    began: float
    deaths: int = 0


class Line:
    """What waits for one version in one place."""

    def __init__(self) -> None:
        self.fresh: list[Waiting] = []
        """What arrived in this round of the event loop, for a compiled version."""
        self.queue: deque[Waiting] = deque()
        """What waits for the version's process."""
        self.task: Task[None] | None = None
        """Works the queue off."""
        self.large: set[Task[None]] = set()
        """Answer requests with many rows."""

    def take(self, rows: int) -> list[Waiting]:
        """Take requests of so many rows at most, or one, off the queue; those that nobody waits for are dropped."""
        taken: list[Waiting] = []
        while self.queue and (not taken or self.queue[0].request.rows <= rows):
            one = self.queue.popleft()
            if not one.answer.done():
                taken.append(one)
                rows -= one.request.rows
        return taken


class Batch(msgspec.Struct, eq=False):
    """Requests with the same columns.

    Parameters
    ----------
    asked : the requests.
    columns, rows : theirs, one after the other.
    """

    asked: list[Waiting]
    columns: Columns
    rows: int

    @classmethod
    def of(cls, asked: list[Waiting]) -> Batch:
        """Put requests with the same columns together."""
        if len(asked) == 1:
            return cls(asked, asked[0].request.columns, asked[0].request.rows)
        if not asked:
            return cls(asked, {}, 0)
        tables = [one.request.columns for one in asked]
        columns: Columns = {
            name: list(chain.from_iterable(map(itemgetter(name), tables))) for name in asked[0].request.columns
        }
        return cls(asked, columns, sum(one.request.rows for one in asked))

    def halves(self) -> tuple[Batch, Batch]:
        """Return two batches of half the requests each."""
        middle = len(self.asked) // 2
        return Batch.of(self.asked[:middle]), Batch.of(self.asked[middle:])

    def apart(self, row: int) -> tuple[Batch, Batch]:
        """Return the request that a row is of, and the others."""
        for place, one in enumerate(self.asked):
            if row < one.request.rows:
                return Batch.of([one]), Batch.of(self.asked[:place] + self.asked[place + 1 :])
            row -= one.request.rows
        return self.halves()

    def without(self, gone: Sequence[bool]) -> Batch:
        """Return the batch without some of its requests."""
        if True not in gone:
            return self
        return Batch.of([one for one, away in zip(self.asked, gone, strict=True) if not away])

    def per_request(self, rows: list[Any]) -> Iterable[tuple[Waiting, list[Any]]]:
        """Yield each request with its part of something that has one entry for each row."""
        start = 0
        for one in self.asked:
            end = start + one.request.rows
            yield one, rows[start:end]
            start = end


def batches(asked: list[Waiting]) -> list[Batch]:
    """Return the requests by their columns, each batch in the order of arrival.

    What a request does not bring is not there, which is something else than null: so it is not filled in.
    """
    if len(asked) == 1:
        return [Batch.of(asked)]
    groups: dict[tuple[str, ...], list[Waiting]] = {}
    for one in asked:
        groups.setdefault(tuple(one.request.columns), []).append(one)
    return [Batch.of(group) for group in groups.values()]
