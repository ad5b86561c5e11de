"""The inference server's own record of its predictions: files that need no database, no lake and no control plane.

A journal is a folder of segments. A segment is a file of frames, each ``[length: 4 bytes][crc32: 4 bytes][body]``, both
numbers little-endian and of the body; a body is msgpack ``{"model", "environment", "columns": {name: list}}``, instants
as microseconds since 1970; ``"same": {name: value}`` beside them has the columns that hold one value. Whoever writes a
segment holds a lock (``flock``) on it: where the lock is free, the segment is finished. Only the standard library and
msgspec are imported here, so that the server stays small.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from orrery.errors import NotAllowed

FOLDER = "serving/journal"
"""Where the inference server's journal is in the home folder."""

SUFFIX = ".journal"
SEGMENT = 16 * 1024 * 1024
"""Bytes after which a new segment begins."""

INTERVAL = 0.2
"""Seconds between two syncs of the policy ``interval``."""

HEAD = struct.Struct("<II")

Sync = Literal["always", "interval", "never"]
"""When what is appended is forced to the disk. A killed process loses nothing either way; a machine without power loses
nothing (``always``), at most the last fifth of a second (``interval``), or what its system had not written yet."""


class Journal:
    """Writes segments; may be shared by threads, not by processes.

    Parameters
    ----------
    folder : where the segments are.
    name : who writes; begins the names of the segments.
    fsync : when to force to the disk.
    """

    def __init__(self, folder: str | Path, name: str, fsync: Sync = "interval") -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.fsync = fsync
        self._encode = msgspec.msgpack.Encoder().encode
        self._mutex = threading.Lock()
        self._file = -1
        self._size = 0
        self._dirty = False
        self._full: list[int] = []  # segments that are written to their end, and not yet on the disk
        self._closed = threading.Event()
        self._syncer: threading.Thread | None = None

    def append(
        self,
        model: str,
        environment: str,
        columns: Mapping[str, Sequence[Any]],
        same: Mapping[str, Any] | None = None,
    ) -> None:
        """Write rows down; on return they outlive this process.

        Parameters
        ----------
        model, environment : where the rows were predicted.
        columns : lists of equal length; ``_at`` in microseconds since 1970.
        same : columns that hold the same value in all rows.

        Raises
        ------
        NotAllowed
            If the disk takes no more, or the journal is closed; nothing is written then.
        """
        content: dict[str, Any] = {"model": model, "environment": environment, "columns": columns}
        if same:
            content["same"] = same
        body = self._encode(content)
        frame = HEAD.pack(len(body), zlib.crc32(body)) + body
        with self._mutex:
            if self._closed.is_set():
                raise NotAllowed("This journal is closed.")
            if self._file < 0 or self._size + len(frame) > SEGMENT:
                self._begin()
            self._write(frame)
            if self.fsync == "always":
                os.fdatasync(self._file)
            self._dirty = True
        if self.fsync == "interval" and self._syncer is None:
            self._start_syncer()

    def begin(self) -> None:
        """Finish the segment, and write what comes from now on to another."""
        with self._mutex:
            self._end()
        self._sync()

    def close(self) -> None:
        """Finish the segment, so that it can be shipped and removed."""
        self._closed.set()
        with self._mutex:
            self._end()
        if self._syncer is not None:
            self._syncer.join()  # whatever it forces to the disk now looks unfinished until it has
        self._sync()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _write(self, frame: bytes) -> None:
        rest = memoryview(frame)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            # Half a frame in the middle would hide all that follow.
            os.ftruncate(self._file, self._size)
            raise NotAllowed(
                f"The prediction journal in {self.folder} cannot be written: {error.strerror}.",
                safe="What was written before is there.",
                todo="Make room on the disk.",
            ) from error
        self._size += len(frame)

    def _begin(self) -> None:
        self._end()
        # The time keeps the segments in order; with the process and the name no two are ever the same.
        path = self.folder / f"{self.name}-{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
        fresh = path.with_suffix(".new")
        self._file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.rename(fresh, path)  # under its name only when it is locked: before that it would look finished
        self._size = 0

    def _end(self) -> None:
        if self._file >= 0:
            self._full.append(self._file)
            self._file = -1
            if self.fsync != "interval":
                self._force(self._full)

    def _sync(self) -> None:
        """Force to the disk what was written; whoever appends meanwhile does not wait for it."""
        with self._mutex:
            files = self._full
            if self._dirty and self._file >= 0:
                files.append(os.dup(self._file))
            self._full, self._dirty = [], False
        self._force(files)

    def _force(self, files: list[int]) -> None:
        with contextlib.ExitStack() as stack:
            while files:
                stack.callback(os.close, files[-1])
                if self.fsync == "never":
                    files.pop()
                else:
                    os.fdatasync(files.pop())

    def _start_syncer(self) -> None:
        with self._mutex:
            if self._syncer is None:
                self._syncer = threading.Thread(target=self._sync_often, name="orrery-journal", daemon=True)
                self._syncer.start()

    def _sync_often(self) -> None:
        while not self._closed.wait(INTERVAL):
            if self._dirty or self._full:
                with contextlib.suppress(OSError):  # the next append meets the same disk and says so
                    self._sync()


def frames(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """Read the complete frames of a segment.

    Parameters
    ----------
    data : bytes of the segment from ``offset`` on.
    offset : where they begin in the segment.

    Yields
    ------
    The offset at which a frame ends, and its body; None where the body is not what was written. A torn frame at the end
    is not there.
    """
    place = 0
    while place + HEAD.size <= len(data):
        length, crc = HEAD.unpack_from(data, place)
        end = place + HEAD.size + length
        if length == 0 or end > len(data):  # zeros: a file that grew before a power cut
            return
        body = data[place + HEAD.size : end]
        place = end
        yield offset + end, body if zlib.crc32(body) == crc else None


def segments(folder: Path) -> list[Path]:
    """Return the segments of a journal, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.name.rsplit("-", 2)[1:])


def finished(path: Path) -> bool:
    """Say whether nobody writes this segment any more."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
