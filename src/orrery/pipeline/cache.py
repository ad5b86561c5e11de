"""A folder of results: which step gave what (records, by key) and what it was (values, by digest of their bytes).

Everything is written to a temporary file and renamed, so readers see whole entries or none, and several processes may
use one folder. Nothing is synced to disk: each entry carries its digest, so what a power failure tore is found damaged
and computed again, which is the one way of recovery for every kind of loss. The folder holds pickles: whoever may write
to it may run code as its reader.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orrery.errors import Damaged, NotFound
from orrery.pipeline.values import DIGEST_LENGTH, Code, Encoded, decode, digest

_INLINE_BYTES = 4096
"""Values up to this size stand in the record itself: one file for a small step instead of two."""
_ABANDONED_SECONDS = 24 * 3600
"""Temporary files older than this belong to a process that died."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Record:
    """What one execution of a step gave."""

    key: str
    step: str
    output: str
    """Digest of the result: the value and the content of files that it names."""
    value: str
    """Digest of the value's bytes, by which they are kept."""
    kind: str
    """How the value is stored, see :class:`orrery.pipeline.values.Encoded`."""
    warnings: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    """Content digests of the files that the value names."""
    seconds: float = 0.0
    """Wall-clock seconds that the execution took."""
    cpu_seconds: float = 0.0
    inline: str | None = None
    """The value itself in base64, if it is small."""


class Cache:
    """Results of pipeline steps in a folder, which projects may share.

    Parameters
    ----------
    folder
        Made, readable by its owner only, when something is first written.
    purpose
        What these runs are for: the reason why a step runs compares it with the last run for the same purpose.
    """

    def __init__(self, folder: Path | str, purpose: str = "") -> None:
        self.folder = Path(folder)
        self._latest = f"{self.folder}/latest{'-' if purpose else ''}{purpose}.json"
        self._records = f"{self.folder}/records"
        self._values = f"{self.folder}/values"

    def find(self, key: str) -> Record | None:
        """The record of a key, if there is one; counts as a use.

        Raises
        ------
        Damaged
            The record is not what was written; it has been removed.
        """
        path = _place(self._records, key)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            return None  # not there, or not readable, which comes to the same
        body = content[DIGEST_LENGTH + 1 :]
        if content[:DIGEST_LENGTH] != digest(body).encode():
            _remove(path)
            raise Damaged(f"The cached result {key} is damaged.", safe="It is not used.")
        fields: dict[str, Any] = json.loads(body)
        fields["warnings"] = tuple(fields["warnings"])
        record = Record(**fields)
        _touch(path)
        if record.inline is None:
            _touch(_place(self._values, record.value))
        return record

    def load(self, record: Record, code: Code) -> Any:
        """The value of a record.

        Raises
        ------
        NotFound
            It has been pruned.
        Damaged
            It is not what was written, or needs project code that has changed.
        """
        if record.inline is not None:
            data = base64.b64decode(record.inline)
        else:
            try:
                with open(_place(self._values, record.value), "rb") as file:
                    data = file.read()
            except OSError:
                raise NotFound(f"The cached result of {record.step} is gone.") from None
        if digest(record.kind, data) != record.value:
            raise Damaged(f"The cached result of {record.step} is damaged.", safe="It is not used.")
        return decode(record.kind, data, code)

    def store(self, record: Record, value: Encoded) -> Record:
        """Write a value and its record; returns the record as written."""
        fields = dict(vars(record))
        if len(value.data) <= _INLINE_BYTES:
            fields["inline"] = base64.b64encode(value.data).decode()
        else:
            self._write(_place(self._values, value.digest), value.data)
        body = json.dumps(fields).encode()
        self._write(_place(self._records, record.key), digest(body).encode() + b"\n" + body)
        return Record(**fields)

    def forget(self, record: Record) -> None:
        """Remove a record and its value, for instance because the value is damaged."""
        _remove(_place(self._records, record.key))
        if record.inline is None:
            _remove(_place(self._values, record.value))

    def latest(self) -> dict[str, dict[str, str]]:
        """What each step was last made of (it words the reasons, nothing else)."""
        try:
            with open(self._latest, "rb") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return {}  # a torn file costs a worse wording
        return found if isinstance(found, dict) else {}

    def remember(self, parts: Mapping[str, Mapping[str, str]]) -> None:
        """Keep what these steps were made of, for the wording of the next run's reasons."""
        before = self.latest()
        if any(before.get(step) != each for step, each in parts.items()):
            self._write(self._latest, json.dumps({**before, **parts}).encode())

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(status.st_size for _, status in self._entries())

    def prune(self, max_bytes: int) -> int:
        """Remove the least recently used entries until at most `max_bytes` are left; returns the bytes removed."""
        entries = sorted(self._entries(), key=lambda entry: entry[1].st_mtime_ns)
        left = before = sum(status.st_size for _, status in entries)
        for path, status in entries:
            if left <= max_bytes:
                break
            _remove(path)
            left -= status.st_size
        for path, status in self._entries("tmp"):
            if time.time() - status.st_mtime > _ABANDONED_SECONDS:
                _remove(path)
        return before - left

    def _entries(self, *tops: str) -> Iterator[tuple[str, os.stat_result]]:
        for top in tops or ("records", "values"):
            for folder, _, names in os.walk(self.folder / top):
                for name in names:
                    path = f"{folder}/{name}"
                    try:
                        yield path, os.stat(path)
                    except FileNotFoundError:
                        continue  # another process pruned it

    def _write(self, path: str, content: bytes) -> None:
        temporary = f"{self.folder}/tmp/{os.getpid()}-{next(_numbers)}-{time.time_ns()}"  # nosec B108 - in our folder
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            handle = os.open(temporary, flags, 0o600)
        except FileNotFoundError:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.makedirs(f"{self.folder}/tmp", exist_ok=True)  # nosec B108 - in our folder
            handle = os.open(temporary, flags, 0o600)
        try:
            with open(handle, "wb", buffering=0) as file:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
            try:
                os.replace(temporary, path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(temporary, path)
        except BaseException:
            _remove(temporary)
            raise


def _place(top: str, name: str) -> str:
    return f"{top}/{name}"


def _touch(path: str) -> None:
    # Pruned meanwhile: whoever needs it computes it again. Read-only: no use to record.
    with contextlib.suppress(OSError):
        os.utime(path)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # somebody else was faster, or the folder is read-only
        os.unlink(path)
