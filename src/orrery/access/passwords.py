"""Passwords: argon2id."""

from __future__ import annotations

import threading
from functools import cache

from orrery.errors import NotUnderstood

SHORTEST, LONGEST = 12, 256
"""Characters of a password."""
AT_ONCE = threading.BoundedSemaphore(2)
"""Each check takes 64 MiB for its time: more than these wait."""


def check(password: str, name: str) -> str:
    """Return a password, if it may be one.

    Raises
    ------
    NotUnderstood
        If it is too short or long, or little more than the name.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise NotUnderstood(f"A password has {SHORTEST} to {LONGEST} characters.", todo="A sentence is a good one.")
    if name.casefold() in password.casefold() and len(password) < len(name) + SHORTEST:
        raise NotUnderstood("The password is hardly more than the name.", todo="A sentence is a good one.")
    return password


def hashed(password: str, name: str) -> str:
    """Return what is stored of a password; raises as :func:`check`."""
    with AT_ONCE:
        return str(_hasher().hash(check(password, name)))


def fits(stored: str, password: str) -> bool:
    """Say whether a password is the stored one; it takes as long where nothing is stored.

    Who lets strangers try holds :data:`AT_ONCE` meanwhile.
    """
    from argon2.exceptions import InvalidHashError, VerifyMismatchError

    if len(password) > LONGEST:
        return False
    try:
        return bool(_hasher().verify(stored or _nobody(), password)) and bool(stored)
    except (VerifyMismatchError, InvalidHashError):
        return False


@cache
def _hasher():  # type: ignore[no-untyped-def]
    from argon2 import PasswordHasher

    return PasswordHasher()  # argon2id with the parameters of RFC 9106 for low memory


@cache
def _nobody() -> str:
    """Return the hash of a password that nobody has."""
    import secrets

    return str(_hasher().hash(secrets.token_urlsafe(32)))
