"""What stands for a person in everything that orrery keeps: a keyed hash, the same wherever the same value occurs.

Only the standard library is imported, since the inference server puts pseudonyms into requests. The key is a file: who
has it can tell whether a pseudonym is that of a value they know, and who has it not can tell nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orrery.errors import NotAllowed, NotUnderstood

if TYPE_CHECKING:
    from orrery.settings import Settings

FILE = "privacy/key"
"""Where the key is in the home folder, if no setting says otherwise."""
PREFIX = "psn_"
_FORM = re.compile(r"psn_[0-9a-f]{32}")
_BYTES = 32


class Pseudonyms:
    """Makes pseudonyms with one key.

    Parameters
    ----------
    secret : at least 32 bytes.

    Examples
    --------
    >>> pseudonyms = Pseudonyms(b"x" * 32)
    >>> pseudonyms.of("Mara Lind") == pseudonyms.of("Mara Lind") != pseudonyms.of("Mara Linde")
    True
    >>> pseudonyms.of(pseudonyms.of(17)) == pseudonyms.of("17") == pseudonyms.of(17.0)
    True
    """

    def __init__(self, secret: bytes) -> None:
        # Each use has a key of its own: nothing that is made with one says anything of the others.
        self._names, self._graves = _derived(secret, "pseudonyms"), _derived(secret, "erased")
        self.wrapping = _derived(secret, "data keys")
        """The key that the keys of encrypted values are encrypted with."""

    def of(self, value: Any) -> str | None:
        """Return the pseudonym of a value; nothing for nothing, and a pseudonym for itself."""
        if value is None:
            return None
        text = written(value)
        if _FORM.fullmatch(text):
            return text
        return PREFIX + hmac.digest(self._names, text.encode(), "sha256").hex()[:32]

    def grave(self, pseudonym: str) -> str:
        """Return what says of an erased subject that it was erased; the pseudonym cannot be told from it."""
        return hmac.digest(self._graves, pseudonym.encode(), "sha256").hex()[:32]


def wrapping_keys(settings: Settings, pseudonyms: Pseudonyms) -> list[bytes]:
    """Return the keys that the keys of encrypted values may be encrypted with, the one in force first.

    At first it comes from the privacy key itself. That one cannot be replaced: pseudonyms are made with it. Once the
    other is, it is a line of a file beside it.
    """
    try:
        lines = wrapping_file(settings).read_text().split()
    except FileNotFoundError:
        lines = []
    return [*(_derived(line.encode(), "data keys") for line in lines), pseudonyms.wrapping]


def wrapping_file(settings: Settings) -> Path:
    """Return where the key is that replaced the first one for encrypting keys."""
    outside = settings.privacy_key and not at_a_service(settings)
    path = Path(settings.privacy_key) if outside else settings.home / FILE
    return path.with_name(f"{path.name}.wrapping")


def write_wrapping(settings: Settings, lines: Sequence[str]) -> None:
    """Write that file whole or not at all.

    Raises
    ------
    NotAllowed
        If it cannot be written.
    """
    path = wrapping_file(settings)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("\n".join(lines))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        raise NotAllowed(
            f"{path} cannot be written: {error.strerror}.",
            safe="The key was not replaced.",
            todo="Let orrery write there.",
        ) from None


def written(value: Any) -> str:
    """Return a value as text: 17, 17.0 and "17" are the same person."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def privacy_key(settings: Settings) -> bytes:
    """Return what is in the key file, or what a key service opens; one in the home folder is made where there is none.

    Raises
    ------
    NotUnderstood
        If the setting is neither a path nor the address of a known service, or the file holds too little.
    NotAllowed
        If there is no such file, it cannot be read, or the service does not open it.
    """
    where = settings.privacy_key
    if at_a_service(settings):
        from orrery.data.keyservice import FILE as WRAPPED
        from orrery.data.keyservice import service_key

        return service_key(where, settings.home / WRAPPED, _once)
    path = Path(where) if where else settings.home / FILE
    try:
        secret = (path.read_bytes() if where else _once(path, lambda: secrets.token_urlsafe(48).encode())).strip()
    except OSError as error:
        raise NotAllowed(
            f"The key of personal data in {path} cannot be read: {error.strerror}.",
            safe="Nothing was written in the clear.",
            todo="Bring the file back: what was written with another key cannot be found or read.",
        ) from None
    if len(secret) < _BYTES:
        raise NotUnderstood(f"The key in {path} is shorter than {_BYTES} bytes.", todo="openssl rand -base64 48 > FILE")
    return secret


def at_a_service(settings: Settings) -> bool:
    """Say whether the setting is the address of a key service, and no path."""
    return "://" in settings.privacy_key


def _once(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return what is in a file, and make it where it is not there: whole, or not at all, and never over another's."""
    if not path.exists():
        made = make()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_bytes()


def _derived(secret: bytes, use: str) -> bytes:
    return hmac.digest(hashlib.sha256(secret).digest(), f"orrery/{use}".encode(), "sha256")
