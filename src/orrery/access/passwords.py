"""Passwords: which may be one, and argon2id.

What is refused beside short ones is what is guessed early: zxcvbn knows the 30 000 most frequent of those that were
breached elsewhere, and what people make of them and of names, words, dates and keyboards. There are no rules about
which characters a password must have, and nobody outside is asked.
"""

from __future__ import annotations

import threading
from functools import cache

from orrery.errors import NotUnderstood

SHORTEST, LONGEST = 12, 256
"""Characters of a password."""
GUESSES = 10**8
"""As many an attacker needs at least for a password that may be one, beginning with the usual ones."""
_JUDGED = 72
"""Characters that are judged: who has not found the first ones by then has not found the password."""
_ONE_AT_A_TIME = threading.Lock()
AT_ONCE = threading.BoundedSemaphore(2)
"""Each check takes 64 MiB for its time: more than these wait."""


def check(password: str, name: str) -> str:
    """Return a password, if it may be one.

    Raises
    ------
    NotUnderstood
        If it is too short or long, or guessed early: breached elsewhere, or little more than the name.

    Examples
    --------
    >>> check("the moons of Jupiter are four", "mara")
    'the moons of Jupiter are four'
    >>> check("qwertyuiop12", "mara")
    Traceback (most recent call last):
    orrery.errors.NotUnderstood: This password is one of the first that are tried. A sentence is a good one.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise NotUnderstood(f"A password has {SHORTEST} to {LONGEST} characters.", todo="A sentence is a good one.")
    if name.casefold() in password.casefold() and len(password) < len(name) + SHORTEST:
        raise NotUnderstood("The password is hardly more than the name.", todo="A sentence is a good one.")
    if guesses(password, name) < GUESSES:
        raise NotUnderstood("This password is one of the first that are tried.", todo="A sentence is a good one.")
    return password


def guesses(password: str, name: str) -> float:
    """Return how many guesses somebody needs who knows the name, and what passwords usually are."""
    from zxcvbn import zxcvbn

    with _ONE_AT_A_TIME:  # it keeps the names of who is asked about in a global variable
        return float(zxcvbn(password[:_JUDGED], [name], max_length=_JUDGED)["guesses"])


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
