"""OpenID Connect: who somebody is, by the word of a provider that this orrery trusts.

Authorization Code with PKCE (RFC 7636, S256), discovery, and an id token of which everything is checked before a word
of it is believed (OpenID Connect Core 1.0, section 3.1.3.7).
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from orrery.errors import NotAllowed, NotUnderstood, OrreryError
from orrery.reach import is_safe_url
from orrery.settings import Oidc

ALGORITHMS = ["RS256", "ES256"]
"""Signatures that are believed: no ``none``, and none that is made with the secret of the client."""
LEEWAY = 60
"""Seconds by which the clocks of provider and orrery may differ."""
KEPT = 3600.0
"""Seconds for which what the provider publishes is remembered."""
AGAIN = 5.0
"""Seconds after which its keys are asked for anew where none of them fits: it may have changed them."""
TIMEOUT = 10.0


class NotProven(NotAllowed):
    """What the provider said does not prove who this is."""


class Unreachable(OrreryError):
    """The provider of identities does not answer as it should."""


@dataclass(frozen=True)
class Person:
    """Who signs in, by the word of the provider.

    Parameters
    ----------
    issuer, subject : who it is, for ever.
    names : what they may be called here, best first.
    email : their address if the provider has verified it, else empty.
    groups : of which they are a member.
    """

    issuer: str
    subject: str
    names: tuple[str, ...] = ()
    email: str = ""
    groups: tuple[str, ...] = ()


class Provider:
    """The provider of identities; may be shared by threads.

    Parameters
    ----------
    oidc : where it is, and what this orrery is to it.
    back : address to which it sends people back.
    """

    def __init__(self, oidc: Oidc, back: str) -> None:
        self._oidc, self._back = oidc, back
        self._secret = _secret(oidc.client_secret_file)
        self._found: dict[str, tuple[float, dict[str, Any]]] = {}
        self._failed: dict[str, tuple[float, Unreachable]] = {}
        self._lock = threading.Lock()

    def ask(self, state: str, nonce: str, verifier: str) -> str:
        """Return the address at which a browser asks the provider who somebody is.

        Parameters
        ----------
        state, nonce : what must come back with the browser, and in the id token.
        verifier : what only who asked can show; the provider is told its digest.

        Raises
        ------
        Unreachable
            If the provider does not say where that is.
        """
        challenge = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._oidc.client_id,
            "redirect_uri": self._back,
            "scope": self._oidc.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        where = self._endpoint("authorization_endpoint")
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"

    def person(self, code: str, nonce: str, verifier: str) -> Person:
        """Return whom a code stands for.

        Raises
        ------
        NotProven
            If the provider does not take the code, or its id token does not hold.
        Unreachable
            If the provider does not answer as it should.
        """
        answer = self._exchange(code, verifier)
        claims = self._claims(answer.get("id_token"), nonce)
        if self._oidc.groups_claim not in claims or "email" not in claims:
            claims = self._more(claims, answer.get("access_token"))
        email = claims.get("email") if claims.get("email_verified") is True else ""
        names = (claims.get("preferred_username"), email, claims["sub"])
        return Person(
            self._oidc.issuer,
            claims["sub"],
            tuple(one for one in names if isinstance(one, str) and one),
            email if isinstance(email, str) else "",
            _groups(claims.get(self._oidc.groups_claim)),
        )

    def keys(self) -> int:
        """Return how many keys the provider publishes with which it may sign.

        Raises
        ------
        Unreachable
            If it does not say so.
        """
        return len(self._keys(KEPT)["keys"])

    def _keys(self, kept: float) -> Any:
        published = self._published(self._endpoint("jwks_uri"), kept).get("keys") or []
        return {"keys": [one for one in published if isinstance(one, dict) and one.get("kty") in ("RSA", "EC")]}

    def _exchange(self, code: str, verifier: str) -> dict[str, Any]:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._back, "code_verifier": verifier}
        headers = {"accept": "application/json"}
        methods = self._discovered().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if self._secret and "client_secret_basic" in methods:
            pair = f"{quote(self._oidc.client_id, safe='')}:{quote(self._secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = self._oidc.client_id
            if self._secret:
                form["client_secret"] = self._secret
        status, answer = self._ask("POST", self._endpoint("token_endpoint"), headers, form)
        if status != 200:
            # What it says for people is not passed on: it is written by who sent the code.
            raise NotProven(f"The provider does not take the code (status {status}).", todo="Sign in again.")
        return answer

    def _claims(self, token: Any, nonce: str) -> dict[str, Any]:
        if not isinstance(token, str):
            raise NotProven("The provider gave no id token.", todo="Does the client have the scope openid there?")
        claims = self._signed(token)
        audience = claims.get("aud")
        several = isinstance(audience, list) and len(audience) > 1
        must: dict[str, Any] = {
            "iss": {"essential": True, "value": self._oidc.issuer},
            "aud": {"essential": True, "value": self._oidc.client_id},
            "nonce": {"essential": True, "value": nonce},
            "sub": {"essential": True},
            "exp": {"essential": True},
            "iat": {"essential": True},
            # Who else may read the token must not be who it was made for.
            "azp": {"essential": several, "value": self._oidc.client_id},
        }
        try:
            jwt.JWTClaimsRegistry(leeway=LEEWAY, **must).validate(claims)
        except JoseError as error:
            raise NotProven(f"The id token does not hold: {_named(error)}.", todo="Sign in again.") from None
        if len(claims["sub"]) > 255:
            raise NotProven("The id token does not hold: sub.")
        return claims

    def _signed(self, token: str) -> dict[str, Any]:
        """Return what a token says, if a key of the provider has signed it."""
        for kept in (KEPT, AGAIN):
            keys = self._keys(kept)
            try:
                return dict(jwt.decode(token, KeySet.import_key_set(keys), algorithms=ALGORITHMS).claims)
            except (JoseError, ValueError, KeyError, TypeError) as error:
                last = _named(error)
        raise NotProven(f"The signature of the id token does not hold: {last}.", todo="Sign in again.")

    def _more(self, claims: dict[str, Any], access: Any) -> dict[str, Any]:
        """Return the claims with those that the provider tells only who asks for them."""
        where = self._discovered().get("userinfo_endpoint")
        if not where or not isinstance(access, str):
            return claims
        where = self._endpoint("userinfo_endpoint")
        status, told = self._ask("GET", where, {"authorization": f"Bearer {access}", "accept": "application/json"})
        if status != 200 or told.get("sub") != claims["sub"]:
            raise NotProven("What the provider tells of this person is of another one.", todo="Sign in again.")
        if "email" in claims:  # an address and whether it is verified are of one source
            told = {name: value for name, value in told.items() if name not in ("email", "email_verified")}
        else:
            claims = {name: value for name, value in claims.items() if name != "email_verified"}
        return {**told, **claims}

    def _endpoint(self, name: str) -> str:
        found = self._discovered().get(name)
        if not isinstance(found, str) or not is_safe_url(found):
            raise Unreachable(f"The provider {self._oidc.issuer} has no {name} that can be trusted.")
        return found

    def _discovered(self) -> dict[str, Any]:
        found = self._published(f"{self._oidc.issuer.rstrip('/')}/.well-known/openid-configuration", KEPT)
        if found.get("issuer") != self._oidc.issuer:
            raise Unreachable(
                f"At {self._oidc.issuer} answers a provider that calls itself {found.get('issuer')!r}.",
                todo="ORRERY_OIDC_ISSUER must be what the provider calls itself, to the letter.",
            )
        return found

    def _published(self, address: str, kept: float) -> dict[str, Any]:
        with self._lock:
            at, found = self._found.get(address, (float("-inf"), {}))
            if time.monotonic() - at < kept:
                return found
            failed, error = self._failed.get(address, (float("-inf"), Unreachable()))
            if time.monotonic() - failed < AGAIN:  # who waits behind the first one would wait as long for the same
                raise error
            try:
                status, found = self._ask("GET", address, {"accept": "application/json"})
                if status != 200:
                    raise Unreachable(f"{address} answers with status {status}.", todo=_LATER)
            except Unreachable as caught:
                self._failed[address] = (time.monotonic(), caught)
                raise
            self._found[address] = (time.monotonic(), found)
            return found

    def _ask(
        self, method: str, address: str, headers: dict[str, str], form: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        try:
            # Where the provider is on this machine no proxy lies between.
            with httpx.Client(timeout=TIMEOUT, trust_env=address.startswith("https:")) as client:
                answer = client.request(method, address, headers=headers, data=form)
                found = answer.json()
        except httpx.HTTPError as error:
            what = f"The provider {self._oidc.issuer} cannot be reached ({type(error).__name__})."
            raise Unreachable(what, todo=_LATER) from None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"{address} answers what is no JSON object (status {answer.status_code}).")
        return answer.status_code, found


_LATER = "Try again later, or sign in with a password, if you have one; tokens go on."


def _secret(file: str) -> str:
    if not file:
        return ""
    try:
        found = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotUnderstood(f"The secret of the OpenID Connect client cannot be read: {error}.") from None
    if not found:
        raise NotUnderstood(f"{file} is empty.", todo="Put the secret of the client there, and nothing else.")
    return found


def _groups(found: Any) -> tuple[str, ...]:
    """Return the groups of a claim; what is none is no group."""
    if isinstance(found, str):
        return (found,)
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _named(error: Exception) -> str:
    """Return what an error is about, without what somebody else wrote."""
    claim = getattr(error, "claim", "")
    kind = getattr(error, "error", "") or type(error).__name__
    return f"{claim} ({kind})" if claim else str(kind)
