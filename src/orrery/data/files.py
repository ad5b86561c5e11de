"""Reading files into frames: CSV, Parquet and JSON lines, from folders and addresses."""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from urllib.parse import urlsplit

import msgspec
import polars as pl

from orrery.errors import NotFound, NotUnderstood

CHUNK = 500_000
"""Rows of a frame, at most."""

MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]
"""What stands for a missing value in a CSV file, as pandas and R have it."""

_KINDS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet", ".jsonl": "lines", ".ndjson": "lines"}
_INSTANT = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$"
_DATE = r"^\d{4}-\d\d-\d\d$"


def read_files(sources: Sequence[str], *, chunk: int = CHUNK, secret: str = "") -> Iterator[pl.DataFrame]:
    """Read files in order, in frames of at most ``chunk`` rows.

    The type of a column is inferred from all rows of all files, so that a first file which happens to hold whole
    numbers or no value does not decide. Text that is an ISO 8601 date or instant throughout becomes one (without an
    offset: UTC).

    Parameters
    ----------
    sources : files (``.csv``, ``.tsv``, ``.parquet``, ``.jsonl``, also ``.gz``), folders of them, ``http(s)://``
        addresses or object-store URLs (``s3://``, ``gs://``, ``az://``).
    secret : what opens the addresses: ``USER:PASSWORD``, a token, or for an object store its options as JSON.

    Raises
    ------
    NotFound
        If a file is not there.
    NotUnderstood
        If a file cannot be read: says which, and where in it.
    """
    with contextlib.ExitStack() as stack:
        plans = []
        for source in sources:
            for path in _expand(source, stack, secret):
                plans.append((path, _plan(path, secret)))
        types = _common_types(plans)
        for path, plan in plans:
            casts = [_cast(name, kind, types[name]) for name, kind in plan.collect_schema().items()]
            with _telling(path):
                for frame in plan.with_columns(casts).collect_batches(chunk_size=chunk, maintain_order=True):
                    if frame.height:
                        yield frame


def _expand(source: str, stack: contextlib.ExitStack, secret: str) -> Iterator[str]:
    """Turn a folder into its files, and an address into a file that was fetched."""
    scheme = urlsplit(source).scheme
    if scheme in ("http", "https"):
        yield _fetch(source, stack, secret)
    elif scheme and "://" in source and scheme != "file":
        yield source
    else:
        path = Path(source.removeprefix("file://")).expanduser()
        if path.is_dir():
            files = sorted(str(file) for file in path.rglob("*") if file.is_file() and _kind(str(file)))
            if not files:
                raise NotFound(f"There is no CSV, Parquet or JSON lines file in the folder {path}.")
            yield from files
        elif path.exists():
            yield str(path)
        else:
            raise NotFound(f"There is no file {path}.")


def _fetch(url: str, stack: contextlib.ExitStack, secret: str) -> str:
    import httpx

    parts = urlsplit(url)
    if secret and parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise NotUnderstood(
            f"The secret would go to {parts.hostname} in the clear.", safe="Nothing was sent.", todo="Use https://."
        )
    shown = f"Basic {base64.b64encode(secret.encode()).decode()}" if ":" in secret else f"Bearer {secret.strip()}"
    asked: Any = {"headers": {"Authorization": shown} if secret else {}, "follow_redirects": True, "timeout": 60.0}
    name = PurePosixPath(urlsplit(url).path).name or "data.csv"
    target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orrery-")), name)
    try:
        with httpx.stream("GET", url, **asked) as response, target.open("wb") as file:
            response.raise_for_status()
            for block in response.iter_bytes():
                file.write(block)
    except httpx.HTTPError as error:
        raise NotFound(f"{url} cannot be fetched: {error}.", todo="Check the address; try again.") from error
    return str(target)


