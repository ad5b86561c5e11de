"""The page of one's own account: roles, sessions, password, second factor, tokens, news.

What matters most asks for the password again, and for a code where there is a second factor: a session that somebody
found open is not enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from orrery.access.door import Door
from orrery.access.roles import EVERYWHERE, SCOPES, Principal
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotFound, NotUnderstood, OrreryError, TooOften
from orrery.notify.channels import WISHES, address_of
from orrery.types import parse_duration
from orrery.web.asking import known_query
from orrery.web.entrance import visitor
from orrery.web.forms import Fields, check_csrf
from orrery.web.render import Page, html, show
from orrery.web.signing import AtDoor, Whole, begin, form_of, issuer_of, picture_of

router = APIRouter(prefix="/-/account", include_in_schema=False, dependencies=[Depends(known_query)])
DONE = {
    "news": "Kept.",
    "password": "The new password holds. All other sessions have ended.",
    "factor-remove": "The second factor is removed.",
    "revoke": "The token works no more.",
}


@dataclass(frozen=True)
class OwnToken:
    """A token of one's own that still opens something; never the token itself."""

    id: str
    opens: str
    until: datetime
    label: str


@dataclass(frozen=True, kw_only=True)
class AccountPage(Page):
    """One's own account.

    Parameters
    ----------
    password : whether there is one, and signing in with it is possible.
    factor, must, left : whether there is a second factor, whether a role asks for it, and how many codes for recovery.
    secret, uri, picture : what a new device must know.
    codes, shown : codes for recovery, and a token, that are shown this once.
    """

    template: ClassVar[str] = "account.html"
    refreshes: ClassVar[bool] = False

    roles: list[str]
    issuers: list[str]
    sessions: int
    tokens: list[OwnToken]
    scopes: list[str]
    wish: str
    wishes: list[str]
    address: str
    mail: bool
    password: bool
    factor: bool
    must: bool
    left: int
    said: str = ""
    done: str = ""
    secret: str = ""
    uri: str = ""
    picture: str = ""
    codes: tuple[str, ...] = ()
    shown: str = ""


@router.get("")
@router.get(".json")
def account(request: Request, orrery: Whole, done: str = "") -> Response:
    """Show one's own account."""
    return show(request, replace(_page(orrery), done=DONE.get(done, "")))


@router.post("")
async def choose_news(request: Request, orrery: Whole) -> Response:
    """Say what one wants to be told."""
    fields = await form_of(request)
    check_csrf(fields)
    name, wish = _principal().name, fields.get("wish", "")
    await run_in_threadpool(lambda: orrery.channels.wish(name, wish, by=name, why="Chosen on the page of the account."))
    return _back("news")


@router.post("/{order}")
async def order_of_one_s_own(request: Request, orrery: Whole, door: AtDoor, order: str) -> Response:
    """Carry out what a form on the page of one's own account orders."""
    if order not in OF_OWN:
        raise NotFound(f"There is no order {order!r}.")
    fields = await form_of(request)
    check_csrf(fields)
    if not visitor.get().csrf:
        raise NotAllowed("This is for who has signed in with a browser.", safe="Nothing was changed.")

    def carry_out() -> Response:
        try:
            return OF_OWN[order](request, orrery, door, fields)
        except (NotAllowed, NotUnderstood) as error:
            status = 429 if isinstance(error, TooOften) else 403 if isinstance(error, NotAllowed) else 422
            return _shown(orrery, status, said=_said(error))

    return await run_in_threadpool(carry_out)


def _password(request: Request, orrery: Orrery, door: Door, form: Fields) -> Response:
    name, fresh = _principal().name, form.get("new", "")
    if fresh != form.get("again", ""):
        raise NotUnderstood("The two new ones are not the same.", safe="Nothing was changed.")
    _again(door, form)
    tokens = form.get("tokens") == "yes"
    orrery.accounts.choose_password(name, fresh, by=name, why="Changed by its owner.", tokens=tokens)
    return begin(request, orrery, name, "with the new password", f"/-/account?{urlencode({'done': 'password'})}")


def _factor(request: Request, orrery: Orrery, door: Door, form: Fields) -> Response:
    _again(door, form)
    offer = orrery.factors.begin(_principal().name, issuer_of(orrery))
    return _shown(orrery, secret=offer.secret, uri=offer.uri, picture=picture_of(offer))


