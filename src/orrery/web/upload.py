"""Rows that come over HTTP: Arrow, Parquet, CSV or JSON lines, by content type."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Request

from orrery.app import Orrery
from orrery.errors import NotUnderstood
from orrery.web.wire import Labels, decode

if TYPE_CHECKING:
    import polars as pl

TYPES = {
    "application/vnd.apache.arrow.stream": ".arrows",
    "application/vnd.apache.arrow.file": ".arrow",
    "application/vnd.apache.parquet": ".parquet",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
}
"""Content type of a body -> suffix of the file that it becomes."""


def type_of(request: Request) -> str:
    """Return the content type of a request, its parameters left out."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@contextlib.asynccontextmanager
async def received(request: Request, kind: str) -> AsyncIterator[Path]:
    """Keep a body in a file while it is worked on, so that a large one does not fill the memory.

    Raises
    ------
    NotUnderstood
        If its type is not one that can be read.
    """
    if kind not in TYPES:
        raise NotUnderstood(
            f"Rows cannot be read from {kind or 'a body without a type'!r}.", todo=f"Send {', '.join(TYPES)}."
        )
    with tempfile.TemporaryDirectory(prefix="orrery-") as folder:
        path = Path(folder, f"body{TYPES[kind]}")
        with path.open("wb") as file:
            async for block in request.stream():
                file.write(block)
        yield path


def add_rows(orrery: Orrery, name: str, path: Path, *, why: str, actor: str, key: str) -> dict[str, Any]:
    """Add the rows of a body to a dataset."""
    return asdict(orrery.add_data(name, _frame(path), why=why, actor=actor, key=key))


def add_labels(orrery: Orrery, model: str, content: bytes, key: str, metric: str) -> dict[str, Any]:
    """Add labels, or values of a business metric, that came as JSON."""
    import polars as pl

    labels, now = decode(content, Labels).labels, orrery.clock.now()
    values = [one.label for one in labels]
    if len({isinstance(value, str) for value in values}) > 1:
        raise NotUnderstood("Some labels are text and some are not.", safe="Nothing was added.")
    try:
        numbers = [value if isinstance(value, str) else float(value) for value in values]
    except OverflowError:
        raise NotUnderstood("A label is a larger number than can be kept.", safe="Nothing was added.") from None
    frame = pl.DataFrame(
        {
            "entity": [str(one.entity) for one in labels],
            "label": numbers if not all(isinstance(value, bool) for value in values) else values,
            "at": pl.Series([one.at or now for one in labels], dtype=pl.Datetime("us", "UTC")),
        }
    )
    return _added(orrery, model, frame, key, metric)


def add_label_table(orrery: Orrery, model: str, path: Path, key: str, metric: str) -> dict[str, Any]:
    """Add the same that came as a table."""
    import polars as pl

    frame = _frame(path)
    if "at" not in frame.columns:
        frame = frame.with_columns(pl.lit(orrery.clock.now()).cast(pl.Datetime("us", "UTC")).alias("at"))
    return _added(orrery, model, frame, key, metric)


def _added(orrery: Orrery, model: str, frame: pl.DataFrame, key: str, metric: str) -> dict[str, Any]:
    if metric:
        return asdict(orrery.add_values(model, metric, frame, key=key))
    return asdict(orrery.add_labels(model, frame, key=key))


def _frame(path: Path) -> pl.DataFrame:
    import polars as pl

    from orrery.data.files import read_files

    try:
        if path.suffix == ".arrows":
            return pl.read_ipc_stream(path)
        if path.suffix == ".arrow":
            return pl.read_ipc(path)
        frames = list(read_files([str(path)]))
    except NotUnderstood as error:
        raise NotUnderstood(error.what.replace(str(path), "The body"), safe=error.safe, todo=error.todo) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise NotUnderstood(f"The body cannot be read: {error}", safe="Nothing was added.") from error
    if not frames:
        raise NotUnderstood("There are no rows in the body.")
    return pl.concat(frames) if len(frames) > 1 else frames[0]