def _kind(path: str) -> str | None:
    suffixes = [suffix.lower() for suffix in PurePosixPath(urlsplit(path).path).suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    return _KINDS.get(suffixes[-1]) if suffixes else None


def _plan(path: str, secret: str = "") -> pl.LazyFrame:
    kind = _kind(path)
    options = _options(secret) if secret and "://" in path else None
    with _telling(path):
        if kind == "parquet":
            plan = pl.scan_parquet(path, storage_options=options)
            plan.collect_schema()
            return plan
        if kind in ("csv", "tsv"):
            separator = "\t" if kind == "tsv" else ","
            read: Any = {"separator": separator, "infer_schema_length": None, "null_values": MISSING}
            plan = pl.scan_csv(path, storage_options=options, **read)
        elif kind == "lines":
            plan = pl.scan_ndjson(path, infer_schema_length=None, storage_options=options)
        else:
            known = ", ".join(_KINDS)
            raise NotUnderstood(f"{path} is of no kind that can be read.", todo=f"These can: {known}, also with .gz.")
        return _with_instants(plan)


def _options(secret: str) -> dict[str, str]:
    """Return the options of an object store that a secret holds."""
    try:
        return msgspec.json.decode(secret, type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise NotUnderstood(
            "The secret of an object store is not a JSON object of texts.",
            todo='Such as {"aws_access_key_id": "...", "aws_secret_access_key": "..."}.',
        ) from None


def _with_instants(plan: pl.LazyFrame) -> pl.LazyFrame:
    """Give text columns that hold nothing, or only dates and instants, that type."""
    text = [name for name, kind in plan.collect_schema().items() if kind == pl.String]
    if not text:
        return plan
    counts = plan.select(
        *(pl.col(name).count().alias(f"n:{name}") for name in text),
        *(pl.col(name).str.contains(_INSTANT).sum().alias(f"i:{name}") for name in text),
        *(pl.col(name).str.contains(_DATE).sum().alias(f"d:{name}") for name in text),
    ).collect()
    parsed = []
    for name in text:
        filled, instants, dates = (int(counts[f"{what}:{name}"][0] or 0) for what in "nid")
        if filled == 0:
            parsed.append(pl.lit(None, dtype=pl.Null).alias(name))
        elif dates == filled:
            parsed.append(pl.col(name).str.to_date("%Y-%m-%d"))
        elif instants == filled:
            parsed.append(_instant(pl.col(name)))
    return plan.with_columns(parsed)


def _instant(text: pl.Expr) -> pl.Expr:
    """Parse ISO 8601 in all its spellings: bring them to one, then parse that."""
    clock = text.str.replace(" ", "T", literal=True).str.replace(r"^(.{10})$", "${1}T00:00:00")
    clock = clock.str.replace(r"T(\d\d:\d\d)(Z|[+-]|$)", "T${1}:00${2}").str.replace(r"Z$", "+00:00")
    clock = clock.str.replace(r"([+-]\d\d)(\d\d)$", "${1}:${2}")
    offset = clock.str.contains(r"[+-]\d\d:\d\d$")
    complete = pl.when(offset).then(clock).otherwise(clock + "+00:00")
    return complete.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC")


def _common_types(plans: Sequence[tuple[str, pl.LazyFrame]]) -> dict[str, pl.DataType]:
    types: dict[str, tuple[str, pl.DataType]] = {}
    for path, plan in plans:
        for name, kind in plan.collect_schema().items():
            first, known = types.get(name, (path, kind))
            common = _common(known, kind)
            if common is None:
                raise NotUnderstood(
                    f"Column {name!r} is {known} in {first} and {kind} in {path}.",
                    todo="Make the files agree, or add them one by one.",
                )
            types[name] = (first, common)
    return {name: kind for name, (_, kind) in types.items()}


def _common(left: pl.DataType, right: pl.DataType) -> pl.DataType | None:
    if left == right or right == pl.Null:
        return left
    if left == pl.Null:
        return right
    if left.is_numeric() and right.is_numeric():
        return pl.Int64() if left.is_integer() and right.is_integer() else pl.Float64()
    instants = (pl.Date, pl.Datetime)
    if isinstance(left, instants) and isinstance(right, instants):
        return pl.Datetime("us", "UTC")
    if {left, right} <= {pl.String(), pl.Date(), pl.Datetime("us", "UTC")}:
        return pl.String()  # text throughout one file, dates throughout the other: text in both
    return None


def _cast(name: str, kind: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(wanted, pl.Datetime) and isinstance(kind, pl.Datetime) and kind.time_zone is None:
        column = column.dt.replace_time_zone("UTC")
    return column.cast(wanted)


@contextlib.contextmanager
def _telling(path: str) -> Iterator[None]:
    """Say which file could not be read, and the line, where there are lines."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        finders: Mapping[str | None, Callable[[str], str]] = {"csv": _csv_line, "tsv": _csv_line, "lines": _json_line}
        find = finders.get(_kind(path))
        where = find(path) if find else ""
        reason = where or ": " + str(error).splitlines()[0]
        raise NotUnderstood(f"{path} cannot be read{reason}.", safe="Nothing was added.") from error


def _csv_line(path: str) -> str:
    with _text(path) as lines:
        rows = csv.reader(lines, delimiter="\t" if _kind(path) == "tsv" else ",")
        width = len(next(rows, []))
        if width == 0:
            return ": it is empty"
        for row in rows:
            if len(row) > width:
                return f", line {rows.line_num}: {len(row)} fields where the header has {width}"
    return ""


def _json_line(path: str) -> str:
    number = 0
    with _text(path) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = msgspec.json.decode(line) if line.strip() else {}
            except msgspec.DecodeError as error:
                return f", line {number}: {error}"
            if not isinstance(value, dict):
                return f", line {number}: a JSON object is wanted"
    return ": it is empty" if number == 0 else ""


@contextlib.contextmanager
def _text(path: str) -> Iterator[Iterator[str]]:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rb") as raw, io.TextIOWrapper(cast(IO[bytes], raw), errors="replace") as lines:
        yield iter(lines)
