"""The control plane: one FastAPI application behind one entrance, with MLflow and git mounted in it."""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from orrery.access.homekey import TRAINING, home_key
from orrery.access.roles import OWNER, Principal
from orrery.access.tls import Certificate
from orrery.app import Orrery
from orrery.errors import Conflict, Damaged, NotAllowed, NotFound, NotUnderstood, OrreryError, TooOften
from orrery.settings import LOOPBACK
from orrery.web import (
    accountspage,
    api,
    erasing,
    forms,
    hooks,
    orders,
    outside,
    ownpage,
    pages,
    secrets,
    signing,
    signon,
)
from orrery.web.assignment import Assigner
from orrery.web.entrance import Entrance, visitor
from orrery.web.guard import HEADERS, App, Guard, Receive, Scope, Send
from orrery.web.render import problem_page
from orrery.web.trainings import OfTrainings
from orrery.web.wire import answer, components
from orrery.workers.relay import TRAININGS, listening

if TYPE_CHECKING:
    from orrery.access.sign_on import SignOn

log = logging.getLogger(__name__)

STATUS: tuple[tuple[type[OrreryError], int], ...] = (
    (NotUnderstood, 422),
    (NotFound, 404),
    (Conflict, 409),
    (TooOften, 429),
    (NotAllowed, 403),
    (Damaged, 500),
)
"""Error -> HTTP status; the first that fits."""


def create(orrery: Orrery) -> FastAPI:
    """Return the control plane of one orrery."""
    app = FastAPI(title="orrery", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.orrery = orrery
    app.state.assigner = Assigner(orrery)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    app.add_exception_handler(OrreryError, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(sa.exc.SQLAlchemyError, _storage)
    app.add_exception_handler(OSError, _storage)
    app.add_exception_handler(Exception, _unexpected)
    app.state.door = door = orrery.door if orrery.settings.access == "required" else None
    app.state.sign_on = _sign_on(orrery)
    app.add_middleware(Entrance, orrery=orrery, door=door)
    app.add_middleware(Guard, url=orrery.settings.url, settings=orrery.settings)
    app.include_router(api.router)
    app.include_router(orders.router)
    app.include_router(secrets.router)
    app.include_router(outside.router)
    app.include_router(erasing.router)
    told = _Told(orrery)
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))
    of_mlflow, of_git = {"who": _who, "read": told.of_mlflow}, {"read": told.of_git}
    app.mount("/mlflow", _Lazily(lambda: _load("orrery.registry.server", "mlflow_app", orrery, **of_mlflow)))
    app.mount("/git", _Lazily(lambda: _load("orrery.source.http", "git_app", orrery, **of_git)))
    app.include_router(signing.router)
    app.include_router(ownpage.router)
    app.include_router(signon.router)
    app.include_router(hooks.router)
    app.include_router(accountspage.router)
    app.include_router(erasing.forms)
    app.include_router(pages.router)
    app.include_router(forms.router)
    return app


def _sign_on(orrery: Orrery) -> SignOn | None:
    if not orrery.settings.oidc.issuer:
        return None
    from orrery.access.sign_on import SignOn

    return SignOn(orrery.settings, orrery.timeline, orrery.denials, home_key(orrery.settings.home))


def main() -> None:
    """Serve the control plane of the orrery that the environment names, until told to stop."""
    orrery = Orrery.open()
    settings, app = orrery.settings, create(orrery)
    app.add_middleware(OfTrainings, home=settings.home)
    if not settings.tls_certificate:
        plain = _socket(settings.listen, settings.port, "ORRERY_PORT")
        asyncio.run(_serve(app, [plain, listening(settings.home / TRAININGS)]))
        return
    certificate = Certificate(settings)
    plain = _socket(LOOPBACK, settings.port, "ORRERY_PORT")  # for the processes of this orrery
    public = _socket(settings.listen, settings.tls_port, "ORRERY_TLS_PORT")
    asyncio.run(_both(app, [plain, listening(settings.home / TRAININGS)], public, certificate))


