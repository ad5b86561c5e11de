"""The one entrance: who asks, by what they show, and whether they may. Everything behind it is told the name.

What is shown: the cookie of a session (pages), a token as bearer or in place of a password (programs), or name and
password (git and MLflow). What was shown goes no further: behind the entrance there is only the header with the name,
and who asks can say none of their own.
"""

from __future__ import annotations

import base64
import binascii
import math
from contextvars import ContextVar
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.concurrency import run_in_threadpool

from orrery.access.door import SERVING, Denied, Door, Shown, Visitor
from orrery.access.roles import OWNER, Principal
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotFound, OrreryError, TooOften
from orrery.web.guard import HEADERS, SAFE, App, Message, Receive, Scope, Send
from orrery.web.often import Often
from orrery.web.rules import Rule, rule_of

ACTOR = b"x-orrery-actor"
_KEPT = ("/static/", "/mlflow/static-files/")
"""What a browser may keep: the same for everybody. All else is somebody's."""
_SHOWN = (b"authorization", b"cookie", ACTOR)


visitor: ContextVar[Visitor] = ContextVar("visitor", default=Visitor(OWNER))  # noqa: B039 - it is frozen
"""Who asks, while a request is answered."""


class Entrance:
    """The middleware.

    Parameters
    ----------
    app : what is behind it.
    orrery : what is asked.
    door : knows who shows what; nothing where nobody needs to show anything.
    """

    def __init__(self, app: App, orrery: Orrery, door: Door | None) -> None:
        self._app, self._orrery, self._door = app, orrery, door
        self._often = Often(orrery.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not."""
        door = self._door
        if door is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        headers = [(name, value) for name, value in scope["headers"] if name != ACTOR]
        rule = rule_of(method, path, scope.get("query_string", b"").decode("latin-1"))
        try:
            shown = _shown(headers, cookie_name(self._orrery))
            self._often.before(scope, shown, rule)
            found = await run_in_threadpool(door.who, shown, entrance_of(path), method not in SAFE)
            self._often.request(scope, found.principal)
            if rule is None and found.principal is not None:
                await say(send, 404, "There is nothing here.")
                return
            if rule is None or (found.principal is None and rule.permission != "public"):
                await self._ask(send, method, path, headers)
                return
            if found.principal is not None and rule.permission != "public":
                await run_in_threadpool(self._check, found.principal, rule)
        except Denied as error:
            try:
                self._often.wrong(scope)
            except TooOften as often:
                await _refuse(send, often, headers)
                return
            await self._ask(send, method, path, headers, str(error))
            return
        except OrreryError as error:
            await _refuse(send, error, headers)
            return
        inward = [(name, value) for name, value in headers if name not in _SHOWN]
        if found.principal is not None:
            inward.append((ACTOR, found.principal.name.encode("latin-1", "replace")))
        if path.startswith("/-/"):  # what ends or begins a session must see it
            inward += [(name, value) for name, value in headers if name == b"cookie"]
        said: list[int] = []

        async def heard(message: Message) -> None:
            said.append(message.get("status", 0))
            if message["type"] == "http.response.start" and not path.startswith(_KEPT):
                kept = [one for one in message["headers"] if one[0] != b"cache-control"]
                message = {**message, "headers": [*kept, (b"cache-control", b"no-store")]}
            await send(message)

        token = visitor.set(found)
        try:
            await self._app({**scope, "headers": inward}, receive, heard)
        finally:
            visitor.reset(token)
        if found.principal is not None and rule.where == "somewhere" and said[:1] == [403]:  # MLflow's stores said no
            why = f"{found.principal.name} may not {method} what {path} is about."
            await run_in_threadpool(self._orrery.denials.note, found.principal.name, "track", why)

    def _check(self, principal: Principal, rule: Rule) -> None:
        if rule.permission == "anybody" and principal is not SERVING:
            return
        if rule.permission == "serving" or principal is SERVING:
            if principal is SERVING and rule.permission == "serving":
                return
            self._orrery.denials.note(principal.name, "serving", f"{principal.name} is not for this address.")
            raise NotAllowed("This is between the processes of orrery.", safe="Nothing was changed.")
        orrery = self._orrery.acting(principal)
        if rule.where == "dataset":
            orrery.allow(rule.permission, rule.name, "dataset")
        elif rule.where != "somewhere" or not principal.anywhere(rule.permission):
            orrery.allow(rule.permission, rule.name)

    async def _ask(self, send: Send, method: str, path: str, headers: list[tuple[bytes, bytes]], why: str = "") -> None:
        """Ask for something to be shown: by the form where a person looks at a page."""
        entrance = entrance_of(path)
        if entrance in ("pages", "mlflow") and not why and method in SAFE and _looks(headers):
            place = f"/-/sign-in?next={quote(path)}".encode()
            await send({"type": "http.response.start", "status": 303, "headers": [(b"location", place), *HEADERS]})
            await send({"type": "http.response.body", "body": b""})
            return
        scheme = b'Bearer realm="orrery"' if entrance == "api" else b'Basic realm="orrery", charset="UTF-8"'
        what = why or "Who are you?"
        todo = "Show a token: `orrery token create` makes one."
        await say(send, 401, what, "Nothing was changed.", todo, [(b"www-authenticate", scheme)])


def _shown(headers: list[tuple[bytes, bytes]], session: str) -> Shown:
    fields = {name: value.decode("latin-1") for name, value in headers}
    scheme, _, given = fields.get(b"authorization", "").partition(" ")
    bearer = name = password = ""
    if scheme.lower() == "bearer":
        bearer = given.strip()
    elif scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            password = " "  # not readable: it fits nothing
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(fields.get(b"cookie", ""))
    except CookieError:
        cookies = SimpleCookie()
    # The guard before us has compared the origin; a browser says one of the two with every write.
    same = b"origin" in fields or fields.get(b"sec-fetch-site") == "same-origin"
    cookie = cookies.get(session)
    return Shown(bearer, name, password, cookie.value if cookie else "", same)


def entrance_of(path: str) -> str:
    """Return the entrance that an address belongs to."""
    first = path.split("/", 2)[1] if path.startswith("/") else ""
    return {"api": "api", "openapi.json": "api", "git": "git", "mlflow": "mlflow"}.get(first, "pages")


def cookie_name(orrery: Orrery) -> str:
    """Return what the cookie of a session is called; of two orreries on one machine each has its own."""
    return "__Host-orrery" if orrery.settings.url else f"orrery-{orrery.settings.port}"


def _looks(headers: list[tuple[bytes, bytes]]) -> bool:
    """Say whether a person looks at what is answered."""
    return b"text/html" in dict(headers).get(b"accept", b"")


async def _refuse(send: Send, error: OrreryError, headers: list[tuple[bytes, bytes]]) -> None:
    status = 404 if isinstance(error, NotFound) else 429 if isinstance(error, TooOften) else 403
    more = [(b"retry-after", str(math.ceil(error.wait)).encode())] if isinstance(error, TooOften) else []
    if not _looks(headers):
        await say(send, status, error.what, error.safe, error.todo, more)
        return
    from orrery.web.render import problem_page

    page = problem_page(status, error.what, error.safe, error.todo)
    await send({"type": "http.response.start", "status": status, "headers": [*page.raw_headers, *HEADERS, *more]})
    await send({"type": "http.response.body", "body": page.body})


async def say(
    send: Send, status: int, what: str, safe: str = "", todo: str = "", more: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer with a sentence."""
    body: Any = msgspec.json.encode({"error": {"what": what, "safe": safe, "todo": todo}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(more or ())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