def _confirm(request: Request, orrery: Orrery, door: Door, form: Fields) -> Response:
    name = _principal().name
    codes = orrery.factors.confirm(name, form.get("code", "").strip())
    if codes:
        return _shown(orrery, codes=tuple(codes))
    offer = orrery.factors.offered(name, issuer_of(orrery))
    said = "That is not the code that the device shows now."
    if offer is None:
        return _shown(orrery, 422, said=said)
    return _shown(orrery, 422, said=said, secret=offer.secret, uri=offer.uri, picture=picture_of(offer))


def _codes(request: Request, orrery: Orrery, door: Door, form: Fields) -> Response:
    _again(door, form)
    codes = orrery.factors.renew(_principal().name, why="Wished on the page of the account.")
    return _shown(orrery, codes=tuple(codes))


def _remove(request: Request, orrery: Orrery, door: Door, form: Fields) -> Response:
    principal = _principal()
    if orrery.factors.must(principal):
        raise NotAllowed(
            "A role of yours needs a second factor.",
            safe="It holds.",
            todo="An administrator removes it, if the device is another one; you begin anew when you sign in.",
        )
    _again(door, form)
    orrery.factors.remove(principal.name, by=principal.name, why="Removed by its owner.")
    return _back("factor-remove")


def _token(request: Request, orrery: Orrery, door: Door, form: Fields) -> Response:
    _again(door, form)
    name, lasts = _principal().name, parse_duration(form.get("lasts") or "90d")
    scopes = [one for one in SCOPES if form.get(f"scope-{one}") == "yes"]
    said = {"project": form.get("project", ""), "label": form.get("label", "")}
    why = "Made on the page of the account."
    shown, _ = orrery.keys.token(name, by=name, why=why, scopes=scopes, lasts=lasts, **said)
    return _shown(orrery, shown=shown)


def _revoke(request: Request, orrery: Orrery, door: Door, form: Fields) -> Response:
    name = _principal().name
    orrery.keys.revoke(form.get("token", ""), by=name, why="Revoked by its owner.", account=name)
    return _back("revoke")


OF_OWN: dict[str, Callable[[Request, Orrery, Door, Fields], Response]] = {
    "password": _password,
    "factor": _factor,
    "factor-confirm": _confirm,
    "factor-codes": _codes,
    "factor-remove": _remove,
    "token": _token,
    "revoke": _revoke,
}


def _again(door: Door, form: Fields) -> None:
    door.again(_principal().name, form.get("password", ""), form.get("code", "").strip())


def _principal() -> Principal:
    principal = visitor.get().principal
    assert principal is not None
    return principal


def _page(orrery: Orrery) -> AccountPage:
    principal, now = _principal(), datetime.now(UTC)
    known = next((one for one in orrery.accounts.all() if one.name == principal.name), None)
    by_groups = known.by_groups if known else ()
    roles = [
        f"{one.role} of {'everything' if one.place == EVERYWHERE else one.place}"
        f"{', by a group' if one in by_groups else ''}"
        for one in principal.grants
    ]
    tokens = [
        OwnToken(one.id, ", ".join(one.scopes) + (f" of {one.project}" if one.project else ""), one.until, one.label)
        for one in orrery.keys.all(principal.name)
        if one.holds(now)
    ]
    wish, said = orrery.channels.wishes().get(principal.name, ("all", ""))
    return AccountPage(
        title=principal.name,
        roles=roles,
        issuers=list(known.issuers) if known else [],
        sessions=sum(one.holds(now) for one in orrery.keys.all(principal.name, "session")),
        tokens=tokens,
        scopes=list(SCOPES),
        wish=wish,
        wishes=list(WISHES),
        address=address_of(known.links if known else (), said),
        mail=bool(orrery.settings.mail),
        password=bool(known and known.has_password) and orrery.settings.passwords == "on",
        factor=orrery.factors.has(principal.name),
        must=orrery.factors.must(principal),
        left=orrery.factors.left(principal.name),
    )


def _shown(orrery: Orrery, status: int = 200, **more: object) -> Response:
    return HTMLResponse(html(replace(_page(orrery), **more)), status, headers={"cache-control": "no-store"})  # type: ignore[arg-type]


def _said(error: OrreryError) -> str:
    return " ".join(part for part in (error.what, error.safe, error.todo) if part)


def _back(done: str) -> Response:
    return RedirectResponse(f"/-/account?{urlencode({'done': done})}", 303)
