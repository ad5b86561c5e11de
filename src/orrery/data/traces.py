"""Looks for a subject in every file under a folder, whatever form a file keeps its bytes in: the proof of an erasure.

A file is searched as it is, and in the forms that hide their content from that: tables in Parquet and Arrow are
decoded, databases of SQLite read row by row (and as bytes, which also holds what was deleted and not overwritten),
archives and compressed files unpacked, repositories of git read object by object. Text is looked for as UTF-8, and as
the two-byte and four-byte forms that arrays of text have.
"""

from __future__ import annotations

import json
import mmap
import os
import sqlite3
import subprocess
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa

from orrery.data.pseudonyms import PREFIX, written

PIECE = 1 << 22
SHORT = 6
"""Values in the clear that are shorter than this are only looked for as whole cells of the columns that may hold them:
as bytes they are everywhere."""
ATTEMPTS, AGAIN = 3, 0.3
"""How often a file is read that cannot be, and seconds between: an orrery that runs writes meanwhile."""
STATED = 32
"""Characters of a text that statistics of files keep."""


@dataclass(frozen=True)
class Needles:
    """What is looked for.

    Parameters
    ----------
    pseudonym : of the subject.
    clear : who it is; empty where only the pseudonym is known.
    columns : that may hold it in the clear.
    """

    pseudonym: str
    clear: str = ""
    columns: frozenset[str] = frozenset()

    @property
    def texts(self) -> tuple[str, ...]:
        """What may stand anywhere."""
        return (self.pseudonym[:STATED], *([self.clear] if len(self.clear) >= SHORT else []))

    def within(self, data: Any) -> bool:
        """Say whether bytes, or what can be searched like them, hold the subject."""
        return any(_found(data, text) for text in self.texts)

    def among(self, column: str, values: Iterable[Any]) -> bool:
        """Say whether a cell of a column holds the subject."""
        short = self.clear and (len(self.clear) >= SHORT or column in self.columns)
        for value in values:
            if isinstance(value, str | bytes):
                if (short and value == self.clear) or self.within(value if isinstance(value, bytes) else _bytes(value)):
                    return True
            elif short and value is not None and written(value) == self.clear:
                return True
        return False


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")


@dataclass(frozen=True)
class Trace:
    """A file that holds the subject, or that could not be read.

    Parameters
    ----------
    path : of the file, from the folder on.
    why : what could not be read; empty where the subject was found.
    """

    path: str
    why: str = ""


@dataclass
class Search:
    """One look through a folder; how much was looked at is known when it is over.

    Parameters
    ----------
    root : the folder.
    needles : what is looked for.
    """

    root: Path
    needles: Needles
    files: int = 0
    size: int = 0

    def __iter__(self) -> Iterator[Trace]:
        for folder, folders, names in os.walk(self.root):
            folders.sort()
            here = Path(folder)
            if "objects" in folders and "HEAD" in names:
                yield from self._repository(here)
                folders.remove("objects")  # compressed, and read by git
            for name in sorted(names):
                path = here / name
                if path.is_symlink() or not path.is_file():
                    continue
                yield from self._file(path)

    def _file(self, path: Path) -> Iterator[Trace]:
        place = path.relative_to(self.root).as_posix()
        self.files += 1
        if any(text in place for text in self.needles.texts):
            yield Trace(place)
            return
        for attempt in range(ATTEMPTS):
            try:
                if self._as_it_is(path) or holds(path, self.needles):
                    yield Trace(place)
            except FileNotFoundError:
                pass  # it went away while we looked: whatever writes in its place is another file
            except Exception as error:
                if attempt < ATTEMPTS - 1:
                    time.sleep(AGAIN)  # somebody may be writing it
                    continue
                # What cannot be read may hold anything: this is no proof of anything.
                yield Trace(place, f"{type(error).__name__}: {error}"[:200])
            return

    def _as_it_is(self, path: Path) -> bool:
        size = path.stat().st_size
        self.size += size
        if not size:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return self.needles.within(data)

    def _repository(self, folder: Path) -> Iterator[Trace]:
        place = folder.relative_to(self.root).as_posix()
        words = ["git", "-C", str(folder), "cat-file", "--batch-all-objects", "--batch", "--unordered"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as git:
            assert git.stdout is not None
            found = _streamed(git.stdout, self.needles)
            if found:
                git.kill()
        if found:
            yield Trace(place)
        elif git.returncode:
            yield Trace(place, "git cannot read its objects")


def holds(path: Path, needles: Needles) -> bool:
    """Say whether a file holds the subject in a form that its bytes do not show."""
    with path.open("rb") as file:
        head = file.read(16)
        if head.startswith(b"SQLite format 3\0"):
            return _in_database(path, needles)
        if head.startswith((b"PAR1", b"ARROW1")):
            return _in_table(path, head, needles)
        if head.startswith(b"\x1f\x8b") or head.startswith(b"\x28\xb5\x2f\xfd") or head.startswith(b"\x04\x22\x4d\x18"):
            kind = {0x1F: "gzip", 0x28: "zstd", 0x04: "lz4"}[head[0]]
            with pa.input_stream(str(path), compression=kind) as stream:
                return _streamed(stream, needles)
    if head.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(_streamed(archive.open(one), needles) for one in archive.infolist() if not one.is_dir())
    return False


def _in_table(path: Path, head: bytes, needles: Needles) -> bool:
    frame = pl.scan_parquet(path, hive_partitioning=False) if head.startswith(b"PAR1") else pl.scan_ipc(path)
    for name, kind in frame.collect_schema().items():
        values = frame.select(name).collect().to_series()
        if kind.is_nested():
            if needles.within(values.to_frame().write_ndjson().encode()):
                return True
        elif not kind.is_temporal() and needles.among(name, values.unique().to_list()):
            return True
    return False


def _in_database(path: Path, needles: Needles) -> bool:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database:
        database.text_factory = lambda data: data.decode(errors="replace")
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            table = name.replace('"', '""')
            rows = database.execute(f'SELECT * FROM "{table}"')  # nosec B608 - a name of its own schema, quoted
            columns = [one[0] for one in rows.description]
            if any(needles.among(*cell) for row in rows for cell in zip(columns, ([one] for one in row), strict=True)):
                return True
    return False


def _streamed(stream: IO[bytes] | Any, needles: Needles) -> bool:
    """Search a stream of any length."""
    kept = b""
    while piece := stream.read(PIECE):
        data = kept + bytes(piece)
        if needles.within(data):
            return True
        kept = data[-4096:]
    return False


def _found(data: Any, text: str) -> bool:
    forms = {text, json.dumps(text)[1:-1]}
    coded = [form.encode(code) for form in forms for code in ("utf-8", "utf-16-le", "utf-32-le")]
    whole = text.startswith(PREFIX)
    return any(_alone(data, one, whole) for one in coded)


def _alone(data: Any, needle: bytes, whole: bool) -> bool:
    """Say whether bytes hold others; a value in the clear not in the middle of a longer word or number."""
    find = data.find if hasattr(data, "find") else bytes(data).find
    at = find(needle)
    while at >= 0 and not whole:
        before, after = bytes(data[max(0, at - 1) : at]), bytes(data[at + len(needle) : at + len(needle) + 1])
        if not (before.isalnum() or after.isalnum()):
            return True
        at = find(needle, at + 1)
    return at >= 0
