"""Signing in and out, and the page of one's own account."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, ClassVar
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from orrery.access.door import Door
from orrery.access.keys import SESSION
from orrery.access.roles import EVERYWHERE
from orrery.app import Orrery
from orrery.errors import Conflict, NotAllowed, NotUnderstood
from orrery.notify.channels import WISHES, address_of
from orrery.web.asking import known_query
from orrery.web.entrance import cookie_name, visitor
from orrery.web.forms import check_csrf
from orrery.web.render import Page, html

router = APIRouter(prefix="/-", include_in_schema=False, dependencies=[Depends(known_query)])
_OURS = re.compile(r"/(?![/\\-])[^\\\s]*")


@dataclass(frozen=True, kw_only=True)
class SignInPage(Page):
    """Asks for name and password."""

    template: ClassVar[str] = "signin.html"
    refreshes: ClassVar[bool] = False

    next: str = "/"
    said: str = ""
    passwords: bool = True
    provider: str = ""


@dataclass(frozen=True, kw_only=True)
class WelcomePage(Page):
    """Asks for a new password."""

    template: ClassVar[str] = "welcome.html"
    refreshes: ClassVar[bool] = False

    key: str = ""
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class AccountPage(Page):
    """One's own account."""

    template: ClassVar[str] = "account.html"
    refreshes: ClassVar[bool] = False

    roles: list[str]
    issuers: list[str]
    sessions: int
    tokens: list[str]
    wish: str
    wishes: list[str]
    address: str
    mail: bool


async def _whole(request: Request) -> Orrery:
    found = request.app.state.orrery
    assert isinstance(found, Orrery)
    if found.settings.access != "required":
        raise Conflict("Nobody signs in here: this orrery is open to whoever is on this machine.")
    return found


async def _door(request: Request) -> Door:
    found = request.app.state.door
    assert isinstance(found, Door)
    return found


Whole = Annotated[Orrery, Depends(_whole)]
AtDoor = Annotated[Door, Depends(_door)]


@router.get("/sign-in")
async def ask(orrery: Whole, next: str = "/") -> Response:
    """Show the form."""
    return sign_in_page(orrery, within(next))


@router.post("/sign-in")
async def sign_in(request: Request, orrery: Whole, door: AtDoor) -> Response:
    """Begin a session; one that the browser had before ends."""
    fields = await _fields(request)
    name, place = fields.get("name", ""), within(fields.get("next", "/"))
    try:
        principal = await run_in_threadpool(door.sign_in, name, fields.get("password", ""))
    except NotAllowed as error:
        return sign_in_page(orrery, place, f"{error.what} {error.todo}", 429)
    if principal is None:
        return sign_in_page(orrery, place, "Name and password do not fit.", 401)
    return await run_in_threadpool(begin, request, orrery, principal.name, "with a password", place)


def begin(request: Request, orrery: Orrery, account: str, how: str, place: str) -> Response:
    """Begin a session and go on to a page; one that the browser had before ends.

    Parameters
    ----------
    how : how they have signed in, in words.
    """
    if (old := orrery.keys.check(request.cookies.get(cookie_name(orrery), ""), "session")) is not None:
        orrery.keys.sign_out(old.account, by=old.account, why="Signed in anew.", key=old.id)
    session, _ = orrery.keys.session(account, why=f"{account} signed in {how}.")
    answer = RedirectResponse(place, 303)
    put_cookie(answer, orrery, cookie_name(orrery), session, int(SESSION.total_seconds()))
    return answer


def sign_in_page(orrery: Orrery, place: str, said: str = "", status: int = 200) -> Response:
    """Answer with the ways to sign in."""
    passwords, issuer = orrery.settings.passwords == "on", orrery.settings.oidc.issuer
    provider = urlsplit(issuer).hostname or ""
    page = SignInPage(title="Sign in", next=place, said=said, passwords=passwords, provider=provider)
    return HTMLResponse(html(page), status)


@router.get("/welcome")
async def welcome(orrery: Whole, key: str = "") -> Response:
    """Show the form of a link; only sending it uses the link up."""
    return HTMLResponse(html(WelcomePage(title="Choose a password", key=key[:200])))


