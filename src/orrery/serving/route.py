"""Who answers a request: the champion, or a version that answers a share of the traffic.

A share is sticky. The unit of a request (a column such as the customer, or else the request's id) and the salt of the
trial are hashed to a number from 0 to 1, and who is below the share is in it. The hash is BLAKE2b, so that every
replica, every restart and whoever reads the log agrees; a share that grows keeps everybody who was in it; and another
salt draws anew.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from orrery.serving.assignment import Slot
from orrery.serving.contract import Checker
from orrery.serving.gather import Line
from orrery.serving.models import Model
from orrery.serving.probation import Trial
from orrery.serving.requests import Answer, Request
from orrery.serving.shadow import Lane

_WHOLE = 1 << 64


class Share:
    """The part of the units that a version answers.

    Parameters
    ----------
    share : from 0 to 1.
    salt : what makes the draw of one trial another than that of the next.
    unit : input column whose value stays with one version; empty: every request is its own unit.

    Examples
    --------
    >>> small, large = Share(0.1, "m/3"), Share(0.3, "m/3")
    >>> drawn = [unit for unit in range(1000) if small.holds_unit(unit)]
    >>> len(drawn), all(large.holds_unit(unit) for unit in drawn)
    (99, True)
    """

    def __init__(self, share: float, salt: str, unit: str = "") -> None:
        self.unit = unit
        self._below = round(share * _WHOLE)
        self._salted = blake2b(salt.encode() + b"\0", digest_size=8)

    def holds(self, request: Request) -> bool:
        """Say whether a request is in it; of several rows the first decides, and without a unit the request's id."""
        values = request.columns.get(self.unit) if self.unit else None
        value = values[0] if values else None
        return self.holds_unit(request.id if value is None else value)

    def holds_unit(self, unit: object) -> bool:
        """Say whether a unit is in it; a number is the same however it is written."""
        if type(unit) is float and unit.is_integer():
            unit = int(unit)
        hashed = self._salted.copy()
        hashed.update(str(unit).encode(errors="replace"))
        return int.from_bytes(hashed.digest(), "little") < self._below


class Route(msgspec.Struct):
    """Who answers in one environment for one model, and who rides along; replaced as a whole.

    Parameters
    ----------
    slot, model, checker : who answers: the champion, or in one of ``arms`` another version.
    lanes : the challengers that see afterwards what it was asked.
    share : the part of the units that it answers; nothing for the champion, who answers the rest.
    arms : versions that answer a share, the first that holds a unit before the others.
    trial : watches a new version, and has the version before answer where it fails; nothing for one that is proven.
    line : the requests that wait for who answers here.
    """

    slot: Slot
    model: Model
    checker: Checker
    lanes: list[Lane]
    share: Share | None = None
    arms: tuple[Route, ...] = ()
    trial: Trial | None = None
    line: Line = msgspec.field(default_factory=Line)
    labels: tuple[str, str, str, str] = ("", "", "", "")
    """Who answers, for the metrics: model, environment, version and role."""

    def __post_init__(self) -> None:
        self.labels = self.slot.model, self.slot.environment, str(self.slot.version), self.slot.role

    @property
    def columns(self) -> dict[str, Any]:
        """The model's columns and their types, in order."""
        return self.slot.columns or self.model.columns

    def pick(self, request: Request) -> Route:
        """Return the route of the version that answers a request; this one where nobody else answers a share."""
        for arm in self.arms:
            if arm.share is not None and arm.share.holds(request):
                return arm
        return self

    def pinned(self, version: str) -> Route | None:
        """Return the route of a version that a request names, whoever its share would be answered by."""
        for route in (self, *self.arms):
            if version == str(route.slot.version):
                return msgspec.structs.replace(route, arms=())
        return None

    def versions(self) -> list[int]:
        """Return the versions that answer."""
        return [self.slot.version, *(arm.slot.version for arm in self.arms)]

    def beside(self, answer: Answer) -> list[Lane]:
        """Return the challengers that are yet to see a request: not the one that answered it in place of another."""
        return [lane for lane in self.lanes if lane.slot.version != answer.slot.version]

    def hold(self) -> None:
        """Keep the challengers until :meth:`release`, because they will be shown a request."""
        for lane in self.lanes:
            lane.model.hold()

    def release(self) -> None:
        """Undo one :meth:`hold`."""
        for lane in self.lanes:
            lane.model.release()


def models_of(route: Route) -> set[Any]:
    """Return the models that a route needs, as their ids."""
    found = {id(route.model), *(id(lane.model) for lane in route.lanes)}
    if route.trial is not None:
        found |= models_of(route.trial.before)
    return found.union(*(models_of(arm) for arm in route.arms)) if route.arms else found
