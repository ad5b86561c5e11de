"""Group commit: threads that write at the same time share one commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Slot(Generic[Item, Result]):
    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Result | Exception | None = None


class GroupCommit(Generic[Item, Result]):
    """Collects what threads submit while a commit is under way, and commits it together next.

    Nobody waits for company: a thread alone commits at once. Nobody returns before its own item is committed.

    Parameters
    ----------
    commit : writes several items; returns for each, in order, its result or the error that concerns it alone. If it
        raises, that concerns all of them.

    Examples
    --------
    >>> group = GroupCommit(lambda items: [item * 2 for item in items])
    >>> group.submit(21)
    42
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result | Exception]]) -> None:
        self._commit = commit
        self._waiting: list[_Slot[Item, Result]] = []
        self._queue = threading.Lock()
        self._turn = threading.Lock()

    def submit(self, item: Item) -> Result:
        """Commit the item, alone or with others; raise what its commit raised."""
        slot: _Slot[Item, Result] = _Slot(item)
        with self._queue:
            self._waiting.append(slot)
        with self._turn:
            if slot.outcome is None:
                self._lead()
        outcome = slot.outcome
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None
        return outcome

    def _lead(self) -> None:
        with self._queue:
            slots, self._waiting = self._waiting, []
        try:
            outcomes = self._commit([slot.item for slot in slots])
        except Exception as error:
            outcomes = [error] * len(slots)
        for slot, outcome in zip(slots, outcomes, strict=True):
            slot.outcome = outcome
