"""Digests of plain values by what they hold: parameters, constants, paths.

A path stands for the content of its file: a file rewritten in place is another input. Sets have no order, so their
elements' digests are sorted; everything that is not plain is digested as the bytes that would be stored.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from pathlib import Path, PurePath
from types import FunctionType
from typing import Any, Protocol

from orrery.pipeline.redaction import SALT, given_secrets
from orrery.pipeline.source import could_be_file
from orrery.pipeline.values import DIGEST_LENGTH, Code, digest, encode

_ATOMS = (type(None), bool, int, float, complex, str, bytes, datetime.date, datetime.datetime, datetime.timedelta)


def file_digest(path: str | Path, pattern: str = "*") -> str | None:
    """Digest of a file's bytes, or of the names and bytes of a folder's files (no hidden ones); None if none."""
    try:
        if os.path.isdir(path):
            parts: list[str] = []
            for file in sorted(Path(path).rglob(pattern)):
                inner = file.relative_to(path)
                hidden = any(each.startswith(".") or each == "__pycache__" for each in inner.parts)
                if not hidden and file.is_file():
                    parts += [str(inner), file_digest(file) or ""]
            return digest(*parts)
        with open(path, "rb") as file_:
            return hashlib.file_digest(file_, "sha256").hexdigest()[:DIGEST_LENGTH]
    except OSError:
        return None


def files_named(value: Any) -> dict[str, str]:
    """Content digests of the file that a value is the path of: any :class:`Path`, or text that names a file."""
    if isinstance(value, PurePath) or (type(value) is str and could_be_file(value) and os.path.isfile(value)):
        return {str(value): file_digest(str(value)) or "missing"}
    return {}


class Project(Code, Protocol):
    """The project whose code holds the value."""

    def files(self, text: str) -> dict[str, str]:
        """Content digests of the files that a text may name."""


def content_digest(value: Any, code: Project) -> str:
    """Digest a value by content.

    Raises
    ------
    NotUnderstood
        It holds something that cannot be pickled.
    """
    kind = type(value)
    if kind in _ATOMS:
        return digest(kind.__name__, repr(value), *(code.files(value).values() if kind is str else ()))
    if kind in (list, tuple):
        return digest(kind.__name__, *(content_digest(each, code) for each in value))
    if kind is dict:
        return digest("dict", *(content_digest(each, code) for pair in value.items() for each in pair))
    if kind in (set, frozenset):
        return digest(kind.__name__, *sorted(content_digest(each, code) for each in value))
    if isinstance(value, PurePath):
        return digest("path", code.relative(value), *files_named(value).values())
    if isinstance(value, type | FunctionType) and (reference := code.reference(value)) is not None:
        return digest("code", *reference)
    return digest("stored", encode(value, code).digest)


def told(value: Any, code: Project) -> str:
    """What a value comes to, as it is kept with the results: its digest, and the value itself where it is short.

    Where the process was given secrets, the digests have a salt: nobody can try what the secret might be.
    """
    found, salt = content_digest(value, code), os.environ.get(SALT, "")
    return f"{digest(salt, found) if salt else found} {shown(value)}"


def shown(value: Any) -> str:
    """A value in few characters, for reasons and pages; empty for all but plain values and lists of them.

    What it gives is the same in every process: no order of sets, no addresses.

    >>> shown(6), shown(list(range(100))), shown({3})
    ('6', '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1...', '')
    """
    plain = all(type(each) in _ATOMS for each in (value if type(value) in (list, tuple) else [value]))
    text = given_secrets().of(repr(value)) if plain else ""
    return text if len(text) <= 40 else f"{text[:36]}..."
