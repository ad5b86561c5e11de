"""The page of all accounts, for who manages them: who may what, since when, by what they come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from orrery.access.accounts import Account
from orrery.access.keys import Key
from orrery.access.roles import EVERYWHERE, ROLES
from orrery.app import Orrery
from orrery.errors import Conflict, NotFound
from orrery.web.asking import Here, known_query
from orrery.web.forms import Fields, read
from orrery.web.render import Page, show

router = APIRouter(include_in_schema=False)
DONE = {
    "grant": "The role is given.",
    "ungrant": "The role is taken back.",
    "sign-out": "All sessions have ended; tokens stay.",
    "disable": "Disabled; sessions and tokens work no more.",
    "revoke": "The token works no more.",
    "unfactor": "The second factor is removed; where a role asks for one, they begin anew when they sign in.",
}


@dataclass(frozen=True)
class Role:
    """A role, where it holds, and whether a group brings it."""

    role: str
    on: str
    group: bool


@dataclass(frozen=True)
class Token:
    """A token that still opens something; never the token itself."""

    id: str
    opens: str
    until: datetime
    seen: datetime | None
    label: str


@dataclass(frozen=True)
class Entry:
    """One account."""

    name: str
    kind: str
    owner: str
    since: str
    disabled: str
    has_password: bool
    factor: bool
    links: list[str]
    issuers: list[str]
    roles: list[Role]
    sessions: int
    tokens: list[Token]


@dataclass(frozen=True, kw_only=True)
class AccountsPage(Page):
    """All accounts."""

    template: ClassVar[str] = "accounts.html"
    refreshes: ClassVar[bool] = False

    accounts: list[Entry]
    roles: list[str]
    done: str


@router.get("/-/accounts", dependencies=[Depends(known_query)])
@router.get("/-/accounts.json", dependencies=[Depends(known_query)])
def accounts(request: Request, orrery: Here, done: str = "") -> Response:
    """Show all accounts."""
    _check(orrery)
    now = datetime.now(UTC)
    sessions, tokens = (_held(orrery.keys.all(kind=kind), now) for kind in ("session", "token"))
    factors = orrery.factors.all()
    found = [
        _entry(one, one.name in factors, sessions.get(one.name, []), tokens.get(one.name, []))
        for one in orrery.accounts.all()
    ]
    page = AccountsPage(title="Accounts", accounts=found, roles=list(ROLES), done=DONE.get(done, ""))
    return show(request, page)


@router.post("/-/accounts/{order}")
async def order_of_account(request: Request, orrery: Here, order: str) -> Response:
    """Carry out what a form on the page of accounts orders."""
    if order not in OF_ACCOUNT:
        raise NotFound(f"There is no order {order!r}.")
    form, why, actor = await read(request)
    await run_in_threadpool(_carry_out, orrery, order, form, why, actor)
    return RedirectResponse(f"/-/accounts?{urlencode({'done': order})}", 303)


def _carry_out(orrery: Orrery, order: str, form: Fields, why: str, actor: str) -> None:
    _check(orrery)
    OF_ACCOUNT[order](orrery, form.get("account", ""), why, actor, form)


def _check(orrery: Orrery) -> None:
    if orrery.settings.access != "required":
        raise Conflict("Nobody signs in here: this orrery is open to whoever is on this machine.")
    orrery.allow("accounts", "")  # here as at the entrance


def _grant(orrery: Orrery, account: str, why: str, actor: str, form: Fields) -> None:
    orrery.accounts.give(account, form.get("role", ""), form.get("on", "") or EVERYWHERE, by=actor, why=why)


def _ungrant(orrery: Orrery, account: str, why: str, actor: str, form: Fields) -> None:
    orrery.accounts.take(account, form.get("role", ""), form.get("on", "") or EVERYWHERE, by=actor, why=why)


def _sign_out(orrery: Orrery, account: str, why: str, actor: str, form: Fields) -> None:
    orrery.accounts.get(account)
    orrery.keys.sign_out(account, by=actor, why=why)


def _disable(orrery: Orrery, account: str, why: str, actor: str, form: Fields) -> None:
    orrery.accounts.disable(account, by=actor, why=why)


def _revoke(orrery: Orrery, account: str, why: str, actor: str, form: Fields) -> None:
    orrery.keys.revoke(form.get("token", ""), by=actor, why=why, account=account)


def _unfactor(orrery: Orrery, account: str, why: str, actor: str, form: Fields) -> None:
    orrery.factors.remove(account, by=actor, why=why)


OF_ACCOUNT: dict[str, Callable[[Orrery, str, str, str, Fields], None]] = {
    "grant": _grant,
    "ungrant": _ungrant,
    "sign-out": _sign_out,
    "disable": _disable,
    "revoke": _revoke,
    "unfactor": _unfactor,
}


def _held(keys: list[Key], now: datetime) -> dict[str, list[Key]]:
    found: dict[str, list[Key]] = {}
    for one in keys:
        if one.holds(now):
            found.setdefault(one.account, []).append(one)
    return found


def _entry(one: Account, factor: bool, sessions: list[Key], tokens: list[Key]) -> Entry:
    def opens(key: Key) -> str:
        return ", ".join(key.scopes) + (f" of {key.project}" if key.project else "")

    return Entry(
        one.name,
        one.kind,
        one.owner,
        one.since,
        one.disabled,
        one.has_password,
        factor,
        list(one.links),
        list(one.issuers),
        [Role(each.role, each.place, each in one.by_groups) for each in one.grants],
        len(sessions),
        [Token(key.id, opens(key), key.until, key.seen, key.label) for key in tokens],
    )