def _socket(address: str, port: int, setting: str) -> socket.socket:
    """Return a socket of our own: of two control planes on one port the second fails here, with a sentence."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        sys.exit(f"orrery: port {port} cannot be used: {error.strerror}. Set {setting} to another.")
    return listener


async def _both(app: FastAPI, plain: list[socket.socket], listener: socket.socket, certificate: Certificate) -> None:
    follows = asyncio.create_task(certificate.follow(log.warning))
    await asyncio.gather(_serve(app, plain), _serve(app, [listener], certificate))
    follows.cancel()


async def _serve(app: FastAPI, listeners: list[socket.socket], certificate: Certificate | None = None) -> None:
    import uvicorn

    # asyncio's loop waits for processes in any thread, uvloop's does not; and nothing here asks for speed.
    config = uvicorn.Config(
        app,
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    if certificate is not None:
        config.load()
        config.ssl = certificate.context  # ours, which follows the files
    await uvicorn.Server(config).serve(sockets=listeners)


class _Lazily:
    """A mounted program that is loaded at the first request."""

    def __init__(self, load: Callable[[], App]) -> None:
        self._load = load
        self._app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            self._app = self._load()
        await self._app(scope, receive, send)


class _Told:
    """Writes down what is read of projects by way of the mounted programs; what trainings read is their own work."""

    def __init__(self, orrery: Orrery) -> None:
        self._orrery = orrery

    def of_mlflow(self, who: str, project: str, what: str) -> None:
        """Note that somebody has read files, traces or rows in MLflow."""
        principal = visitor.get().principal
        if principal is None or principal.name != TRAINING:
            self._orrery.note_read_of_project(project, what, who)

    def of_git(self, who: str, project: str) -> None:
        """Note that somebody takes commits."""
        self._orrery.note_read_of_project(project, "commits", who)


def _load(module: str, name: str, orrery: Orrery, **more: Any) -> App:
    made: App = getattr(importlib.import_module(module), name)(orrery.settings, **more)
    return made


def _who() -> Principal | None:
    """Return who asks; nothing where nobody needs to be narrowed."""
    principal = visitor.get().principal
    return None if principal is OWNER else principal or Principal("")


def status_of(error: OrreryError) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def _says(request: Request, status: int, what: str, safe: str = "", todo: str = "") -> Response:
    path = request.url.path
    if path.startswith("/api/") or path.endswith(".json"):
        return answer({"error": {"what": what, "safe": safe, "todo": todo}}, status)
    return problem_page(status, what, safe, todo)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, OrreryError)
    response = _says(request, status_of(error), error.what, error.safe, error.todo)
    if isinstance(error, TooOften):
        response.headers["retry-after"] = str(math.ceil(error.wait))
    return response


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()]
    return _says(request, 422, f"The request cannot be read: {'; '.join(faults)}.", "Nothing was changed.")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "There is no such page.", 405: "This address does not take that method."}
    response = _says(request, error.status_code, known.get(error.status_code, str(error.detail)))
    response.headers.update(error.headers or {})
    return response


async def _storage(request: Request, error: Exception) -> Response:
    """Answer when the database or the disk does not do its part: full, locked, gone."""
    log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    return _says(
        request,
        503,
        f"What orrery stores cannot be read or written now ({type(error).__name__}).",
        "What was acknowledged before is kept.",
        "Look for a full disk or an unreachable database: `orrery doctor`. Then try again.",
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw; the trace goes to the log of the process."""
    response = _says(
        request,
        500,
        f"Something went wrong inside orrery: {type(error).__name__}.",
        "What was acknowledged before is on the timeline.",
        "The log of the control plane says more; `orrery doctor` looks for the cause.",
    )
    response.headers.update({name.decode(): value.decode() for name, value in HEADERS})
    return response


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, routes=app.routes, description=str(__doc__))
        found.setdefault("components", {}).setdefault("schemas", {}).update(components())
        app.openapi_schema = found
    return app.openapi_schema
