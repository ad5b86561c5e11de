"""What all protocols share: who answers a request, the answer, and the challengers that see the request too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from orrery.data.pseudonyms import Pseudonyms
from orrery.errors import NotFound, NotUnderstood, OrreryError
from orrery.serving.assignment import Slot
from orrery.serving.explaining import Explaining
from orrery.serving.fleet import Fleet
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.passes import ANYBODY, Guest, Passes
from orrery.serving.prediction import Now, Predictor, microseconds
from orrery.serving.refusals import Unavailable
from orrery.serving.requests import Answer, Fields, Request
from orrery.serving.route import Route
from orrery.types import parse_instant

SHADOW_PATIENCE = 120.0


class Service:
    """Answers requests, whatever protocol they came in.

    Parameters
    ----------
    fleet, predictor, metrics : what answers, and what counts.
    explaining : says why.
    now : the time.
    version : of orrery, for the metadata.
    key : of the home folder, where a token must be shown; empty where none must.
    replay : whether a caller may say the time of a request.
    pseudonyms : returns what makes them; asked once, when a model with personal columns is.
    """

    def __init__(
        self,
        fleet: Fleet,
        predictor: Predictor,
        explaining: Explaining,
        metrics: Metrics,
        now: Now,
        *,
        version: str,
        key: str = "",
        replay: bool = False,
        pseudonyms: Callable[[], Pseudonyms] | None = None,
    ) -> None:
        self.passes = Passes(fleet, key)
        self.fleet, self.metrics, self.now = fleet, metrics, now
        self.version, self.replay = version, replay
        self._predictor, self._explaining = predictor, explaining
        self._pseudonyms = pseudonyms
        self._made: Pseudonyms | None = None

    def models(self, environment: str, guest: Guest = ANYBODY) -> list[str]:
        """Return the names of the models that are served in an environment, to who asks."""
        return [model for place, model in self.fleet.routes if place == environment and guest.sees(model)]

    def find(self, environment: str, name: str, version: str = "", guest: Guest = ANYBODY) -> Route:
        """Return the route to a model.

        Parameters
        ----------
        guest : who asks.
        version : the one that must answer; empty for any.

        Raises
        ------
        NotFound
            If there is no such model, or the version that is named does not answer.
        Unavailable
            If nothing was assigned yet.
        """
        guest.check(name, environment)
        route = self.fleet.routes.get((environment, name))
        if route is None:
            if self.fleet.assignment is None:
                raise Unavailable("This server was not told yet what to serve.", todo="Send it again in a moment.")
            raise NotFound(f"{name!r} is not served in {environment}.")
        if not version:
            return route
        if (pinned := route.pinned(version)) is None:
            known = " and ".join(map(str, route.versions()))
            word = f"Version {known} of {name} answers" if not route.arms else f"Versions {known} of {name} answer"
            raise NotFound(f"{word} in {environment}, and no other.")
        return pinned

    def at(self, fields: Fields) -> int:
        """Return the instant of a request, in microseconds since 1970, from its header fields or metadata."""
        if self.replay and (given := fields.get("x-orrery-at")):
            return microseconds(parse_instant(given))
        return self.now()

    def conceal(self, slot: Slot, request: Request) -> None:
        """Put pseudonyms in place of personal values, and leave out what no model has seen, before all else.

        Who was erased is nobody: the request is answered, and nothing says whose it was.

        Raises
        ------
        Unavailable
            If the key of the pseudonyms cannot be read: nothing is answered, or written down, in the clear.
        """
        columns = request.columns
        for name, mark in slot.personal.items():
            if name not in columns:
                continue
            if mark == "encrypted":
                del columns[name]
            else:
                names = self._names()
                pseudonyms = [names.of(value) for value in columns[name]]
                if graves := self.fleet.assignment.graves if self.fleet.assignment is not None else None:
                    pseudonyms = [one if one is None or names.grave(one) not in graves else None for one in pseudonyms]
                columns[name] = pseudonyms

    def _names(self) -> Pseudonyms:
        if self._made is None:
            try:
                assert self._pseudonyms is not None
                self._made = self._pseudonyms()
            except OrreryError as error:
                say(str(error))
                raise Unavailable("The key of personal data is not there.", todo="Send it again later.") from error
        return self._made

    async def answer(self, route: Route, request: Request, at: int, *, wait: bool) -> Answer:
        """Return the answer, which is written down by then, and let the challengers see the request.

        Parameters
        ----------
        route : of the version that answers this very request (see :meth:`Route.pick`).
        at : instant of the request, microseconds since 1970.
        wait : whether to return only when every challenger has answered, too (see :func:`waits`).

        Raises
        ------
        OrreryError
            As :meth:`Predictor.answer`; and as :class:`Explaining` where the request wants to know why.
        """
        if not request.explain:
            return await self._answer(route, request, at, wait)
        with self._explaining.place(request):
            answer = await self._answer(route, request, at, wait)
            answer.explanation = await self._explaining.explain(answer)
            return answer

    async def _answer(self, route: Route, request: Request, at: int, wait: bool) -> Answer:
        route.hold()
        try:
            answer = await (route.trial or self._predictor).answer(route, request, at)
            lanes = route.lanes if route.trial is None else route.beside(answer)
            if wait and lanes:
                await asyncio.wait([lane.put(request, at) for lane in lanes], timeout=SHADOW_PATIENCE)
            else:
                for lane in lanes:  # they begin when this task gives way: by then the answer has left
                    lane.offer(request, at)
            return answer
        finally:
            route.release()


def explains(query: str) -> bool:
    """Say whether the query of an address asks to know why.

    Raises
    ------
    NotUnderstood
        If ``explain`` is neither true nor false.

    Examples
    --------
    >>> explains("explain=true"), explains("explain=false&x=1"), explains("")
    (True, False, False)
    """
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "explain":
            if value not in ("true", "false", ""):
                raise NotUnderstood(f"explain is {value!r:.40}.", todo="Ask with ?explain=true.")
            return value != "false"
    return False


def waits(fields: Fields) -> bool:
    """Say whether a caller wants its answer only when the challengers have seen the request."""
    return "wait-shadow" in fields.get("prefer", "")
