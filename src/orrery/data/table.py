"""One Delta table, written by compare-and-swap and read through Polars.

Obligations: a row that :meth:`Table.write` returned for is on disk; a writer that loses a race decides again on what
the winner wrote; a reader waits for no writer of another process. A :class:`Table` may be shared by threads; processes
and machines each open their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from orrery.errors import Conflict, ContractBroken

if TYPE_CHECKING:
    import pyarrow as pa

CHECKPOINT_EVERY = 10
META = "orrery"
"""Key of our own notes in a commit's metadata."""
JOIN_EVERY = 32
"""Commits after which small files are joined: a daily feed would leave hundreds for every reader and every snapshot."""
JOINED = 2 * 1024 * 1024
"""Bytes of a file that is not joined with others on the way: what is written once a day is not rewritten each month."""
REMEMBERED = 10_000
"""Application ids whose newest numbers are remembered, at most."""

_ATTEMPTS = 60
_CONFIGURATION = {
    "delta.checkpointInterval": str(CHECKPOINT_EVERY),
    # The commits carry what the versions are: they are kept as long as the table.
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
}


@dataclass(frozen=True)
class Write:
    """What one commit adds.

    Parameters
    ----------
    frame : the rows, or a stream of them in Arrow; columns that the table has not seen are added to it. A table is made
        of a frame only.
    meta : what to remember about the commit.
    transactions : application id -> number; two commits that race with one id cannot both win.
    """

    frame: pl.DataFrame | pa.RecordBatchReader
    meta: Mapping[str, Any] = field(default_factory=dict)
    transactions: Mapping[str, int] = field(default_factory=dict)


