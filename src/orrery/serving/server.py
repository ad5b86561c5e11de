"""The routes of the inference server.

::

    /v2  /v2/health/live  /v2/health/ready                      Open Inference Protocol, version 2
    /v2/models  /v2/models/M[/versions/V][/ready|/infer]
    /invocations  /models/M/invocations  /ping  /health         MLflow's scoring server
    /version
    /models/M/predict                                           {"column": value}, a list of such, or Arrow
    ?explain=true                                               on any of these that answers JSON: and why
    /metrics                                                    Prometheus
    /openapi.json                                               what is above, for programs

All of them also below ``/env/ENVIRONMENT``; without that it is production.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from orrery.errors import NotFound, NotUnderstood, OrreryError
from orrery.serving import invocations, open_inference, openapi, plain, trace
from orrery.serving.caller import caller_of
from orrery.serving.door import Door, packed
from orrery.serving.exchange import Exchange
from orrery.serving.log import say
from orrery.serving.passes import ANYBODY, Guest
from orrery.serving.refusals import code_of, said
from orrery.serving.requests import JSON, Given, Headers, Read
from orrery.serving.route import Route
from orrery.serving.service import Service, explains, waits
from orrery.types import PRODUCTION

READS: dict[str, Read] = {"infer": open_inference.read, "invocations": invocations.read, "predict": plain.read}
"""The last word of a path that predicts, and who understands what is sent there."""

_NOBODY = ("", "", "", "")
_HEALTH = {("v2", "health", "live"), ("v2", "health", "ready"), ("ping",), ("health",)}
"""What is answered without a token, too."""
_CLOSE = ("connection", "close")


class Server:
    """Answers HTTP requests.

    Parameters
    ----------
    service : answers them.
    door : lets requests in.
    metrics : returns what ``/metrics`` says.
    """

    def __init__(self, service: Service, door: Door, metrics: Callable[[], str]) -> None:
        self._service, self._door, self._metrics = service, door, metrics

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request."""
        verb = ""
        try:
            parts = exchange.path.strip("/").split("/")
            environment = PRODUCTION
            if parts[0] == "env" and len(parts) > 1:
                environment, parts = parts[1], parts[2:] or [""]
            verb = parts[-1]
            guest = ANYBODY if tuple(parts) in _HEALTH else self._service.passes.guest(exchange.headers)
            if verb in READS and exchange.method == "POST":
                await self._predict(exchange, environment, parts, guest)
            else:
                self._tell(exchange, environment, parts, guest)
        except OrreryError as error:
            self._refuse(exchange, error, verb, _NOBODY)
        except Exception as error:
            say(traceback.format_exc())
            self._refuse(exchange, error, verb, _NOBODY)

    async def _predict(self, exchange: Exchange, environment: str, parts: list[str], guest: Guest) -> None:
        fields, verb, service = exchange.headers, parts[-1], self._service
        with self._door.enter() as visit:
            given = Given(await visit.body(exchange), fields)
            began = time.perf_counter()
            route = self._find(environment, parts, guest)
            try:
                asked = READS[verb](given, route.slot, route.columns)
                if route.slot.personal:
                    service.conceal(route.slot, asked.request)
                asked.request.caller = caller_of(fields, guest)
                if exchange.query and explains(exchange.query):
                    asked.request.explain = True
                if asked.request.explain and not asked.explains:
                    raise NotUnderstood("An answer in Arrow's format has no explanation.", todo="Accept JSON.")
                route = route.pick(asked.request)
                answer = await service.answer(route, asked.request, service.at(fields), wait=waits(fields))
                headers, content = asked.write(answer)
                headers.append(("x-request-id", asked.request.id))
                if self._door.closing:
                    headers.append(_CLOSE)
                _respond(exchange, headers, content)
            except OrreryError as error:
                self._refuse(exchange, error, verb, route.labels)
            else:
                labels = route.labels
                service.metrics.requests.add((*labels, "200"))
                if not asked.request.explain:  # what explanations take is told apart
                    service.metrics.durations.add(labels[:2], time.perf_counter() - began)

    def _find(self, environment: str, parts: list[str], guest: Guest) -> Route:
        """Return the route that a path names; where it names a version, that version alone.

        Raises
        ------
        NotFound, Unavailable
            As :meth:`Service.find`, and for a path that names nothing.
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
                name = self._only(environment, guest)
            case _:
                raise NotFound(f"There is nothing at /{'/'.join(parts)}.")
        return self._service.find(environment, name, version, guest)

    def _only(self, environment: str, guest: Guest) -> str:
        """Return the one model that is served in an environment."""
        served = self._service.models(environment, guest)
        if len(served) > 1:
            what = f"{len(served)} models are served in {environment}."
            raise NotFound(what, todo="Send it to /models/NAME/invocations.")
        return served[0] if served else "(no model)"

    def _tell(self, exchange: Exchange, environment: str, parts: list[str], guest: Guest) -> None:
        """Answer what is not a prediction."""
        if exchange.method not in ("GET", "HEAD"):
            allowed = "POST" if parts[-1] in READS else "GET, HEAD"
            what = f"{exchange.method} is not understood at {exchange.path}."
            _json(exchange, 405, {"error": what}, [("allow", allowed)])
            return
        fleet, service = self._service.fleet, self._service
        match parts:
            case ["v2"]:
                extensions = open_inference.EXTENSIONS
                _json(exchange, 200, {"name": "orrery", "version": service.version, "extensions": extensions})
            case ["v2", "health", "live"]:
                _json(exchange, 200, {"live": True})
            case ["v2", "health", "ready"] | ["ping"] | ["health"]:
                ready = fleet.ready and not self._door.closing
                _json(exchange, 200 if ready else 503, {"ready": ready})
            case ["v2", "models"]:
                _json(exchange, 200, {"models": service.models(environment, guest)})
            case ["version"]:
                exchange.answer(200, [("content-type", "text/plain")], service.version.encode())
            case ["openapi.json"]:
                _json(exchange, 200, openapi.document(service.version))
            case ["metrics"] if guest.models is None:  # it names all models
                exchange.answer(200, [("content-type", "text/plain; version=0.0.4")], self._metrics().encode())
            case ["v2", "models", _, "ready"] | ["v2", "models", _, "versions", _, "ready"]:
                route = self._find(environment, parts, guest)
                ready = route.model.ready.is_set()
                _json(exchange, 200 if ready else 503, {"name": route.slot.model, "ready": ready})
            case ["v2", "models", _] | ["v2", "models", _, "versions", _]:
                route = self._find(environment, parts, guest)
                _json(exchange, 200, open_inference.describe(route))
            case [*_, verb] if verb in READS:
                _json(exchange, 405, {"error": "Predictions are asked for by POST."}, [("allow", "POST")])
            case _:
                raise NotFound(f"There is nothing at {exchange.path}.")

    def _refuse(self, exchange: Exchange, error: Exception, verb: str, labels: tuple[str, str, str, str]) -> None:
        code = code_of(error)
        headers = [("retry-after", "1")] if code.http in (429, 503) else []
        if code.http == 401:
            headers = [("www-authenticate", 'Bearer realm="orrery"')]
        if code.http in (408, 413):  # the rest of the body is not read, so nothing can follow on this connection
            headers = [_CLOSE]
        elif self._door.closing:
            headers.append(_CLOSE)
        self._service.metrics.requests.add((*labels, str(code.http)))
        if code.http == 500:
            say(f"{'/'.join(labels)} {error!r}")
        mlflow = {"error_code": code.mlflow, "message": said(error)}
        _json(exchange, code.http, mlflow if verb == "invocations" else {"error": said(error)}, headers)


def _respond(exchange: Exchange, headers: Headers, content: bytes) -> None:
    fields = exchange.headers
    if (given := fields.get("traceparent")) and (joined := trace.joined(given)):
        headers.append(("traceparent", joined))
    if (small := packed(content, fields.get("accept-encoding"))) is not None:
        headers += [("content-encoding", "gzip"), ("vary", "accept-encoding")]
        content = small
    exchange.answer(200, headers, content)


def _json(exchange: Exchange, status: int, content: dict[str, Any], headers: Headers | None = None) -> None:
    exchange.answer(status, [JSON, *(headers or ())], msgspec.json.encode(content))
