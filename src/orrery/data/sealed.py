"""Values that are encrypted before they are written: AES-256-GCM, with a key of its own for each person.

The keys of persons (or of a dataset whose rows have none) are random and lie in one small file, each encrypted with
the key that the home folder's key file gives. Without its key nothing of what it sealed can be read, wherever a copy of
it may be.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orrery.errors import Damaged

FILE = "privacy/keys.db"
MARK = "enc_"
HIDDEN = "_enc_"
"""Begins the column that holds what is encrypted; it is in no version of a dataset, so that no model learns from it."""
_NONCE = 12


class Sealed:
    """Encrypts and decrypts values; any number of processes may share the file.

    Parameters
    ----------
    path : file of the keys.
    wrapping : 32 bytes that those are encrypted with.
    older : what they may still be encrypted with, while that is replaced.
    """

    def __init__(self, path: Path, wrapping: bytes, older: Sequence[bytes] = ()) -> None:
        self.path = path
        self._wrapping, self._older = AESGCM(wrapping), [AESGCM(one) for one in older]

    def seal(self, whose: Sequence[str], values: Sequence[Any]) -> list[str | None]:
        """Return each value encrypted with the key of whose it is; the keys are made where there are none."""
        keys = self._keys(set(whose), make=True)
        sealed: list[str | None] = []
        for name, value in zip(whose, values, strict=True):
            if value is None:
                sealed.append(None)
                continue
            nonce = os.urandom(_NONCE)
            body = AESGCM(keys[name]).encrypt(nonce, json.dumps(value, default=str).encode(), name.encode())
            sealed.append(MARK + base64.urlsafe_b64encode(nonce + body).decode())
        return sealed

    def opened(self, whose: Sequence[str], values: Sequence[str | None]) -> list[Any]:
        """Return what was encrypted; nothing where the key is gone.

        Raises
        ------
        Damaged
            If a value is not what was written, or was sealed for somebody else.
        """
        keys = self._keys(set(whose), make=False)
        found: list[Any] = []
        for name, value in zip(whose, values, strict=True):
            if value is None or name not in keys:
                found.append(None)
                continue
            body = base64.urlsafe_b64decode(value.removeprefix(MARK))
            try:
                clear = AESGCM(keys[name]).decrypt(body[:_NONCE], body[_NONCE:], name.encode())
            except InvalidTag:
                raise Damaged("An encrypted value is not what was written.") from None
            found.append(json.loads(clear))
        return found

    def forget(self, whose: str) -> bool:
        """Destroy a key: what it sealed can be read nowhere any more. Returns whether there was one."""
        if not self.path.exists():
            return False
        with self._open() as database:
            known = database.execute("DELETE FROM keys WHERE whose = ?", [whose]).rowcount > 0
        with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as database:
            database.execute("VACUUM")  # writes the file anew, without what was deleted
        return known

    def wrapped_anew(self) -> int:
        """Encrypt all keys anew, in one step; return how many. What they sealed stays as it is."""
        if not self.path.exists():
            return 0
        with self._open() as database:
            rows = database.execute("SELECT whose, wrapped FROM keys").fetchall()
            fresh = [(self._wrapped(name, self._unwrapped(name, wrapped)), name) for name, wrapped in rows]
            database.executemany("UPDATE keys SET wrapped = ? WHERE whose = ?", fresh)
        with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as database:
            database.execute("VACUUM")  # nothing that the old one opens stays in a free page
        return len(rows)

    def _keys(self, whose: set[str], make: bool) -> dict[str, bytes]:
        if not make and not self.path.exists():
            return {}
        found: dict[str, bytes] = {}
        with self._open() as database:
            if make:
                fresh = [(name, self._wrapped(name)) for name in whose if not _has(database, name)]
                database.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?)", fresh)
            for name in whose:
                row = database.execute("SELECT wrapped FROM keys WHERE whose = ?", [name]).fetchone()
                if row is not None:
                    found[name] = self._unwrapped(name, row[0])
        return found

    def _wrapped(self, name: str, key: bytes = b"") -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._wrapping.encrypt(nonce, key or AESGCM.generate_key(256), name.encode())

    def _unwrapped(self, name: str, wrapped: bytes) -> bytes:
        for cipher in (self._wrapping, *self._older):
            with contextlib.suppress(InvalidTag):
                return cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], name.encode())
        raise Damaged(
            "The key file is not the one that the keys of personal data were encrypted with.",
            safe="Nothing was changed.",
            todo="Bring back the file that ORRERY_PRIVACY_KEY names, or privacy/key in the home folder; where that key "
            "was replaced, the file .wrapping beside it, too.",
        )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=60)
        try:
            database.execute("PRAGMA secure_delete = ON")
            with database:
                database.execute("CREATE TABLE IF NOT EXISTS keys (whose TEXT PRIMARY KEY, wrapped BLOB) WITHOUT ROWID")
                yield database
        finally:
            database.close()


def _has(database: sqlite3.Connection, name: str) -> bool:
    return database.execute("SELECT 1 FROM keys WHERE whose = ?", [name]).fetchone() is not None
