"""How often is too often, at the entrance: requests and pushes of an account, tries of an address.

Whoever shows a token that holds, or a session, is let in whatever else comes from their address: what is slowed down
there are signing in and what opens nothing. The processes of this orrery are not counted.
"""

from __future__ import annotations

from orrery.access.allowance import Allowance
from orrery.access.door import Shown
from orrery.access.roles import Principal
from orrery.errors import TooOften
from orrery.settings import Settings
from orrery.web.guard import SAFE, Scope
from orrery.web.rules import Rule

FREE = ("/static/", "/api/health")
_OURS = "orrery/"


class Often:
    """Refuses what comes too often; one for all requests.

    Parameters
    ----------
    settings : how often that is, and where a proxy says who asks.
    """

    def __init__(self, settings: Settings) -> None:
        self._requests, self._pushes = Allowance(settings.requests_a_minute), Allowance(settings.pushes_a_minute)
        self._tries, self._header = Allowance(settings.tries_a_minute), settings.client_header.encode("latin-1")

    def address(self, scope: Scope) -> str:
        """Return the address that a request comes from; with a proxy that says it, what it says last."""
        if self._header:
            said = [value for name, value in scope["headers"] if name == self._header]
            last = said[-1].decode("latin-1").rpartition(",")[2].strip() if said else ""
            if last:
                return last[:64]
        return str((scope.get("client") or ("",))[0])

    def before(self, scope: Scope, shown: Shown, rule: Rule | None) -> None:
        """Refuse, before anything is looked at, a try of an address that has had its tries.

        Raises
        ------
        TooOften
            If it has.
        """
        address, path = self.address(scope), scope["path"]
        if shown.password and not shown.bearer and not shown.password.startswith("orrery_"):
            _check(self._tries.wait(address), "There were too many tries from your address.")
        signing = rule is not None and rule.permission == "public" and path.startswith("/-/")
        if signing and scope["method"] not in SAFE:
            _check(self._tries.take(address), "There were too many tries from your address.")

    def wrong(self, scope: Scope) -> None:
        """Count what opened nothing.

        Raises
        ------
        TooOften
            If the address has had its tries.
        """
        _check(self._tries.take(self.address(scope)), "There were too many tries from your address.")

    def request(self, scope: Scope, principal: Principal | None) -> None:
        """Count a request of somebody, or of an address where nobody is known.

        Raises
        ------
        TooOften
            If there are too many.
        """
        path = scope["path"]
        if path.startswith(FREE) or (principal is not None and principal.name.startswith(_OURS)):
            return
        who = f"account {principal.name}" if principal is not None else f"address {self.address(scope)}"
        _check(self._requests.take(who), "There were too many requests.")
        if path.startswith("/git/") and path.endswith("/git-receive-pack"):
            _check(self._pushes.take(who), "There were too many pushes.")


def _check(wait: float, what: str) -> None:
    if wait > 0:
        raise TooOften(what, wait=wait, safe="Nothing was changed.", todo=f"Try again in {max(1, round(wait))} s.")
