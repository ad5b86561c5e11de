"""Brings the journals of inference servers into the lake, each frame exactly once.

The table itself remembers how far each segment was read (a Delta application transaction, in the commit that holds the
rows), so a crash at any point neither loses nor doubles a row. The files ``*.shipped`` beside the segments only spare
the next round from reading again what is known to be there.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from orrery.data.journal import SUFFIX, finished, frames, segments
from orrery.data.lake import Lake
from orrery.data.log import Piece, PredictionLog
from orrery.types import NAME

if TYPE_CHECKING:
    from orrery.stats.anomaly import AnomalyScore

ROUND = 32 * 1024 * 1024
"""Bytes of journals that are brought over in one commit, at most."""

ScoreOf = Callable[[str, int], "AnomalyScore | None"]
Kept = Callable[[str, pl.DataFrame], pl.DataFrame]

_log = logging.getLogger("orrery.data")


class _Body(msgspec.Struct):
    model: str
    environment: str
    columns: dict[str, list[Any]]
    same: dict[str, Any] = {}


_decode = msgspec.msgpack.Decoder(_Body).decode


def ship(
    journal_dir: str | Path,
    lake: Lake,
    score_of: ScoreOf = lambda model, version: None,
    kept: Kept = lambda model, frame: frame,
) -> int:
    """Move complete frames into the prediction logs and remove segments that are finished and shipped whole.

    A frame that is not what was written, or cannot be read, is kept in the folder ``damaged`` of the journal.

    Parameters
    ----------
    journal_dir : folder of the journals; several processes may write to it.
    lake : where the logs are.
    score_of : from model and version to what scores its rows; None: they are not scored.
    kept : from model and rows to those of them that may be kept.

    Returns
    -------
    The number of rows that were added.
    """
    folder = Path(journal_dir)
    if not folder.is_dir():
        return 0
    with open(folder / ".ship", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would be right as well, and waste their work
        for mark in folder.glob(f"*{SUFFIX}.shipped"):
            if not mark.with_suffix("").exists():
                mark.unlink()
        rows = 0
        pending: list[tuple[Path, int, bool]] = []
        pieces: dict[str, list[Piece]] = defaultdict(list)
        size = 0
        for path in segments(folder):
            over = finished(path)  # asked before reading: what is read afterwards is all there will be
            start = _mark(path)
            data = _read(path, start)
            end = start
            for end, body in frames(data, start):
                if body is None:
                    _keep(path, end, data, "is not what was written")
                elif piece := _piece(path, end, body):
                    pieces[piece[0]].append(piece[1])
            pending.append((path, end, over))
            size += end - start
            if size > ROUND:
                rows += _bring(lake, pieces, pending, score_of, kept)
                size = 0
        return rows + _bring(lake, pieces, pending, score_of, kept)


def _bring(
    lake: Lake,
    pieces: dict[str, list[Piece]],
    pending: list[tuple[Path, int, bool]],
    score_of: ScoreOf,
    kept: Kept,
) -> int:
    rows = 0
    for model in sorted(pieces):
        rows += PredictionLog(lake, model).ship(pieces[model], partial(score_of, model), partial(kept, model))
    for path, end, over in pending:
        if over:
            path.unlink()
            _mark_file(path).unlink(missing_ok=True)
        elif end > _mark(path):
            fresh = path.with_suffix(".mark")
            fresh.write_text(str(end))
            os.replace(fresh, _mark_file(path))
    pieces.clear()
    pending.clear()
    return rows


def _piece(path: Path, end: int, body: bytes) -> tuple[str, Piece] | None:
    try:
        read = _decode(body)
    except msgspec.DecodeError as error:
        _keep(path, end, body, f"cannot be read ({error})")
        return None
    lengths = {len(values) for values in read.columns.values()}
    if not NAME.fullmatch(read.model) or "_at" not in read.columns or len(lengths) != 1:
        _keep(path, end, body, "is no prediction of a model")
        return None
    rows = lengths.pop()
    same = {name: [value] * rows for name, value in read.same.items()}
    return read.model, Piece(path.name, end, read.environment, {**same, **read.columns})


def _keep(path: Path, end: int, body: bytes, why: str) -> None:
    folder = path.parent / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / f"{path.stem}-{end}").write_bytes(body)
    _log.error("A frame of %s that ends at byte %d %s; it is kept in %s.", path.name, end, why, folder)


def _mark_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.shipped")


def _mark(path: Path) -> int:
    try:
        return int(_mark_file(path).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _read(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read()
