"""The routes of the inference server, on granian's RSGI interface.

::

    /v2  /v2/health/live  /v2/health/ready                      Open Inference Protocol, version 2
    /v2/models  /v2/models/M[/versions/V][/ready|/infer]
    /invocations  /models/M/invocations  /ping  /health         MLflow's scoring server
    /models/M/predict                                           {"column": value}, or a list of such
    /metrics                                                    Prometheus

All of them also below ``/env/ENVIRONMENT``; without that it is production.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import Any

import msgspec
from granian.rsgi import HTTPProtocol, ProtocolClosed, ProtocolError, Scope  # type: ignore[attr-defined]

from orrery.errors import ContractBroken, NotFound, NotUnderstood, OrreryError
from orrery.serving import forms, open_inference
from orrery.serving.fleet import Fleet
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.prediction import Now, Predictor, microseconds
from orrery.serving.refusals import ModelFailed, Overloaded, TooLarge, Unavailable, WrongKind
from orrery.serving.requests import Answer, Request
from orrery.serving.route import Route
from orrery.types import PRODUCTION, parse_instant

MAX_BODY = 32 << 20
SHADOW_PATIENCE = 120.0

Headers = list[tuple[str, str]]
Found = tuple[Request, list[str] | None]

_JSON = ("content-type", "application/json")
_STATUS: tuple[tuple[type[OrreryError], int], ...] = (
    (TooLarge, 413),
    (WrongKind, 415),
    (ContractBroken, 422),
    (NotUnderstood, 400),
    (NotFound, 404),
    (Overloaded, 429),
    (Unavailable, 503),
    (ModelFailed, 500),
)


class Server:
    """Answers HTTP requests.

    Parameters
    ----------
    fleet, predictor, metrics : what answers.
    now : the time.
    replay : whether the header ``X-Orrery-At`` says the time of a request.
    version : of orrery, for the metadata.
    """

    def __init__(
        self, fleet: Fleet, predictor: Predictor, metrics: Metrics, now: Now, replay: bool, version: str
    ) -> None:
        self._fleet, self._predictor, self._metrics = fleet, predictor, metrics
        self._now, self._replay, self._version = now, replay, version

    async def __rsgi__(self, scope: Scope, proto: HTTPProtocol) -> None:
        """Answer one request."""
        try:
            parts = scope.path.strip("/").split("/")
            environment = PRODUCTION
            if parts[0] == "env" and len(parts) > 1:
                environment, parts = parts[1], parts[2:] or [""]
            verb = parts[-1]
            if verb in ("infer", "invocations", "predict") and scope.method == "POST":
                await self._predict(scope, proto, environment, parts)
            else:
                self._tell(scope, proto, environment, parts)
        except (ProtocolClosed, ProtocolError):  # the caller has gone
            return
        except OrreryError as error:
            self._refuse(proto, error, ("", "", "", ""))
        except Exception as error:
            say(traceback.format_exc())
            self._refuse(proto, error, ("", "", "", ""))

    async def _predict(self, scope: Scope, proto: HTTPProtocol, environment: str, parts: list[str]) -> None:
        body = await _body(scope, proto)
        began = time.perf_counter()
        route = self._find(environment, parts)
        slot = route.slot
        labels = (slot.model, environment, str(slot.version), slot.role)
        try:
            headers = scope.headers
            request, wanted = _read(parts[-1], headers.get("content-type", ""), body, headers.get("x-request-id"))
            route = route.pick(request)
            slot = route.slot
            labels = (slot.model, environment, str(slot.version), slot.role)
            open_inference.check(wanted, slot)
            at = self._at(headers)
            wait = "wait-shadow" in headers.get("prefer", "")
            route.hold()
            try:
                answer = await self._predictor.answer(route, request, at)
                data = _write(parts[-1], answer, wanted)
                if wait and route.lanes:
                    await asyncio.wait([lane.put(request, at) for lane in route.lanes], timeout=SHADOW_PATIENCE)
                proto.response_bytes(200, [_JSON, ("x-request-id", request.id)], data)
                if not wait:
                    for lane in route.lanes:
                        lane.offer(request, at)
            finally:
                route.release()
        except OrreryError as error:
            self._refuse(proto, error, labels)
        else:
            self._metrics.requests.add((*labels, "200"))
            self._metrics.durations.add((slot.model, environment), time.perf_counter() - began)

    def _find(self, environment: str, parts: list[str]) -> Route:
        """Return the route that a path names; where it names a version, that version alone.

        Raises
        ------
        NotFound
            If there is none, or the version that is named does not answer.
        Unavailable
            If nothing was assigned yet.
        """
        version = ""
        match parts:
            case ["v2", "models", name] | ["v2", "models", name, "infer" | "ready"]:
                pass
            case ["v2", "models", name, "versions", version]:
                pass
            case ["v2", "models", name, "versions", version, "infer" | "ready"]:
                pass
            case ["models", name, "invocations" | "predict"]:
                pass
            case ["invocations"]:
                name = self._only(environment)
            case _:
                raise NotFound(f"There is nothing at /{'/'.join(parts)}.")
        route = self._fleet.routes.get((environment, name))
        if route is None:
            if self._fleet.assignment is None:
                raise Unavailable("This server was not told yet what to serve.", todo="Send it again in a moment.")
            raise NotFound(f"{name!r} is not served in {environment}.")
        if not version:
            return route
        if (pinned := route.pinned(version)) is None:
            known = " and ".join(map(str, route.versions()))
            word = f"Version {known} of {name} answers" if not route.arms else f"Versions {known} of {name} answer"
            raise NotFound(f"{word} in {environment}, and no other.")
        return pinned

    def _only(self, environment: str) -> str:
        """Return the one model that is served in an environment."""
        served = [model for place, model in self._fleet.routes if place == environment]
        if len(served) > 1:
            what = f"{len(served)} models are served in {environment}."
            raise NotFound(what, todo="Send it to /models/NAME/invocations.")
        return served[0] if served else "(no model)"

    def _tell(self, scope: Scope, proto: HTTPProtocol, environment: str, parts: list[str]) -> None:
        """Answer what is not a prediction."""
        if scope.method not in ("GET", "HEAD"):
            _json(proto, 405, {"error": f"{scope.method} is not understood at {scope.path}."}, [("allow", "GET")])
            return
        fleet = self._fleet
        match parts:
            case ["v2"]:
                _json(proto, 200, {"name": "orrery", "version": self._version, "extensions": []})
            case ["v2", "health", "live"]:
                _json(proto, 200, {"live": True})
            case ["v2", "health", "ready"] | ["ping"] | ["health"]:
                _json(proto, 200 if fleet.ready else 503, {"ready": fleet.ready})
            case ["v2", "models"]:
                _json(proto, 200, {"models": [model for place, model in fleet.routes if place == environment]})
            case ["metrics"]:
                proto.response_str(200, [("content-type", "text/plain; version=0.0.4")], self._metrics.text())
            case ["v2", "models", _, "ready"] | ["v2", "models", _, "versions", _, "ready"]:
                route = self._find(environment, parts)
                ready = route.model.ready.is_set()
                _json(proto, 200 if ready else 503, {"name": route.slot.model, "ready": ready})
            case ["v2", "models", _] | ["v2", "models", _, "versions", _]:
                route = self._find(environment, parts)
                _json(proto, 200, open_inference.describe(route.slot, route.model.columns))
            case [*_, "infer" | "invocations" | "predict"]:
                _json(proto, 405, {"error": "Predictions are asked for by POST."}, [("allow", "POST")])
            case _:
                raise NotFound(f"There is nothing at {scope.path}.")

    def _at(self, headers: Any) -> int:
        if self._replay and (given := headers.get("x-orrery-at")):
            return microseconds(parse_instant(given))
        return self._now()

    def _refuse(self, proto: HTTPProtocol, error: Exception, labels: tuple[str, str, str, str]) -> None:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        known = isinstance(error, OrreryError)
        headers = [("retry-after", "1")] if status in (429, 503) else []
        if status == 413:  # the rest of the body is not read, so nothing can follow on this connection
            headers = [("connection", "close")]
        self._metrics.requests.add((*labels, str(status)))
        if status == 500:
            say(f"{'/'.join(labels)} {error!r}")
        _json(proto, status, {"error": str(error) if known else "This server failed; its log says how."}, headers)


def _read(verb: str, content_type: str, body: bytes, given_id: str | None) -> Found:
    if verb == "infer":
        return open_inference.read(body, given_id)
    if verb == "invocations":
        return forms.read_invocations(content_type, body, given_id), None
    return forms.read_plain(body, given_id), None


def _write(verb: str, answer: Answer, wanted: list[str] | None) -> bytes:
    if verb == "infer":
        return open_inference.write(answer, wanted)
    return forms.write_invocations(answer) if verb == "invocations" else forms.write_plain(answer)


async def _body(scope: Scope, proto: HTTPProtocol) -> bytes:
    length = scope.headers.get("content-length")
    if length is not None:
        if int(length) > MAX_BODY:
            raise TooLarge(f"The request has {length} bytes.", todo=f"Send at most {MAX_BODY}.")
        return await proto()
    body = bytearray()
    async for chunk in proto:
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLarge(f"The request has more than {MAX_BODY} bytes.", todo="Send less at once.")
    return bytes(body)


def _json(proto: HTTPProtocol, status: int, content: dict[str, Any], headers: Headers | None = None) -> None:
    proto.response_bytes(status, [_JSON, *(headers or ())], msgspec.json.encode(content))
