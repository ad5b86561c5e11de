"""What a long run has finished so far: parts of its result on this machine's disk, so that it goes on where it was.

A part is an Arrow file named after the rows that it is the result of, written in order: the parts that are there are
always the first so many rows, whatever was killed and when.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import polars as pl

from orrery.errors import Conflict

SUFFIX = ".arrow"


class Parts:
    """The finished parts of one run. Enter it to be the only one that works on them.

    Parameters
    ----------
    folder : where they are; made when it is entered.

    Raises
    ------
    Conflict
        When entered, if another process works on this run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1

    def __enter__(self) -> Parts:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.__exit__(None, None, None)
            raise Conflict(
                "The same is being done by another process.", safe="It goes on.", todo="Wait for it, or end it first."
            ) from None
        for rest in self.folder.glob("*.new"):
            rest.unlink()  # of one that was killed while it wrote
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    @property
    def done(self) -> int:
        """Rows whose result is on disk: the first so many."""
        files = self._files()
        return int(files[-1].stem.partition("-")[2]) if files else 0

    def add(self, frame: pl.DataFrame) -> None:
        """Add the result of the rows that come next; on return it is on disk.

        Raises
        ------
        OSError
            If the disk takes no more; the parts before stay as they are.
        """
        start = self.done
        path = self.folder / f"{start:015d}-{start + frame.height:015d}{SUFFIX}"
        fresh = path.with_suffix(".new")
        with open(fresh, "wb") as file:
            file.write(frame.write_ipc(None, compression="lz4").getvalue())
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def blocks(self, rows: int) -> Iterator[pl.DataFrame]:
        """Yield everything in order, in blocks of so many rows (the last one has what is left)."""
        held: list[pl.DataFrame] = []
        count = 0
        for path in self._files():
            frame = pl.read_ipc(path)
            while frame.height:
                taken = frame.head(rows - count)
                held.append(taken)
                count += taken.height
                frame = frame.slice(taken.height)
                if count == rows:
                    yield pl.concat(held)
                    held, count = [], 0
        if held:
            yield pl.concat(held)

    def discard(self) -> None:
        """Remove everything: it is kept elsewhere by now."""
        shutil.rmtree(self.folder)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"))
