"""Secrets that orrery must be able to show again: addresses with tokens in them, keys that it signs with.

They are encrypted with AES-256-GCM, bound to what they are for, under a key that the key of the home folder gives: a
copy of the database alone says nothing.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING

from orrery.access.homekey import home_keys
from orrery.errors import Damaged

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


class Vault:
    """Seals and opens texts; may be shared by threads.

    Parameters
    ----------
    home : folder whose key is used.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def seal(self, text: str, use: str) -> str:
        """Return a text encrypted, for one use and no other; nothing for nothing."""
        if not text:
            return ""
        nonce = os.urandom(_NONCE)
        return base64.urlsafe_b64encode(nonce + self._ciphers()[0].encrypt(nonce, text.encode(), use.encode())).decode()

    def opened(self, sealed: str, use: str) -> str:
        """Return what was sealed for this use.

        Raises
        ------
        Damaged
            If it was sealed for another use, in another home, or changed.
        """
        from cryptography.exceptions import InvalidTag

        if not sealed:
            return ""
        for cipher in self._ciphers():
            with contextlib.suppress(InvalidTag, binascii.Error, ValueError):
                body = base64.urlsafe_b64decode(sealed)
                return cipher.decrypt(body[:_NONCE], body[_NONCE:], use.encode()).decode()
        raise Damaged(
            f"The secret of {use} cannot be read with the key of this home.",
            todo="Bring the file `key` of the home folder back, or set the secret anew.",
        )

    def _ciphers(self) -> list[AESGCM]:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        keys = home_keys(self._home)
        return [AESGCM(hmac.digest(key.encode(), b"orrery/vault", hashlib.sha256)) for key in keys]