class Table:
    """A Delta table in a folder or an object store.

    Parameters
    ----------
    uri : folder or URL.
    options : credentials and settings of the object store.
    partition_by : columns that divide the files of a new table.
    statistics : columns whose smallest and largest value are kept for each file; all, if none are named. Every snapshot
        carries them, so that a table keeps those that its readers choose files by.
    lock : file that processes of one machine take turns by; only spares them lost races, nothing depends on it.
    """

    def __init__(
        self,
        uri: str,
        options: Mapping[str, str],
        *,
        partition_by: Sequence[str] = (),
        statistics: Sequence[str] = (),
        lock: Path | None = None,
    ) -> None:
        self.uri = uri
        self.options = dict(options)
        self.partition_by = list(partition_by)
        self.statistics = list(statistics)
        self.lock = lock
        self._mutex = threading.RLock()
        self._open: DeltaTable | None = None
        self._seen: object = None
        self._numbers: dict[str, int | None] = {}
        self._numbers_at = -1
        self._deciding = False

    def snapshot(self) -> DeltaTable | None:
        """Return the table as it is now, or None where there is none yet."""
        with self._mutex:
            if self._deciding:
                return self._open  # what is decided must be decided on the very state that the commit builds on
            if self._open is None:
                if not DeltaTable.is_deltatable(self.uri, self.options):
                    return None
                self._seen = self._checkpoint()
                self._open = DeltaTable(self.uri, storage_options=self.options)
            elif self._changed(self._open.version()):
                self._seen = self._checkpoint()
                self._open.update_incremental()
            return self._open

    def schema(self) -> pl.Schema:
        """Return names and types of the columns; empty where there is no table."""
        with self._mutex:
            return schema_of(self.snapshot())

    def version(self, application: str) -> int | None:
        """Return the newest number that was committed under this application id."""
        with self._mutex:
            table = self.snapshot()
            if table is None:
                return None
            if self._numbers_at != table.version() or len(self._numbers) > REMEMBERED:
                self._numbers, self._numbers_at = {}, table.version()
            if application not in self._numbers:  # Delta looks through its log for it, each time
                self._numbers[application] = table.transaction_version(application)
            return self._numbers[application]

    def scan(self, where: str | None = None) -> pl.LazyFrame:
        """Read the table lazily; files that a SQL condition on partitions or statistics excludes are not opened."""
        with self._mutex:
            table = self.snapshot()
            schema = schema_of(table)
            files = [] if table is None else table.file_uris(file_pruning_predicate=where)
            divided = [] if table is None else table.metadata().partition_columns
        if not files:
            return pl.LazyFrame(schema=schema)
        return pl.scan_parquet(
            files,
            schema=schema,
            hive_partitioning=bool(divided),
            hive_schema={name: schema[name] for name in divided} or None,
            missing_columns="insert",
            extra_columns="ignore",
            storage_options=self.options or None,
        )

    def files(self, where: str | None = None) -> int:
        """Return the number of files that hold the rows now, only of those that a SQL condition leaves."""
        with self._mutex:
            table = self.snapshot()
            return 0 if table is None else len(table.file_uris(file_pruning_predicate=where))

    def write(self, decide: Callable[[DeltaTable | None], Write | None]) -> None:
        """Commit what ``decide`` makes of the newest state; it is asked again whenever somebody else was faster.

        Raises
        ------
        Conflict
            If others were faster dozens of times in a row.
        OSError
            If the disk is full, or the system refuses otherwise.
        """
        for attempt in range(_ATTEMPTS):
            with self._mutex, self._turn():
                table = self.snapshot()
                self._deciding = True
                try:
                    write = decide(table)
                    if write is None:
                        return
                    if table is not None:
                        before = table.version()
                        self._commit(table, write)
                        if self._numbers_at == before == table.version() - 1:  # nobody else wrote in between
                            self._numbers |= write.transactions
                            self._numbers_at = table.version()
                        break
                    self._create(write.frame.schema)  # and decide anew: somebody may have made it, and more
                except DeltaError as error:
                    self._open = None
                    lost = isinstance(error, CommitFailedError)
                    if not lost or ("ransaction" not in str(error) and "changed" not in str(error)):
                        raise _of_the_system(error, self.uri) from None
                finally:
                    self._deciding = False
            time.sleep(random.uniform(0, min(0.5, 0.005 * 2**attempt)))
        else:
            raise Conflict(f"Too many writers at once on {self.uri}.", safe="Nothing was written.", todo="Try again.")
        if table.version() % JOIN_EVERY == 0:
            self.compact(target=JOINED)

    def notes(self, after: int = -1) -> list[tuple[int, dict[str, Any]]]:
        """Return the ``meta`` of the commits whose Delta version is above ``after``, oldest first."""
        with self._mutex:
            table = self.snapshot()
            if table is None or table.version() <= after:
                return []
            commits = table.history(limit=table.version() - after)
        notes = [(commit["version"], json.loads(commit[META])) for commit in commits if META in commit]
        return sorted(note for note in notes if note[0] > after)

    def compact(self, *, vacuum: timedelta | None = None, target: int | None = None) -> int:
        """Join files that are smaller than ``target`` bytes, by default the table's own measure.

        With ``vacuum``, files that were replaced longer ago than that are removed.

        Returns
        -------
        The number of files that were replaced.
        """
        with self._mutex, self._turn():
            table = self.snapshot()
            if table is None:
                return 0
            try:
                metrics = table.optimize.compact(target_size=target)
            except CommitFailedError:
                self._open = None
                return 0  # somebody rewrote the same files in the meantime: the next round does what is left
            if vacuum is not None:
                hours = int(vacuum.total_seconds() // 3600)
                table.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False)
            return int(metrics["numFilesRemoved"])

    def _changed(self, version: int) -> bool:
        """Say whether there may be commits after a version.

        Every commit is a file of the next number, which a folder is asked for in microseconds, while Delta lists the
        whole log. Commits are only ever tidied away behind a checkpoint, and each of those is written down anew.
        """
        if "://" in self.uri:
            return True
        return Path(self.uri, "_delta_log", f"{version + 1:020d}.json").exists() or self._checkpoint() != self._seen

    def _checkpoint(self) -> object:
        """Return what changes with every checkpoint of a table in a folder."""
        try:
            told = os.stat(Path(self.uri, "_delta_log", "_last_checkpoint"))
        except OSError:
            return None
        return told.st_mtime_ns, told.st_ino, told.st_size

    def _commit(self, table: DeltaTable, write: Write) -> None:
        properties = CommitProperties(
            custom_metadata={META: json.dumps(dict(write.meta), sort_keys=True)},
            app_transactions=[Transaction(name, number) for name, number in write.transactions.items()],
        )
        write_deltalake(
            table,
            write.frame,
            mode="append",
            schema_mode="merge",
            commit_properties=properties,
        )
        self.sync(table)

    def _create(self, schema: pl.Schema) -> None:
        """Make the table without rows: two that are made at once must not hide each other's first rows."""
        empty = Schema.from_arrow(pl.DataFrame(schema=schema).to_arrow().schema)
        indexed = {"delta.dataSkippingStatsColumns": ",".join(self.statistics)} if self.statistics else {}
        if "://" not in self.uri:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        try:
            DeltaTable.create(
                self.uri,
                empty,
                mode="ignore",
                partition_by=self.partition_by or None,
                configuration={**_CONFIGURATION, **indexed},
                # A second one that was made at the same time must fail, not be rebased: it would replace the schema.
                commit_properties=CommitProperties(max_commit_retries=0),
                storage_options=self.options,
            )
        except DeltaError:
            if not DeltaTable.is_deltatable(self.uri, self.options):
                raise

    def sync(self, table: DeltaTable) -> None:
        """Bring a commit and its files through the page cache to the disk; object stores do this themselves."""
        if "://" in self.uri:
            return
        root = Path(self.uri)
        commit = root / "_delta_log" / f"{table.version():020d}.json"
        actions = [json.loads(line) for line in commit.read_text().splitlines() if line]
        files = [root / action["add"]["path"] for action in actions if "add" in action]
        for path in [*files, *{path.parent for path in files}, commit, commit.parent]:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def alone(self) -> Iterator[DeltaTable | None]:
        """Give the newest state while no other writer of this machine is at work: for what takes rows away."""
        with self._mutex, self._turn():
            try:
                yield self.snapshot()
            finally:
                self._open = None  # whoever had it changed it

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if self.lock is None:
            yield
            return
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with open(self.lock, "a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def within(values: pl.Series) -> str | None:
    """Return a SQL condition that files which hold one of these values fulfil, by the statistics that Delta keeps.

    Returns
    -------
    None where no such condition can be said, so that every file is looked at.

    Examples
    --------
    >>> within(pl.Series("id", [7, 3, None]))
    'id >= 3 AND id <= 7'
    """
    name, low, high = values.name, values.min(), values.max()
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        return None
    if isinstance(low, int) and isinstance(high, int) and values.dtype.is_integer():
        return f"{name} >= {low} AND {name} <= {high}"
    if isinstance(low, str) and isinstance(high, str) and (low + high).isascii() and "'" not in low + high:
        return f"{name} >= '{low}' AND {name} <= '{high}'"
    return None


def schema_of(table: DeltaTable | None) -> pl.Schema:
    """Return names and types of a table's columns as Polars has them."""
    return pl.Schema({}) if table is None else pl.Schema(table.schema().to_arrow())


def normalise(frame: pl.DataFrame) -> pl.DataFrame:
    """Bring columns to the few types that are stored: 64-bit numbers, text, booleans, dates, instants in UTC.

    Two files of one feed must not differ because one of them happened to hold small numbers. An instant without an
    offset is UTC. A column without any value has no type yet and is left out.
    """
    columns = []
    for series in frame.get_columns():
        kind = series.dtype
        if kind == pl.Null:
            continue
        if kind.is_integer():
            series = series.cast(pl.Int64)
        elif kind.is_float() or kind.is_decimal():
            series = series.cast(pl.Float64)
        elif isinstance(kind, pl.Categorical | pl.Enum):
            series = series.cast(pl.String)
        elif isinstance(kind, pl.Datetime):
            zoned = series.dt.convert_time_zone("UTC") if kind.time_zone else series.dt.replace_time_zone("UTC")
            series = zoned.dt.cast_time_unit("us")
        columns.append(series)
    return pl.DataFrame(columns)


def fit(frame: pl.DataFrame, schema: Mapping[str, pl.DataType], what: str) -> pl.DataFrame:
    """Give columns the types that the table has for them, where no value changes by it.

    Raises
    ------
    ContractBroken
        If a value cannot be kept as it is.
    """
    columns = []
    for series in frame.get_columns():
        wanted = schema.get(series.name)
        if wanted is None or wanted == series.dtype:
            columns.append(series)
            continue
        numbers = wanted.is_numeric() and series.dtype.is_numeric()
        fitted = series.cast(wanted, strict=False) if numbers or series.dtype == pl.Null else None
        if fitted is None or fitted.null_count() > series.null_count() or not _same(series, fitted):
            raise ContractBroken(
                f"Column {series.name!r} of {what} holds {wanted}, and these rows have {series.dtype}.",
                safe="Nothing was added.",
                todo="Convert the column, or add the rows under another dataset name.",
            )
        columns.append(fitted)
    return pl.DataFrame(columns)


def _same(left: pl.Series, right: pl.Series) -> bool:
    return bool((left.cast(pl.Float64) == right.cast(pl.Float64)).all())


def _of_the_system(error: DeltaError, place: str) -> Exception:
    """Return what the operating system said, where the library only has it in words; else the error as it is."""
    said = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(said[1]), os.strerror(int(said[1])), place) if said else error
