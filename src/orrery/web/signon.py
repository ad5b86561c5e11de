"""Signing in by OpenID Connect: out to the provider of identities, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from orrery.app import Orrery
from orrery.errors import NotAllowed, NotFound, OrreryError
from orrery.web.entrance import cookie_name
from orrery.web.signing import Whole, begin, put_cookie, sign_in_page, within

if TYPE_CHECKING:
    from orrery.access.sign_on import SignOn

router = APIRouter(prefix="/-/oidc", include_in_schema=False)
# No check of the query: providers send back what they like.


@router.get("")
async def go(request: Request, orrery: Whole, next: str = "/") -> Response:
    """Send a browser to the provider."""
    sign_on = _sign_on(request)
    host = sign_on.url.partition("://")[2]
    if request.headers.get("host") != host:  # it comes back under that name, and the cookie would be of another
        return RedirectResponse(str(request.url.replace(scheme=sign_on.url.partition("://")[0], netloc=host)), 303)
    try:
        where, cookie = await run_in_threadpool(sign_on.begin, within(next))
    except OrreryError as error:
        return _refused(orrery, error)
    answer = RedirectResponse(where, 303)
    put_cookie(answer, orrery, _name(orrery), cookie, 600)
    return answer


@router.get("/back")
async def back(request: Request, orrery: Whole) -> Response:
    """Take back who comes from the provider, and begin a session."""
    sign_on = _sign_on(request)
    cookie = request.cookies.get(_name(orrery), "")
    try:
        account, place = await run_in_threadpool(sign_on.end, dict(request.query_params), cookie)
        how, place = f"at {sign_on.issuer}", within(place)
        answer = await run_in_threadpool(lambda: begin(request, orrery, account, how, place, by_provider=True))
    except OrreryError as error:
        answer = _refused(orrery, error)
    put_cookie(answer, orrery, _name(orrery), "", 0)
    return answer


def _sign_on(request: Request) -> SignOn:
    found: SignOn | None = request.app.state.sign_on
    if found is None:
        raise NotFound("There is no provider of identities here.", todo="ORRERY_OIDC_ISSUER names one.")
    return found


def _name(orrery: Orrery) -> str:
    return f"{cookie_name(orrery)}-oidc"


def _refused(orrery: Orrery, error: OrreryError) -> Response:
    status = 403 if isinstance(error, NotAllowed) else 502
    return sign_in_page(orrery, "/", f"{error.what} {error.todo}", status)
