"""Signing in by OpenID Connect: out to the provider, and back with a proof.

Nothing is remembered in between. The browser keeps a random text, signed with the key of the home folder, in a cookie
that no script and no other page can read; state, nonce and the verifier of PKCE are made from it and that key, so that
only this browser can end what it began, and only here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Iterator, Mapping

from orrery.access.denials import STRANGER, Denials
from orrery.access.identities import Identities, groups_of
from orrery.access.oidc import NotProven, Provider
from orrery.errors import NotAllowed
from orrery.settings import Settings
from orrery.timeline.store import Timeline

BACK = "/-/oidc/back"
WITHIN = 600
"""Seconds in which who went out must be back."""
AT_ONCE = 8
"""People whom the provider is asked about at once; each takes a thread for as long as it takes to answer."""


class SignOn:
    """Sends people to the provider and takes them back; may be shared by threads.

    Parameters
    ----------
    settings : where the provider is.
    timeline, denials : of the same orrery.
    home_key : what the cookies are signed with.

    Raises
    ------
    NotUnderstood
        If what the settings say of groups, or the file with the secret, cannot be read.
    """

    def __init__(self, settings: Settings, timeline: Timeline, denials: Denials, home_key: str) -> None:
        oidc = settings.oidc
        self.issuer, self.url = oidc.issuer, settings.public_url
        self._provider = Provider(oidc, f"{settings.public_url}{BACK}")
        self._identities = Identities(timeline, groups_of(oidc.groups), oidc.newcomers)
        self._denials, self._key = denials, home_key.encode()
        self._asking = threading.BoundedSemaphore(AT_ONCE)

    def begin(self, place: str) -> tuple[str, str]:
        """Return where a browser goes to, and the cookie that it keeps meanwhile.

        Parameters
        ----------
        place : where it wants to go afterwards.

        Raises
        ------
        Unreachable
            If the provider does not answer.
        NotAllowed
            If too many wait for it.
        """
        kept = ".".join((str(int(time.time())), secrets.token_urlsafe(32), _text(place.encode())))
        cookie = f"{kept}.{self._made('cookie', kept)}"
        with self._turn():
            where = self._provider.ask(*(self._made(what, cookie) for what in ("state", "nonce", "verifier")))
        return where, cookie

    def end(self, said: Mapping[str, str], cookie: str) -> tuple[str, str]:
        """Return the account of who comes back, and where they want to go; what does not hold is written down.

        Parameters
        ----------
        said : the query of the address that the provider sent the browser to.
        cookie : what the browser kept.

        Raises
        ------
        NotAllowed
            If it is proven of nobody, or who it is may not come in.
        Unreachable
            If the provider does not answer as it should.
        """
        try:
            place = self._place(said, cookie)
            with self._turn():
                nonce, verifier = self._made("nonce", cookie), self._made("verifier", cookie)
                person = self._provider.person(said.get("code", ""), nonce, verifier)
        except NotProven as error:
            self._denials.note(STRANGER, "sign-in", f"By OpenID Connect: {error.what}")
            raise
        try:
            return self._identities.arrive(person), place
        except NotAllowed as error:
            self._denials.note(STRANGER, "sign-in", f"By OpenID Connect: {error.what}")
            raise

    def _place(self, said: Mapping[str, str], cookie: str) -> str:
        kept, _, mark = cookie.rpartition(".")
        parts = kept.split(".")
        if len(parts) != 3 or not hmac.compare_digest(mark.encode(), self._made("cookie", kept).encode()):
            raise NotProven("This browser has not begun to sign in here.", todo="Sign in again.")
        if not 0 <= time.time() - int(parts[0]) <= WITHIN:
            raise NotProven("This took too long.", todo="Sign in again.")
        state = self._made("state", cookie)
        if not hmac.compare_digest(said.get("state", "").encode(), state.encode()):
            raise NotProven("What came back belongs to another sign-in.", todo="Sign in again.")
        if said.get("iss", self.issuer) != self.issuer:  # RFC 9207
            raise NotProven("The answer is of another provider.", todo="Sign in again.")
        if "error" in said:
            known = said["error"] if said["error"] in _ERRORS else "an error"
            raise NotProven(f"The provider did not let you in: {known}.", todo="Sign in again.")
        return base64.urlsafe_b64decode(parts[2] + "=" * (-len(parts[2]) % 4)).decode()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Keep so few threads waiting for the provider that those of the pages are never all gone."""
        if not self._asking.acquire(blocking=False):
            raise NotAllowed("Many people sign in at this moment.", todo="Try again in a moment.")
        try:
            yield
        finally:
            self._asking.release()

    def _made(self, what: str, of: str) -> str:
        return _text(hmac.new(self._key, f"sign-on/{what}/{of}".encode(), hashlib.sha256).digest())


_ERRORS = {"access_denied", "login_required", "consent_required", "interaction_required", "invalid_request"} | {
    "unauthorized_client", "invalid_scope", "server_error", "temporarily_unavailable", "unsupported_response_type"
}  # fmt: skip


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