@router.post("/welcome")
async def choose(request: Request, orrery: Whole) -> Response:
    """Choose a password by a link."""
    from orrery.access.passwords import check

    if orrery.settings.passwords == "off":
        raise NotAllowed("Nobody signs in with a password here.", todo="Sign in by the provider of identities.")
    fields = await _fields(request)
    shown, password = fields.get("key", ""), fields.get("password", "")

    def carry_out() -> str:
        key = orrery.keys.check(shown, "link")
        if key is None:
            return "This link works no more: ask for another one (`orrery user invite`)."
        if password != fields.get("again", ""):
            return "The two are not the same."
        check(password, key.account)  # before the link is used up
        if orrery.keys.use(shown) is None:
            return "This link works no more: ask for another one (`orrery user invite`)."
        orrery.accounts.choose_password(key.account, password, by=key.account, why="Chosen by a link that works once.")
        return ""

    try:
        said = await run_in_threadpool(carry_out)
    except NotUnderstood as error:
        said = f"{error.what} {error.todo}"
    if said:
        return HTMLResponse(html(WelcomePage(title="Choose a password", key=shown[:200], said=said)), 422)
    return RedirectResponse("/-/sign-in", 303)


@router.post("/sign-out")
async def sign_out(request: Request, orrery: Whole) -> Response:
    """End this session, or all sessions of the account."""
    fields = await _fields(request)
    check_csrf(fields)
    principal = visitor.get().principal
    assert principal is not None
    everywhere = fields.get("everywhere") == "yes"
    why = "Signed out everywhere." if everywhere else "Signed out."
    key = "" if everywhere else principal.key
    await run_in_threadpool(lambda: orrery.keys.sign_out(principal.name, by=principal.name, why=why, key=key))
    answer = RedirectResponse("/-/sign-in", 303)
    put_cookie(answer, orrery, cookie_name(orrery), "", 0)
    return answer


@router.get("/account")
def account(orrery: Whole) -> Response:
    """Show one's own account."""
    principal = visitor.get().principal
    assert principal is not None
    now = datetime.now(UTC)
    known = next((one for one in orrery.accounts.all() if one.name == principal.name), None)
    by_groups = known.by_groups if known else ()
    roles = [
        f"{one.role} of {'everything' if one.place == EVERYWHERE else one.place}"
        f"{', by a group' if one in by_groups else ''}"
        for one in principal.grants
    ]
    sessions = sum(one.holds(now) for one in orrery.keys.all(principal.name, "session"))
    tokens = [
        f"{one.id}: {', '.join(one.scopes)}, until {one.until:%Y-%m-%d}{f' ({one.label})' if one.label else ''}"
        for one in orrery.keys.all(principal.name)
        if one.holds(now)
    ]
    wish, said = orrery.channels.wishes().get(principal.name, ("all", ""))
    page = AccountPage(
        title=principal.name,
        roles=roles,
        issuers=list(known.issuers) if known else [],
        sessions=sessions,
        tokens=tokens,
        wish=wish,
        wishes=list(WISHES),
        address=address_of(known.links if known else (), said),
        mail=bool(orrery.settings.mail),
    )
    return HTMLResponse(html(page))


@router.post("/account")
async def choose_news(request: Request, orrery: Whole) -> Response:
    """Say what one wants to be told."""
    fields = await _fields(request)
    check_csrf(fields)
    principal = visitor.get().principal
    assert principal is not None
    name, wish = principal.name, fields.get("wish", "")
    await run_in_threadpool(lambda: orrery.channels.wish(name, wish, by=name, why="Chosen on the page of the account."))
    return RedirectResponse("/-/account", 303)


def within(place: str) -> str:
    """Return an address of ours to go on to, the first page where it is none.

    Examples
    --------
    >>> within("/tides/versions/3"), within("//evil.example"), within("https://evil.example"), within("/-/sign-in")
    ('/tides/versions/3', '/', '/', '/')
    """
    return place if _OURS.fullmatch(place) else "/"


async def _fields(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise NotUnderstood("This address takes forms.")
    try:
        found = parse_qs((await request.body()).decode(), max_num_fields=10)
    except ValueError:
        raise NotUnderstood("The form cannot be read.") from None
    return {name: values[-1] for name, values in found.items()}


def put_cookie(answer: Response, orrery: Orrery, name: str, value: str, seconds: int) -> None:
    """Give a browser something that no script sees, and that comes back here alone."""
    answer.set_cookie(
        name, value, max_age=seconds, path="/", secure=bool(orrery.settings.url), httponly=True, samesite="lax"
    )
