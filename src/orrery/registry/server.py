"""MLflow's own server behind orrery's address: pages and REST of runs, models and artifacts, and nothing else of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import re
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from orrery.registry.versions import ARTIFACT_ROOT, SEAL
from orrery.settings import Settings

if TYPE_CHECKING:
    from orrery.registry.seen import Seen
    from orrery.registry.sight import Sight

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Read = Callable[[str, str, str], None]
"""Is told who has read of which project, and what: see :mod:`orrery.registry.seen`."""

ACTOR_HEADER = b"x-orrery-actor"
ALLOWED = re.compile(
    r"/(?:"
    r"|static-files/.+|get-artifact|model-versions/get-artifact|graphql|health|version"
    r"|(?:ajax-)?api/[23]\.0/mlflow/"
    r"(?:artifacts|datasets|experiments|logged-models|metrics|model-versions|registered-models|runs|traces"
    r"|server-info|get-trace-artifact|unified-traces)(?:/.*)?"
    r"|(?:ajax-)?api/2\.0/mlflow-artifacts/(?:artifacts|mpu|presigned)(?:/.*)?"
    r")"
)
"""What of MLflow's server is reachable: tracking, registry, artifacts and its pages."""
REFUSED = re.compile(r".*/(?:runs/create-promptlab-run|\.\.?)(?:/.*)?|.*//.*")
_ARTIFACT = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/(?:artifacts|presigned|mpu/[a-z]+)/(.*)")

_FILES = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/(?:artifacts|presigned|mpu/[a-z]+)(?:/(.*))?")

_log = logging.getLogger(__name__)


def mlflow_app(
    settings: Settings, who: Callable[[], Sight | None] = lambda: None, read: Read = lambda who, project, what: None
) -> App:
    """Return MLflow's server for one orrery, to be mounted; it is loaded at the first request, which takes seconds.

    A process has one: MLflow keeps its stores in global variables. Who writes is told by the header
    ``X-Orrery-Actor`` or the user name of basic authentication.

    Parameters
    ----------
    who : tells who asks, while a request is answered: they see and change what is theirs. Nothing is who opens the
        home folder.
    read : is told what may hold rows, before it is given.
    """
    return _MlflowApp(settings, who, read)


class _MlflowApp:
    def __init__(self, settings: Settings, who: Callable[[], Sight | None], read: Read) -> None:
        self._settings, self._who, self._read = settings, who, read
        self._artifacts = settings.home / "artifacts"
        self._loaded: App | None = None
        self._loading = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        # MLflow's checks of host and origin look at the path: it must not see where it is mounted.
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope.get("root_path") else scope["path"]
        if not path and scope["method"] in ("GET", "HEAD"):
            await _answer(send, 307, "", location=f"{scope.get('root_path', '')}/")
        elif not ALLOWED.fullmatch(path) or REFUSED.fullmatch(path):
            await _answer(send, 404, "This part of MLflow is not served by orrery.")
        elif scope["method"] not in ("GET", "HEAD", "OPTIONS") and self._sealed(path):
            await _answer(send, 403, "These files belong to a version that orrery trained: they stay as they are.")
        else:
            await self._pass_on({**scope, "path": path, "raw_path": path.encode(), "root_path": ""}, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            app = await asyncio.to_thread(self._load) if self._loaded is None else self._loaded
        except Exception as error:
            _log.exception("MLflow could not be loaded")
            await _answer(send, 503, f"MLflow could not be loaded: {error}. The rest of orrery goes on.")
            return
        from orrery.registry.seen import noticed
        from orrery.registry.sight import asking
        from orrery.registry.store import acting_as

        name = _actor(scope) or "mlflow-client"
        loaded: Seen = set()
        actor, sight, seen = acting_as.set(name), asking.set(self._who()), noticed.set(loaded)

        async def given(message: MutableMapping[str, Any]) -> None:
            """Hand the answer on, once it is written down what it gives away."""
            if message["type"] == "http.response.start" and message["status"] < 400:
                await asyncio.to_thread(self._note, name, scope, loaded)
            await send(message)

        try:
            if (refusal := await asyncio.to_thread(self._not_theirs, scope)) is not None:
                await _answer(send, *refusal)
            else:
                await app(scope, receive, given)
        finally:
            acting_as.reset(actor)
            asking.reset(sight)
            noticed.reset(seen)

    def _load(self) -> App:
        """Import MLflow's server: it reads its environment while it is imported."""
        with self._loading:
            if self._loaded is None:
                os.environ.update(environment(self._settings))
                from mlflow.server import handlers
                from mlflow.server.fastapi_app import app

                handlers.initialize_backend_stores()
                self._loaded = app
            return self._loaded

    def _not_theirs(self, scope: Scope) -> tuple[int, str] | None:
        """Return the answer to who asks for kept files of others; their paths begin with an experiment."""
        from orrery.registry.database import engine_of, opened, store_uri
        from orrery.registry.sight import READ, TRACK, asking, owner_of

        sight, match = asking.get(), _FILES.fullmatch(scope["path"])
        if sight is None or match is None:
            return None
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get("path", [])
        paths = [_plain(one) for one in ([match[1]] if match[1] else asked or [""])]
        reads = scope["method"] in ("GET", "HEAD", "OPTIONS")
        with engine_of(opened(store_uri(self._settings.database))[0]).connect() as connection:
            for parts in paths:
                owner = owner_of(connection, parts)
                if ".." in parts or not sight.may(READ, owner):
                    return 404, "There are no such files here."
                if not reads and not sight.may(TRACK, owner):
                    return 403, f"{sight.name} may not track in {owner or 'what belongs to no project'}."
        return None

    def _note(self, name: str, scope: Scope, seen: Seen) -> None:
        """Tell what a request has read that may hold rows."""
        from orrery.registry.database import engine_of, opened, store_uri
        from orrery.registry.seen import FILES, read_of
        from orrery.registry.sight import owner_of

        match = _ARTIFACT.fullmatch(scope["path"]) if scope["method"] in ("GET", "HEAD") else None
        if match is None and not seen:
            return
        with engine_of(opened(store_uri(self._settings.database))[0]).connect() as connection:
            found = read_of(connection, scope["path"], seen)
            if match is not None and match[1]:
                found.add((owner_of(connection, _plain(match[1])), FILES))
        for project, what in sorted(found):
            if project:
                self._read(name, project, what)

    def _sealed(self, path: str) -> bool:
        """Whether a request would change files that orrery keeps."""
        match = _ARTIFACT.fullmatch(path)
        if match is None:
            return False
        folder: Path = self._artifacts
        for part in Path(match[1]).parts:
            folder = folder / part
            if (folder / SEAL).exists():
                return True
        return any(folder.glob(f"**/{SEAL}")) if folder.is_dir() else False


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables that make MLflow's server this orrery's."""
    from orrery.registry.database import store_uri

    uri = store_uri(settings.database, settings.home / "clock" if settings.replay else None)
    return {
        "_MLFLOW_SERVER_FILE_STORE": uri,
        "_MLFLOW_SERVER_REGISTRY_STORE": uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": ARTIFACT_ROOT,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(settings.folder("artifacts")),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_MODEL_CODE_EXECUTION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _actor(scope: Scope) -> str:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if named := headers.get(ACTOR_HEADER, b"").decode("latin-1").strip():
        return named
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"basic":
        return ""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[0].strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _plain(path: str) -> list[str]:
    """Return the parts of a path, decoded as often as it can be: MLflow does so, too."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]


async def _answer(send: Send, status: int, text: str, location: str = "") -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if location:
        headers.append((b"location", location.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
