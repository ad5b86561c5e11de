"""Keeps folded states: in memory while a process lives, in the database so that the next one need not begin anew.

A stored state is a convenience, never a truth: it is the fold of the events up to its ``seq``, and throwing all of them
away changes nothing but the time the next reader takes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from orrery.errors import NotFound
from orrery.timeline.event import Event
from orrery.timeline.fold import fold, fold_data
from orrery.timeline.state import FORM, DataState, ModelState
from orrery.timeline.store import Timeline

States_ = TypeVar("States_", ModelState, DataState)

_states = sa.table("states", sa.column("model"), sa.column("seq"), sa.column("form"), sa.column("body", sa.LargeBinary))
_STORE_AFTER = 200  # events folded before it is worth storing the state again


class States:
    """The folded state of each model; safe to share between threads.

    Parameters
    ----------
    timeline : where the events are.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._models: dict[str, ModelState] = {}
        self._data: DataState | None = None
        self._folded: dict[str, int] = {}
        self._heads: dict[str, int] = {}
        self._lock = threading.RLock()

    def model(self, name: str) -> ModelState:
        """Return the state of a model as of its newest event. Do not change it.

        Raises
        ------
        NotFound
            If nothing ever happened to a model of this name.
        """
        with self._lock:
            head = self.timeline.head()[0]  # asked before reading: what comes in between is read the next time
            if name in self._models and self._heads.get(name) == head:
                return self._models[name]
            state = self._models.get(name) or self._load(name, ModelState) or ModelState(name=name)
            news = self._news(name, state.seq)
            if (first := next(news, None)) is not None:
                state = fold(_own(state), chain([first], news))
            if not state.seq:
                raise NotFound(f"There is no model {name!r} here.", todo="`orrery models` lists them.")
            self._models[name], self._heads[name] = state, head
            self._store(name, state)
            return state

    def held(self, name: str) -> ModelState:
        """Return the state of a model as it was folded last, without looking for news."""
        return self._models.get(name) or self.model(name)

    def data(self) -> DataState:
        """Return the state of all datasets. Do not change it."""
        with self._lock:
            head = self.timeline.head()[0]
            if self._data is not None and self._heads.get("") == head:
                return self._data
            state = self._data or self._load("", DataState) or DataState()
            news = self._news("", state.seq)
            if (first := next(news, None)) is not None:
                state = fold_data(_own(state), chain([first], news))
            self._data, self._heads[""] = state, head
            self._store("", state)
            return state

    def at(self, name: str, instant: datetime) -> ModelState:
        """Return the state of a model as it was at an instant, from the events that had occurred by then."""
        return fold(ModelState(name=name), self.timeline.read(name, until=instant))

    def rebuild(self) -> None:
        """Throw every stored state away."""
        with self._lock:
            with self.timeline.engine.begin() as connection:
                connection.execute(sa.delete(_states))
            self._models, self._data, self._folded, self._heads = {}, None, {}, {}

    def _load(self, name: str, kind: type[States_]) -> States_ | None:
        with self.timeline.reading() as connection:
            row = connection.execute(
                sa.select(_states.c.body, _states.c.seq, _states.c.form).where(_states.c.model == name)
            ).first()
        if row is None or row.form != FORM:
            return None
        try:
            state = msgspec.msgpack.decode(row.body, type=kind)
        except msgspec.DecodeError:
            return None
        return state

    def _news(self, name: str, after: int) -> Iterator[Event]:
        """Read on, and count: a state is stored again for its own events, not for what happened to other models."""
        for event in self.timeline.read(name, after=after):
            self._folded[name] = self._folded.get(name, 0) + 1
            yield event

    def _store(self, name: str, state: ModelState | DataState) -> None:
        if self._folded.get(name, 0) < _STORE_AFTER:
            return
        body = msgspec.msgpack.encode(state)
        with self.timeline.engine.begin() as connection:
            connection.execute(sa.delete(_states).where(_states.c.model == name))
            connection.execute(sa.insert(_states).values(model=name, seq=state.seq, form=FORM, body=body))
        self._folded[name] = 0


def _own(state: States_) -> States_:
    """Return the state with containers of its own: who still holds the one before goes on seeing what it saw."""
    held = {name: getattr(state, name) for name in state.__struct_fields__}
    return msgspec.structs.replace(state, **{name: dict(one) for name, one in held.items() if isinstance(one, dict)})
