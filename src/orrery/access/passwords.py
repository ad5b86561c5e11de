"""Passwords: argon2id, and more patience with every wrong one."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache

from orrery.errors import NotAllowed, NotUnderstood

SHORTEST, LONGEST = 12, 256
"""Characters of a password."""
FREE = 5
"""Wrong ones in a row before there is a wait."""
LONGEST_WAIT = 900.0
REMEMBERED = 10_000
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
    """Say whether a password is the stored one; it takes as long where nothing is stored."""
    from argon2.exceptions import InvalidHashError, VerifyMismatchError

    if len(password) > LONGEST:
        return False
    with AT_ONCE:
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


class Patience:
    """Counts wrong passwords of a name, whether there is such an account or not; a restart forgets.

    After :data:`FREE` in a row each one doubles the time in which not even the right one is looked at.

    Parameters
    ----------
    now : seconds that only grow.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._wrong: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, name: str) -> None:
        """Refuse while there is a wait.

        Raises
        ------
        NotAllowed
            If there is.
        """
        with self._lock:
            _, until = self._wrong.get(_key(name), (0, 0.0))
        if (wait := until - self._now()) > 0:
            raise NotAllowed(
                "There were too many wrong passwords.",
                safe="Nothing was changed.",
                todo=f"Try again in {wait:.0f} s; a token works in the meantime.",
            )

    def wrong(self, name: str) -> None:
        """Count a wrong one."""
        with self._lock:
            count = self._wrong.pop(_key(name), (0, 0.0))[0] + 1
            wait = min(2.0 ** (count - FREE), LONGEST_WAIT) if count >= FREE else 0.0
            self._wrong[_key(name)] = (count, self._now() + wait)
            while len(self._wrong) > REMEMBERED:
                self._wrong.popitem(last=False)

    def right(self, name: str) -> None:
        """Forget the wrong ones."""
        with self._lock:
            self._wrong.pop(_key(name), None)


def _key(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="replace"), digest_size=16).digest()
