"""Carries out assignments: which models run, and who answers where, without losing a request on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from itertools import groupby

from msgspec.structs import replace

from orrery.serving.assignment import Assignment, Slot
from orrery.serving.channel import Spawn
from orrery.serving.contract import Checker
from orrery.serving.metrics import Metrics
from orrery.serving.models import Model
from orrery.serving.prediction import Predictor
from orrery.serving.route import Route, Share, models_of
from orrery.serving.shadow import Lane

GRACE = 30.0
SHARING = ("canary", "arm")
"""Roles that answer a share of the traffic."""


class Fleet:
    """The model processes and the routes to them.

    A route changes in one step, once its new champion is ready; until then, and for as long as the new champion cannot
    be started, the old one answers. What no route needs any more ends when all that it was asked is answered.

    Parameters
    ----------
    spawn : starts a model process.
    threads : executor of one thread for that.
    predictor : what the challengers' predictions go through.
    changed : called when :attr:`applied` or :attr:`failed` may have changed.
    """

    def __init__(
        self, spawn: Spawn, threads: Executor, predictor: Predictor, metrics: Metrics, changed: Callable[[], None]
    ) -> None:
        self._spawn, self._threads, self._predictor, self._metrics = spawn, threads, predictor, metrics
        self._changed = changed
        self._models: dict[tuple[str, str, str], Model] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._settling: set[tuple[str, str]] = set()
        self.routes: dict[tuple[str, str], Route] = {}
        """Environment and model -> who answers."""
        self.assignment: Assignment | None = None
        """The assignment that is being carried out, or is in force."""
        self.applied = -1
        """Number of the last assignment that is in force: every version in it is ready or has failed."""

    @property
    def failed(self) -> dict[str, str]:
        """Slots of the present assignment whose version cannot be started, and why."""
        slots = self.assignment.slots if self.assignment else []
        return {slot.key: model.failure for slot in slots if (model := self._models[slot.process]).failure}

    @property
    def ready(self) -> bool:
        """Whether there is an assignment and every champion answers."""
        return self.assignment is not None and all(route.model.ready.is_set() for route in self.routes.values())

    def apply(self, assignment: Assignment) -> None:
        """Begin to carry out an assignment; what is left of the one before is dropped."""
        for task in self._tasks:
            task.cancel()
        self.assignment = assignment
        for slot in assignment.slots:
            if slot.process not in self._models:
                self._models[slot.process] = Model(slot, self._spawn, self._threads, self._metrics)
        groups = {route: list(slots) for route, slots in groupby(sorted(assignment.slots, key=_route), _route)}
        for route in self.routes.keys() - groups.keys():
            del self.routes[route]
        self._settling = set(groups)
        self._tasks = [asyncio.create_task(self._settle(route, slots)) for route, slots in groups.items()]
        self._retire()
        self._note()

    async def stop(self) -> None:
        """End all processes, once the challengers have seen what is queued; wait five seconds for that."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._leaving, *(model.stop(5.0) for model in self._models.values()))

    async def _settle(self, name: tuple[str, str], slots: list[Slot]) -> None:
        champion = self._models[next(slot for slot in slots if slot.role == "champion").process]
        if name in self.routes:
            await champion.settled.wait()
        if name not in self.routes or champion.ready.is_set():
            self._switch(name, slots)
        for slot in slots:
            await self._models[slot.process].settled.wait()
        if any(slot.role in SHARING for slot in slots) and self.routes[name].model is champion:
            self._switch(name, slots)
        self._settling.discard(name)
        self._note()
        if self.routes[name].model is not champion:
            await champion.ready.wait()
            self._switch(name, slots)
        self._changed()

    def _switch(self, name: tuple[str, str], slots: list[Slot]) -> None:
        """Put a route in force; a version that is to answer a share does so from when it is ready."""
        old = self.routes.get(name)
        before = [lane for route in (old, *old.arms) for lane in route.lanes] if old else []
        kept = {(lane.slot.key, lane.slot.role): lane for lane in before}

        def lane_of(slot: Slot) -> Lane:
            model, lane = self._models[slot.process], kept.get((slot.key, slot.role))
            if lane is None or lane.slot != slot or lane.model is not model:
                lane = Lane(slot, model, Checker(slot.contract), self._predictor.see, self._predictor.shed)
            return lane

        def route_of(slot: Slot, lanes: list[Lane], share: Share | None = None) -> Route:
            return Route(slot, self._models[slot.process], Checker(slot.contract), lanes, share)

        champion = next(slot for slot in slots if slot.role == "champion")
        beside = [lane_of(slot) for slot in slots if slot.role in ("shadow", "guard")]
        sharing = [slot for slot in slots if slot.role in SHARING and self._models[slot.process].ready.is_set()]
        # Champion and canary see each other's requests afterwards: what one did not answer it is compared on.
        seen = [lane_of(replace(slot, role="shadow")) for slot in sharing if slot.role == "canary"]
        watching = lane_of(replace(champion, role="shadow")) if seen else None
        arms = [
            route_of(
                slot,
                [*beside, watching] if watching and slot.role == "canary" else [],
                Share(slot.share, slot.salt or slot.key, slot.unit),
            )
            for slot in sharing
        ]
        self.routes[name] = replace(route_of(champion, [*beside, *seen]), arms=tuple(arms))
        self._retire()

    def _retire(self) -> None:
        used = {model for route in self.routes.values() for model in models_of(route)}
        wanted = {slot.process for slot in self.assignment.slots} if self.assignment else set()
        for key, model in list(self._models.items()):
            if key not in wanted and id(model) not in used:
                del self._models[key]
                self._background(model.stop(GRACE))

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _note(self) -> None:
        if not self._settling and self.assignment is not None:
            self.applied = self.assignment.seq
        self._changed()


def _route(slot: Slot) -> tuple[str, str]:
    return slot.route
