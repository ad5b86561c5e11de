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
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.models import Model
from orrery.serving.prediction import Predictor
from orrery.serving.probation import Memory, Trial
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
    memory : what was taken back.
    changed : called when :attr:`applied` or :attr:`failed` may have changed.
    """

    def __init__(
        self,
        spawn: Spawn,
        threads: Executor,
        predictor: Predictor,
        metrics: Metrics,
        memory: Memory,
        changed: Callable[[], None],
    ) -> None:
        self._spawn, self._threads, self._predictor, self._metrics = spawn, threads, predictor, metrics
        self._memory, self._changed = memory, changed
        self._trials: dict[tuple[str, str, str], Trial] = {}
        self._proven: set[tuple[str, str, str]] = set()
        self._slots: list[Slot] = []
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
        slots = self._slots
        return {slot.key: model.failure for slot in slots if (model := self._models[slot.process]).failure}

    @property
    def taken(self) -> dict[str, dict[str, str]]:
        """Slots that this server took back by itself: since when they were tried, in which role, and why not."""
        found = self._memory.taken
        return {key: {"since": one.since, "role": one.role, "why": one.why} for key, one in found.items()}

    def told(self, keys: list[str]) -> None:
        """Note that the control plane knows what was taken back."""
        if any(not taken.reported for taken in self._memory.taken.values()):
            self._memory.reported(keys)

    @property
    def ready(self) -> bool:
        """Whether there is an assignment and every champion answers."""
        return self.assignment is not None and all(route.model.ready.is_set() for route in self.routes.values())

    def apply(self, assignment: Assignment) -> None:
        """Begin to carry out an assignment; what is left of the one before is dropped."""
        for task in self._tasks:
            task.cancel()
        if self.assignment is not None and assignment.erasures != self.assignment.erasures:
            self._predictor.begin_journal()
        self.assignment = assignment
        self._memory.forget(assignment.slots)
        groups = {
            route: self._in_force(list(slots)) for route, slots in groupby(sorted(assignment.slots, key=_route), _route)
        }
        self._slots = [slot for slots in groups.values() for slot in slots]
        for slot in self._slots:
            if slot.process not in self._models:
                self._models[slot.process] = Model(slot, self._spawn, self._threads, self._metrics)
        trials = {_trial(slot) for slot in self._slots}
        self._trials = {trial: one for trial, one in self._trials.items() if trial in trials}
        self._proven &= trials
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

        def route_of(slot: Slot, lanes: list[Lane], share: Share | None = None, before: Slot | None = None) -> Route:
            route = Route(slot, self._models[slot.process], Checker(slot.contract), lanes, share)
            if before is not None:
                route.trial = self._trial(slot, route_of(replace(before, role="standby"), []))
            return route

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
                champion,
            )
            for slot in sharing
        ]
        self.routes[name] = replace(
            route_of(champion, [*beside, *seen], before=_before(champion, slots)), arms=tuple(arms)
        )
        self._retire()

    def _trial(self, slot: Slot, before: Route) -> Trial | None:
        """Return the trial of a version that is on probation: the one that is running already, or a new one."""
        if slot.probation is None or _trial(slot) in self._proven:
            return None
        trial = self._trials.get(_trial(slot))
        if trial is None:
            trial = Trial(slot, before, self._predictor, self._take_back, self._passed)
            self._trials[_trial(slot)] = trial
        trial.before = before
        return trial

    def _take_back(self, slot: Slot, why: str) -> None:
        say(f"{slot.key} ({slot.role}) is taken back. {why}")
        self._metrics.taken_back.add((slot.model, slot.environment, str(slot.version), slot.role))
        self._memory.add(slot, why)
        if self.assignment is not None:
            self.apply(self.assignment)

    def _passed(self, slot: Slot) -> None:
        self._proven.add(_trial(slot))
        if slot.route in self.routes:
            self._switch(slot.route, [one for one in self._slots if one.route == slot.route])

    def _in_force(self, slots: list[Slot]) -> list[Slot]:
        """Return the slots of a route without what was taken back; for a champion, the version before answers."""
        champion = next(slot for slot in slots if slot.role == "champion")
        if self._memory.holds(champion) and (before := _before(champion, slots)) is not None:
            slots = [replace(before, role="champion"), *(one for one in slots if one not in (champion, before))]
        return [slot for slot in slots if slot.role == "champion" or not self._memory.holds(slot)]

    def _retire(self) -> None:
        used = {model for route in self.routes.values() for model in models_of(route)}
        wanted = {slot.process for slot in self._slots}
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


def _trial(slot: Slot) -> tuple[str, str, str]:
    return slot.key, slot.role, slot.since


def _before(champion: Slot, slots: list[Slot]) -> Slot | None:
    """Return the version that answers where a new champion fails, if it is there."""
    if champion.probation is None:
        return None
    return next((slot for slot in slots if slot is not champion and slot.version == champion.probation.before), None)
