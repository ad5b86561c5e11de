"""Secrets are taken out of what is captured: output, reports, and what is written about them.

What stands for a secret may be spelled in several ways: as it is, in base64 (also as a part of something longer), in
hexadecimal, as a part of an address, with its quotes escaped. All of them are found, in one piece or in several.
"""

from __future__ import annotations

import base64
import html
import json
import os
import urllib.parse
from collections.abc import Iterable
from functools import cache
from typing import Any

PREFIX = "SECRET_"
"""Begins the names of variables in which a program gets secrets."""
SALT = "ORRERY_STEP_SALT"
"""Variable with what makes digests of values that a program saw different from those of anybody else."""
MARK = "[secret]"
SHORTEST = 8
"""A secret has so many characters at least: what is shorter would be found in text that has nothing to do with it."""


class Redaction:
    """Takes secrets out of text.

    Parameters
    ----------
    secrets : the values; lines of a value with several are secrets too.

    Examples
    --------
    >>> redaction = Redaction(["the moons of Jupiter"])
    >>> redaction.of({"url": "https://x/?key=the%20moons%20of%20Jupiter", "n": 4})
    {'url': 'https://x/?key=[secret]', 'n': 4}
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spelled = {way for secret in secrets for way in _spelled(secret)}
        self._ways = sorted(spelled, key=len, reverse=True)  # the whole before a part of it
        self._begins = {way[:length] for way in self._ways for length in range(1, len(way))}
        self._longest = len(self._ways[0]) if self._ways else 0

    def __bool__(self) -> bool:
        return bool(self._ways)

    def of(self, value: Any) -> Any:
        """Return a value as JSON has it without secrets in its texts and names."""
        if not self._ways:
            return value
        if isinstance(value, str):
            return self.whole(value.encode(errors="surrogateescape")).decode(errors="surrogateescape")
        if isinstance(value, dict):
            return {self.of(name): self.of(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.of(one) for one in value)
        return value

    def whole(self, text: bytes) -> bytes:
        """Return a text without secrets."""
        for way in self._ways:
            if way in text:
                text = text.replace(way, MARK.encode())
        return text

    def unsure(self, text: bytes) -> int:
        """Return how many bytes at the end may be the beginning of a secret, of which the rest is yet to come."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if text[-length:] in self._begins:
                return length
        return 0


class Stream:
    """Takes secrets out of a text that comes in blocks, wherever they are cut.

    Parameters
    ----------
    redaction : says what is secret.

    Examples
    --------
    >>> stream = Stream(Redaction(["the moons of Jupiter"]))
    >>> stream.take(b"I saw the mo"), stream.take(b"ons of Jupiter."), stream.rest()
    (b'I saw ', b'[secret].', b'')
    """

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._held = b""

    def take(self, block: bytes) -> bytes:
        """Take a block; return what can be told by now."""
        if not self._redaction:
            return block
        text = self._redaction.whole(self._held + block)
        kept = self._redaction.unsure(text)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> bytes:
        """Return what was held back, at the end."""
        held, self._held = self._held, b""
        return held


@cache
def given_secrets() -> Redaction:
    """Return what takes the secrets out of a text that this process was given."""
    return Redaction(text for name, text in os.environ.items() if name.startswith(PREFIX))


def _spelled(secret: str) -> set[bytes]:
    texts = {secret, *(line.strip() for line in secret.splitlines())}
    ways: set[bytes] = set()
    for text in texts:
        if len(text) < SHORTEST:
            continue
        raw = text.encode(errors="surrogateescape")
        ways |= {raw, raw.hex().encode(), raw.hex().upper().encode(), repr(text)[1:-1].encode(errors="replace")}
        ways |= {json.dumps(text, ensure_ascii=ascii)[1:-1].encode(errors="surrogateescape") for ascii in (True, False)}
        ways |= {urllib.parse.quote(raw, safe=safe).encode() for safe in ("", "/")}
        ways |= {urllib.parse.quote_plus(raw).encode()}
        ways |= {html.escape(text, quote).encode(errors="surrogateescape") for quote in (True, False)}
        ways |= {one for before in range(3) for one in _base64(raw, before)}
    return {way for way in ways if len(way) >= SHORTEST}


def _base64(raw: bytes, before: int) -> set[bytes]:
    """Return what of a text's base64 is always the same where so many bytes (of three) stand before it."""
    first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
    padded = b"\0" * before + raw
    return {encode(padded)[first:last] for encode in (base64.b64encode, base64.urlsafe_b64encode)}
