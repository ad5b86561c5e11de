"""Signing in and out: a password, where it is asked for a code, and a session."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, ClassVar
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from orrery.access.door import TICKET, Door
from orrery.access.factors import Offer
from orrery.access.keys import SESSION
from orrery.app import Orrery
from orrery.errors import Conflict, NotAllowed, NotUnderstood, TooOften
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
class SecondPage(Page):
    """Asks for the code of a second factor, or for a device to begin with."""

    template: ClassVar[str] = "second.html"
    refreshes: ClassVar[bool] = False

    next: str = "/"
    said: str = ""
    secret: str = ""
    uri: str = ""
    picture: str = ""


@dataclass(frozen=True, kw_only=True)
class CodesPage(Page):
    """Shows the codes for recovery, this once."""

    template: ClassVar[str] = "codes.html"
    refreshes: ClassVar[bool] = False

    codes: list[str]
    next: str


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
    fields = await form_of(request)
    name, place = fields.get("name", ""), within(fields.get("next", "/"))
    try:
        principal = await run_in_threadpool(door.sign_in, name, fields.get("password", ""))
    except NotAllowed as error:
        return _waits(sign_in_page(orrery, place, f"{error.what} {error.todo}", 429), error)
    if principal is None:
        return sign_in_page(orrery, place, "Name and password do not fit.", 401)
    found = principal

    def go_on() -> Response:
        asked = door.asks(found)
        if not asked:
            return begin(request, orrery, found.name, "with a password", place)
        offer = orrery.factors.begin(found.name, issuer_of(orrery)) if asked == "enrol" else None
        answer = second_page(place, offer)
        put_cookie(answer, orrery, _second(orrery), door.ticket(found), TICKET)
        return answer

    return await run_in_threadpool(go_on)


@router.post("/second")
async def second(request: Request, orrery: Whole, door: AtDoor) -> Response:
    """Begin a session for who has shown the password, and now a code."""
    fields = await form_of(request)
    code, place = fields.get("code", ""), within(fields.get("next", "/"))
    ticket = request.cookies.get(_second(orrery), "")

    def go_on() -> Response:
        principal = door.holder(ticket)
        if principal is None:
            return sign_in_page(orrery, place, "That took too long: sign in again.", 401)
        if door.asks(principal) == "code":
            if not door.code(principal, code):
                return second_page(place, None, "The code does not fit, or was used before.", 401)
            answer = begin(request, orrery, principal.name, "with a password and a code", place)
        else:
            codes = orrery.factors.confirm(principal.name, code)
            if not codes:
                offer = orrery.factors.offered(principal.name, issuer_of(orrery))
                return second_page(place, offer, "That is not the code that the device shows now.", 401)
            answer = HTMLResponse(html(CodesPage(title="Codes for recovery", codes=codes, next=place)))
            begin(request, orrery, principal.name, "with a password and a code", place, answer)
        put_cookie(answer, orrery, _second(orrery), "", 0)
        return answer

    try:
        return await run_in_threadpool(go_on)
    except NotAllowed as error:
        return _waits(second_page(place, None, f"{error.what} {error.todo}", 429), error)


def begin(
    request: Request,
    orrery: Orrery,
    account: str,
    how: str,
    place: str,
    answer: Response | None = None,
    *,
    by_provider: bool = False,
) -> Response:
    """Begin a session and go on to a page; one that the browser had before ends.

    Parameters
    ----------
    how : how they have signed in, in words.
    answer : what the browser is answered; else it goes on to the place.
    by_provider : whether a provider of identities says who it is.
    """
    if (old := orrery.keys.check(request.cookies.get(cookie_name(orrery), ""), "session")) is not None:
        orrery.keys.sign_out(old.account, by=old.account, why="Signed in anew.", key=old.id)
    session, _ = orrery.keys.session(account, why=f"{account} signed in {how}.", by_provider=by_provider)
    answer = answer or RedirectResponse(place, 303)
    put_cookie(answer, orrery, cookie_name(orrery), session, int(SESSION.total_seconds()))
    return answer


def sign_in_page(orrery: Orrery, place: str, said: str = "", status: int = 200) -> Response:
    """Answer with the ways to sign in."""
    passwords, issuer = orrery.settings.passwords == "on", orrery.settings.oidc.issuer
    provider = urlsplit(issuer).hostname or ""
    page = SignInPage(title="Sign in", next=place, said=said, passwords=passwords, provider=provider)
    return HTMLResponse(html(page), status)


def second_page(place: str, offer: Offer | None, said: str = "", status: int = 200) -> Response:
    """Answer with the form for a code, and where there is no device yet with what it must know."""
    if offer is None:
        return HTMLResponse(html(SecondPage(title="Your code", next=place, said=said)), status)
    secret, uri, picture = offer.secret, offer.uri, picture_of(offer)
    page = SecondPage(title="A second factor", next=place, said=said, secret=secret, uri=uri, picture=picture)
    return HTMLResponse(html(page), status)


def picture_of(offer: Offer) -> str:
    """Return the QR code of an offer as SVG."""
    import segno

    return str(segno.make(offer.uri, micro=False).svg_inline(scale=4, light="#fff", svgclass="qr", lineclass=None))


def issuer_of(orrery: Orrery) -> str:
    """Return what this orrery is called on a device."""
    return f"orrery {urlsplit(orrery.settings.public_url).hostname}"


def _second(orrery: Orrery) -> str:
    return f"{cookie_name(orrery)}-second"


def _waits(answer: Response, error: NotAllowed) -> Response:
    if isinstance(error, TooOften):
        answer.headers["retry-after"] = str(math.ceil(error.wait))
    return answer


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
    fields = await form_of(request)
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
    fields = await form_of(request)
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


def within(place: str) -> str:
    """Return an address of ours to go on to, the first page where it is none.

    Examples
    --------
    >>> within("/tides/versions/3"), within("//evil.example"), within("https://evil.example"), within("/-/sign-in")
    ('/tides/versions/3', '/', '/', '/')
    """
    return place if _OURS.fullmatch(place) else "/"


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises
    ------
    NotUnderstood
        If it is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise NotUnderstood("This address takes forms.")
    try:
        found = parse_qs((await request.body()).decode(), max_num_fields=20)
    except ValueError:
        raise NotUnderstood("The form cannot be read.") from None
    return {name: values[-1] for name, values in found.items()}


def put_cookie(answer: Response, orrery: Orrery, name: str, value: str, seconds: int) -> None:
    """Give a browser something that no script sees, and that comes back here alone."""
    answer.set_cookie(
        name, value, max_age=seconds, path="/", secure=bool(orrery.settings.url), httponly=True, samesite="lax"
    )
