"""How an orrery may be reached: what its settings must not be together.

Nothing listens beyond this machine without accounts and TLS; nobody signs in by a word that can be changed on its way.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orrery.errors import NotAllowed, NotUnderstood

if TYPE_CHECKING:
    from orrery.settings import Settings


def check(settings: Settings) -> None:
    """Refuse settings that leave a door open, or say half of what they need.

    Raises
    ------
    NotUnderstood
        If an address is none, or something is missing beside what is there.
    NotAllowed
        If it could be reached by whoever likes, or in the clear, or nobody could sign in.
    """
    _check_reach(settings)
    _check_tls(settings)
    _check_sign_on(settings)


def _check_reach(settings: Settings) -> None:
    """Refuse to be reachable from elsewhere by whoever likes, or in the clear."""
    parts = urlsplit(settings.url)
    if settings.url and (parts.scheme != "https" or not parts.hostname or parts.path or parts.query or parts.username):
        raise NotUnderstood(
            f"ORRERY_URL is {settings.url!r}.",
            todo="Give https://NAME, where a proxy or orrery answers by TLS; no path.",
        )
    try:
        within = ipaddress.ip_address(settings.listen).is_loopback
    except ValueError:
        raise NotUnderstood(f"ORRERY_LISTEN is {settings.listen!r}.", todo="Give an IP address.") from None
    beyond = not within or bool(settings.url)
    if beyond and settings.access != "required":
        raise NotAllowed(
            "Whoever reaches this orrery could do everything.",
            safe="Nothing was started.",
            todo="Set ORRERY_ACCESS=required, or leave ORRERY_LISTEN and ORRERY_URL away.",
        )
    if not within and not settings.url:
        raise NotAllowed(
            f"On {settings.listen} passwords would go over the network in the clear.",
            safe="Nothing was started.",
            todo="Put a proxy that does TLS before it, or give it ORRERY_TLS_CERTIFICATE, and say by which name people "
            "come: ORRERY_URL=https://NAME.",
        )


def _check_tls(settings: Settings) -> None:
    """Refuse half of what TLS needs."""
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise NotUnderstood("A certificate and its key belong together.", todo="Set ORRERY_TLS_KEY, too, or neither.")
    if settings.tls_certificate and not settings.url:
        raise NotUnderstood(
            "By which name do people come?", todo="Set ORRERY_URL=https://NAME:PORT, as the certificate has it."
        )
    inference = settings.serving_tls_port or settings.grpc_tls_port
    if inference and not settings.tls_certificate:
        raise NotUnderstood("TLS takes a certificate.", todo="Set ORRERY_TLS_CERTIFICATE and ORRERY_TLS_KEY.")
    if settings.serving_clients and not inference:
        raise NotUnderstood(
            "Clients show certificates only where there is TLS.",
            todo="Set ORRERY_SERVING_TLS_PORT or ORRERY_GRPC_TLS_PORT, too.",
        )


def _check_sign_on(settings: Settings) -> None:
    """Refuse half of what OpenID Connect needs, and a provider whose word anybody on the network could change."""
    oidc = settings.oidc
    if not oidc.issuer:
        if oidc != type(oidc)():
            raise NotUnderstood("There is no provider of identities.", todo="Set ORRERY_OIDC_ISSUER, too, or neither.")
        if settings.passwords == "off":
            raise NotAllowed("Nobody could sign in.", todo="Set ORRERY_OIDC_ISSUER, or ORRERY_PASSWORDS=on.")
        return
    if settings.access != "required":
        raise NotAllowed("Where access is open nobody signs in.", todo="Set ORRERY_ACCESS=required, too.")
    if not is_safe_url(oidc.issuer):
        raise NotUnderstood(
            f"ORRERY_OIDC_ISSUER is {oidc.issuer!r}.",
            todo="Give https://..., as the provider calls itself; http:// only where it is on this machine.",
        )
    if not oidc.client_id:
        raise NotUnderstood("The provider must know this orrery by a name.", todo="Set ORRERY_OIDC_CLIENT_ID.")
    if "openid" not in oidc.scopes.split():
        raise NotUnderstood("Without the scope openid no provider says who somebody is.", todo="Add it.")


def is_safe_url(url: str) -> bool:
    """Say whether what is read at an address cannot be changed on the way.

    Examples
    --------
    >>> [is_safe_url(f"{one}/x") for one in ("https://id.example", "http://127.0.0.1:9", "http://id.example", "ftp://x")]
    [True, True, False, False]
    """
    parts = urlsplit(url)
    if parts.username or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))
