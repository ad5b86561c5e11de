"""Who is at the door: an account, by what it shows.

Shown can be a session (pages), a token as bearer or in place of a password (programs), or name and password (git,
MLflow and the API). What opens nothing is written down, and told alike whatever the reason.

Where a second factor is asked for, a password opens nothing by itself: it gives a ticket, which a browser keeps for
some minutes until a code has come. Nothing is remembered in between; a ticket falls with the password it stands for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Literal

from orrery.access.accounts import Accounts
from orrery.access.denials import STRANGER, Denials
from orrery.access.factors import Factors
from orrery.access.homekey import TRAINING, trains
from orrery.access.keys import PROVIDER, Keys, csrf_of
from orrery.access.passwords import AT_ONCE
from orrery.access.patience import Patience
from orrery.access.roles import Grant, Principal
from orrery.errors import NotAllowed

SERVING = Principal("orrery/serving")
"""The inference servers of this orrery."""
TICKET = 300
"""Seconds between a password and the code that belongs to it."""


class Denied(Exception):
    """What was shown opens nothing."""


@dataclass(frozen=True)
class Shown:
    """What a request shows of who it is from.

    Parameters
    ----------
    bearer, name, password, session : what it says; empty where it says nothing.
    same_origin : whether a browser says that a page of ours sent it.
    """

    bearer: str = ""
    name: str = ""
    password: str = ""
    session: str = ""
    same_origin: bool = False


@dataclass(frozen=True)
class Visitor:
    """Who asks.

    Parameters
    ----------
    principal : who; nothing where nothing was shown, or a session that is over.
    csrf : what the forms of the session carry; empty where there is none.
    """

    principal: Principal | None
    csrf: str = ""


class Door:
    """Knows who shows what; may be shared by threads.

    Parameters
    ----------
    accounts, keys, denials : of one orrery.
    home_key : what its own processes show.
    patience : with wrong passwords and codes.
    factors : second factors.
    passwords : whether people may sign in with one.
    """

    def __init__(
        self,
        accounts: Accounts,
        keys: Keys,
        denials: Denials,
        home_key: str,
        patience: Patience,
        factors: Factors,
        *,
        passwords: bool = True,
    ) -> None:
        self._accounts, self._keys, self._denials, self._home_key = accounts, keys, denials, home_key
        self._patience, self._factors, self._passwords = patience, factors, passwords

    def who(self, shown: Shown, entrance: str, writes: bool) -> Visitor:
        """Return who asks.

        Raises
        ------
        Denied
            If something is shown that opens nothing.
        NotAllowed
            If it opens something else, or there were too many wrong passwords.
        """
        if shown.bearer or shown.password:
            return Visitor(self._by_program(shown, entrance))
        if not shown.session or entrance == "git":
            return Visitor(None)
        key = self._keys.check(shown.session, "session")
        principal = self._accounts.principal(key.account, key=key.id) if key else None
        if key is None or principal is None or self._lacks(principal, key.label):
            return Visitor(None)
        if writes and (entrance == "api" or not shown.same_origin):
            self._denials.note(
                principal.name, "forged", "A write with the session of a browser, not from a page of ours."
            )
            raise NotAllowed(
                "The session of a browser does not write here.", safe="Nothing was changed.", todo="Use a token."
            )
        return Visitor(principal, csrf_of(shown.session))

    def sign_in(self, name: str, password: str) -> Principal | None:
        """Return who has this name and password; what does not fit is written down and makes the next try slower.

        That is not yet who may come in: :meth:`asks` says what else there must be.

        Raises
        ------
        NotAllowed
            If there were too many tries, or nobody signs in with a password here.
        """
        if not self._passwords:
            raise NotAllowed("Nobody signs in with a password here.", todo="Use a token: `orrery token create`.")
        known = self._accounts.principal(name)
        who = known.name if known else STRANGER
        with AT_ONCE:  # a hundred tries at once are counted like a hundred tries one after the other
            try:
                self._patience.check(name)
            except NotAllowed:
                self._denials.note(who, "locked", "A password after too many wrong ones; it was not looked at.")
                raise
            if self._accounts.fits(name, password):
                if not self._factors.has(name):  # else wrong codes would be forgotten with each right password
                    self._patience.right(name)
                return known
            self._patience.wrong(name)
        self._denials.note(who, "sign-in", "A wrong name or password.")
        return None

    def asks(self, principal: Principal) -> Literal["", "code", "enrol"]:
        """Return what somebody with the right password must show yet: nothing, a code, or a device to begin with."""
        if self._factors.has(principal.name):
            return "code"
        return "enrol" if self._factors.must(principal) else ""

    def ticket(self, principal: Principal) -> str:
        """Return what says for some minutes that somebody has shown their password."""
        name = base64.urlsafe_b64encode(principal.name.encode()).decode().rstrip("=")
        kept = f"{int(time.time()) + TICKET}.{name}"
        return f"{kept}.{self._made(kept, principal.name)}"

    def holder(self, ticket: str) -> Principal | None:
        """Return whose ticket this is; nothing if it is none, is too old, or the password has changed since."""
        kept, _, mark = ticket.rpartition(".")
        until, _, text = kept.partition(".")
        try:
            name = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        except (binascii.Error, ValueError):
            return None
        if not self._accounts.mark(name) or not hmac.compare_digest(mark.encode(), self._made(kept, name).encode()):
            return None
        return self._accounts.principal(name) if time.time() < int(until) else None

    def code(self, principal: Principal, code: str) -> bool:
        """Say whether this is a code of theirs, and use it up; a wrong one makes the next try slower.

        Raises
        ------
        TooOften
            If there were too many tries.
        """
        with AT_ONCE:
            try:
                self._patience.check(principal.name)
            except NotAllowed:
                self._denials.note(principal.name, "locked", "A code after too many wrong ones; it was not looked at.")
                raise
            if self._factors.fits(principal.name, code):
                self._patience.right(principal.name)
                return True
            self._patience.wrong(principal.name)
        self._denials.note(principal.name, "sign-in", "A wrong code of a second factor.")
        return False

    def again(self, name: str, password: str, code: str) -> None:
        """Ask who has a session for their password, and code, before what matters most.

        Raises
        ------
        NotAllowed
            If they do not fit, or there were too many tries.
        """
        principal = self.sign_in(name, password)
        if principal is None:
            raise NotAllowed("The password does not fit.", safe="Nothing was changed.")
        if self.asks(principal) == "code" and not self.code(principal, code):
            raise NotAllowed("The code does not fit, or was used before.", safe="Nothing was changed.")

    def _lacks(self, principal: Principal, session: str) -> bool:
        """Say whether a session lacks the second factor that the roles of its account ask for by now."""
        return session != PROVIDER and self._factors.must(principal) and not self._factors.has(principal.name)

    def _made(self, kept: str, name: str) -> str:
        of = f"ticket/{kept}/{self._accounts.mark(name)}"
        return hmac.new(self._home_key.encode(), of.encode(), hashlib.sha256).hexdigest()

    def _by_program(self, shown: Shown, entrance: str) -> Principal:
        if shown.bearer and hmac.compare_digest(shown.bearer.encode(), self._home_key.encode()):
            return SERVING
        if shown.bearer and entrance == "mlflow" and (project := trains(self._home_key, shown.bearer)):
            return Principal(TRAINING, (Grant("scientist", project),), self._accounts.teams(), project)
        if (shown.bearer or shown.password).startswith("orrery_"):
            return self._by_token(shown, entrance)
        if shown.bearer:
            raise self._denied(entrance, "A bearer that is no token.")
        principal = self.sign_in(shown.name, shown.password)
        if principal is None or entrance not in ("git", "mlflow", "api"):
            raise Denied("Name and password do not fit.")
        if self.asks(principal):
            why = f"{principal.name} signs in with a second factor, for which there is no place here."
            self._denials.note(principal.name, entrance, why)
            raise NotAllowed(why, safe="Nothing was changed.", todo="Use a token, from the page of the account.")
        return principal

    def _by_token(self, shown: Shown, entrance: str) -> Principal:
        key = self._keys.check(shown.bearer or shown.password, "token")
        principal = self._accounts.principal(key.account, project=key.project, key=key.id) if key else None
        if key is None or principal is None:
            raise self._denied(entrance, "A token that opens nothing: wrong, expired or revoked.")
        if not shown.bearer and shown.name.casefold() not in ("", "token", principal.name.casefold()):
            raise self._denied(entrance, "A token under the name of another account.")
        if entrance not in key.scopes and not (entrance == "pages" and "api" in key.scopes):
            why = f"The token {key.id} of {principal.name} is not for {entrance}, only for {', '.join(key.scopes)}."
            self._denials.note(principal.name, entrance, why)
            raise NotAllowed(why, safe="Nothing was changed.", todo="`orrery token create` makes one that is.")
        return principal

    def _denied(self, entrance: str, why: str) -> Denied:
        self._denials.note(STRANGER, entrance, why)
        return Denied("What was shown opens nothing.")
