"""The lake: datasets with versions, in a folder or an object store.

A dataset is a Delta table. Every append is one commit that carries its version number, counted from 1, and what the
version is (rows, digest, note); commits that only tidy up (checkpoints, compaction) carry none, so they are no version.
Each row has its place in the dataset in the hidden column ``_row``: version *n* is the rows below that version's row
count. It therefore reads the same before and after a compaction, in the same order, and costs no copy.
"""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake import DeltaTable

from orrery.data.digest import digest_of
from orrery.data.frame import Frame
from orrery.data.gaps import NONE, Gaps
from orrery.data.group import GroupCommit
from orrery.data.sealed import HIDDEN
from orrery.data.table import Table, Write, fit, normalise, schema_of
from orrery.errors import NotFound, NotUnderstood, OrreryError
from orrery.types import check_name, digest, format_instant, parse_instant

if TYPE_CHECKING:
    import pyarrow as pa

ROW = "_row"
"""Hidden column: the row's place in its dataset."""

ERASED = "erased"
"""Key in a commit's note: ranges of places whose rows it erased."""

PARTITIONS = {"predictions": ("_month",), "labels": ("_month",), "values": ("_month",)}
"""Columns that divide the files of a kind; what stands behind a hyphen in a folder's name is one of its kind."""

STATISTICS = {
    "datasets": (ROW,),
    "quarantine": (ROW,),
    "predictions": ("_day", "_entity"),
    "labels": ("entity", "at"),
    "values": ("entity", "at"),
    "quarantined": (ROW,),
}
"""Columns by which the readers of a kind choose files."""

_COUNTER = "orrery"
_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")


@dataclass(frozen=True)
class DatasetVersion:
    """One version of a dataset.

    Parameters
    ----------
    name : the dataset.
    version : its number, from 1.
    rows_added, rows : rows that this version added, and rows that it has; those that were erased do not count.
    digest : stands for the content: equal wherever the same batches were appended in the same order.
    at : when it was added (UTC).
    note : what the one who added it said.
    columns : names of the columns.
    about : what :func:`orrery.data.intake.add` needs to write the event again, one entry per append.
    erased : rows that it had and that were erased: a version never changes but by that.
    """

    name: str
    version: int
    rows_added: int
    rows: int
    digest: str
    at: datetime
    note: str = ""
    columns: tuple[str, ...] = ()
    about: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    erased: int = 0

    @property
    def end(self) -> int:
        """Place after that of its last row, whether those before are still there or not."""
        return self.rows + self.erased

    @property
    def key(self) -> str:
        """Stands for the rows that it has now: the digest, until some of them are erased."""
        return f"{self.digest}~{self.erased}" if self.erased else self.digest


@dataclass(frozen=True)
class _Seen:
    """What is known of a table's commits up to one of them: its versions, and the places whose rows were erased."""

    upto: int = -1
    written: tuple[DatasetVersion, ...] = ()
    """As they were made."""
    versions: tuple[DatasetVersion, ...] = ()
    """As they are now."""
    gaps: Gaps = NONE


@dataclass(frozen=True)
class _Batch:
    frame: pl.DataFrame
    note: str
    key: str | None
    about: Mapping[str, Any]
    at: datetime


class Lake:
    """All datasets of one orrery.

    Parameters
    ----------
    root : folder, or URL of an object store (``s3://``, ``gs://``, ``az://``); its credentials come from the
        environment (``AWS_...``, ``GOOGLE_...``, ``AZURE_...``).

    Notes
    -----
    May be shared by threads. Any number of processes and machines may write at once: none of their rows is lost.
    """

    def __init__(self, root: str) -> None:
        self.root = root if "://" in root else str(Path(root).expanduser().absolute())
        self.options = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}
        self._mutex = threading.Lock()
        self._tables: dict[str, Table] = {}
        self._groups: dict[str, GroupCommit[Any, Any]] = {}
        self._seen: dict[str, _Seen] = {}

    def table(self, folder: str, name: str) -> Table:
        """Return the table ``{root}/{folder}/{name}``, there or not yet."""
        path = f"{folder}/{check_name(name, 'name of a table')}"
        kind = folder.partition("-")[0]
        partition_by, statistics = PARTITIONS.get(kind, ()), STATISTICS.get(kind, ())
        with self._mutex:
            if path not in self._tables:
                lock = None if "://" in self.root else Path(self.root, ".locks", f"{folder}-{name}")
                uri = f"{self.root.rstrip('/')}/{path}"
                self._tables[path] = Table(
                    uri, self.options, partition_by=partition_by, statistics=statistics, lock=lock
                )
            return self._tables[path]

    def group(self, uri: str, commit: Callable[[Sequence[Any]], Sequence[Any]]) -> GroupCommit[Any, Any]:
        """Return the one group commit of a table, so that all threads of this lake share it."""
        with self._mutex:
            return self._groups.setdefault(uri, GroupCommit(commit))

    def append(
        self,
        name: str,
        frame: pl.DataFrame,
        *,
        note: str = "",
        key: str | None = None,
        folder: str = "datasets",
        about: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> DatasetVersion:
        """Add rows to a dataset, made where it is not there; on return they are on disk.

        Threads that append to one dataset at the same time share a version. New columns are null in older rows.

        Parameters
        ----------
        name, frame, note : the dataset, the rows, a word about them.
        key : makes the append idempotent: a second one with the same key adds nothing and returns the version of the
            first.
        folder : ``datasets``, or ``quarantine``.
        about : kept with the version.
        at : when this happened; now, if it does not say.

        Raises
        ------
        NotUnderstood
            If there are no rows or columns, or a column has a reserved name.
        ContractBroken
            If a column has another type than the dataset's.
        """
        if ROW in frame.columns:
            raise NotUnderstood(f"A column cannot be called {ROW}.", todo="Rename it.")
        rows = normalise(frame)
        if rows.height == 0 or rows.width == 0:
            raise NotUnderstood(f"There is nothing to add to {name}: no row with a value in it.")
        table = self.table(folder, name)
        group: GroupCommit[_Batch, DatasetVersion] = self.group(
            table.uri, lambda batches: self._commit(folder, name, batches)
        )
        return group.submit(_Batch(rows, note, key, dict(about or {}), at or datetime.now(UTC)))

    def append_blocks(
        self,
        name: str,
        blocks: Callable[[], Iterator[pl.DataFrame]],
        *,
        key: str,
        note: str = "",
        about: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> DatasetVersion:
        """Add more rows than memory may hold to a dataset, as one version; on return they are on disk.

        Parameters
        ----------
        blocks : begins to yield the rows anew each time that it is called, in blocks of one schema.
        name, note, key, about, at : as of :meth:`append`.

        Raises
        ------
        NotUnderstood, ContractBroken
            As :meth:`append`.
        """
        made: list[DatasetVersion] = []

        def decide(table: DeltaTable | None) -> Write | None:
            made.clear()
            first = next(blocks(), None)
            if first is None or not first.height:
                raise NotUnderstood(f"There is nothing to add to {name}: no row with a value in it.")
            types = dict(schema_of(table))
            kinds = fit(normalise(first), types, name).schema
            if table is None:
                return Write(pl.DataFrame(schema={**kinds, ROW: pl.Int64()}))  # and be asked again
            versions = self._known("datasets", name)
            if (known := self.table("datasets", name).version(_application(key))) is not None:
                made.append(versions[known - 1])
                return None
            last = versions[-1] if versions else DatasetVersion(name, 0, 0, 0, "", datetime.now(UTC))
            rows, chained = last.rows, last.digest
            for block in blocks():
                rows, chained = rows + block.height, digest_of(fit(normalise(block), types, name), chained)
            new = DatasetVersion(
                name=name,
                version=last.version + 1,
                rows_added=rows - last.rows,
                rows=rows,
                erased=last.erased,
                digest=chained,
                at=at or datetime.now(UTC),
                note=note,
                columns=_shown({**types, **kinds}),
                about=(dict(about),) if about else (),
            )
            made.append(new)
            stream = _stream(blocks, types, last)
            return Write(stream, _to_note(new), {_COUNTER: new.version, _application(key): new.version})

        self.table("datasets", name).write(decide)
        return made[0]

    def read(self, name: str, version: int | None = None, *, after: int = 0, folder: str = "datasets") -> Frame:
        """Return a version of a dataset, by default the newest; with ``after``, only the rows added since that version.

        Raises
        ------
        NotFound
            If there is no such dataset or version.
        """
        found = self.version(name, version, folder=folder)
        start = self.version(name, after, folder=folder).rows if after else 0
        if not found.rows:
            raise NotFound(
                f"{name}@v{found.version} holds no row any more: all {found.erased} were erased, or their time was up.",
                todo=f"`orrery data show {name}` shows the newest version.",
            )
        return self.part(found, start, found.rows, folder=folder)

    def part(self, of: DatasetVersion, start: int, stop: int, *, folder: str = "datasets") -> Frame:
        """Return the rows of a version from one place to before another; files that hold none of them are not read."""
        gaps = self._look(folder, of.name).gaps
        stop = of.end if stop >= of.rows else gaps.place(stop)
        start = gaps.place(start)
        scan = self.table(folder, of.name).scan(f"{ROW} >= {start} AND {ROW} < {stop}")
        inside = (pl.col(ROW) >= start) & (pl.col(ROW) < stop)
        return Frame(scan.filter(inside).sort(ROW).select(of.columns))

    def version(self, name: str, version: int | None = None, *, folder: str = "datasets") -> DatasetVersion:
        """Return what a version is, the newest if none is named.

        Raises
        ------
        NotFound
            If there is no such dataset or version.
        """
        versions = self.versions(name, folder=folder)
        if version is None:
            return versions[-1]
        if not 1 <= version <= len(versions):
            raise NotFound(f"{name} has no version {version}.", todo=f"It has 1 to {len(versions)}.")
        return versions[version - 1]

    def committed(self, name: str, key: str, *, folder: str = "datasets") -> DatasetVersion | None:
        """Return the version that an append with this key became, None if there was none."""
        number = self.table(folder, name).version(_application(key))
        return None if number is None else self._known(folder, name)[number - 1]

    def versions(self, name: str, *, folder: str = "datasets") -> list[DatasetVersion]:
        """Return all versions of a dataset, oldest first.

        Raises
        ------
        NotFound
            If there is no such dataset.
        """
        versions = self._known(folder, name)
        if not versions:
            near = difflib.get_close_matches(name, self.names(folder=folder), n=1, cutoff=0.5)
            raise NotFound(
                f"There is no dataset {name}.",
                todo=f"Did you mean {near[0]}?" if near else f"Add it with: orrery data add {name} FILES...",
            )
        return list(versions)

    def names(self, *, folder: str = "datasets") -> list[str]:
        """Return the names of all datasets, or of all tables in another folder."""
        if "://" in self.root:
            return self._listed(folder)
        return sorted(log.parent.name for log in Path(self.root, folder).glob("*/_delta_log"))

    def folders(self) -> list[str]:
        """Return the folders of tables: ``datasets``, ``quarantine``, ``predictions`` ..."""
        return [name for name in self._listed("") if not name.startswith(".")]

    def _listed(self, folder: str) -> list[str]:
        """Return the names of the folders in one; it need not be there."""
        if "://" not in self.root:
            return sorted(path.name for path in Path(self.root, folder).glob("*") if path.is_dir())
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import FileSelector, PyFileSystem

        files = PyFileSystem(DeltaStorageHandler(self.root, self.options))
        found = files.get_file_info(FileSelector(folder, allow_not_found=True))
        return sorted(info.base_name for info in found)

    def compact(self, name: str | None = None) -> int:
        """Join small files of one dataset, or of every table of the lake; to be called on a schedule.

        Versions stay as they are. Returns the number of files that were replaced.
        """
        wanted = [("datasets", name)] if name else [(f, n) for f in self._listed("") for n in self.names(folder=f)]
        replaced = 0
        for folder, table in wanted:
            keep = timedelta(days=1)  # longer than any reader holds a plan
            replaced += self.table(folder, table).compact(vacuum=keep)
        return replaced

    def _known(self, folder: str, name: str) -> Sequence[DatasetVersion]:
        return self._look(folder, name).versions

    def _look(self, folder: str, name: str) -> _Seen:
        table = self.table(folder, name)
        seen = self._seen.get(table.uri, _Seen())
        fresh = table.notes(seen.upto)
        if fresh:
            gaps = seen.gaps.more([part for _, note in fresh for part in note.get(ERASED, ())])
            new = tuple(_from_note(name, note) for _, note in fresh if ERASED not in note)
            written = (*seen.written, *new)
            same = gaps == seen.gaps  # else every version has fewer rows now
            versions = (*seen.versions, *_without(new, gaps)) if same else _without(written, gaps)
            seen = _Seen(fresh[-1][0], written, versions, gaps)
            self._seen[table.uri] = seen  # replaced whole: readers in other threads keep what they have
        return seen

    def _commit(self, folder: str, name: str, batches: Sequence[_Batch]) -> list[DatasetVersion | Exception]:
        results: list[DatasetVersion | Exception] = []

        def decide(table: DeltaTable | None) -> Write | None:
            versions = self._known(folder, name)
            last = versions[-1] if versions else DatasetVersion(name, 0, 0, 0, "", datetime.now(UTC))
            new, accepted = _next(last, schema_of(table), batches, self.table(folder, name).version, results, versions)
            if new is None:
                return None
            keys = {_application(batch.key): new.version for batch in accepted if batch.key is not None}
            rows = pl.concat([batch.frame for batch in accepted], how="diagonal")
            rows = rows.with_columns(pl.int_range(last.end, new.end, dtype=pl.Int64).alias(ROW))
            return Write(rows, _to_note(new), {_COUNTER: new.version, **keys})

        self.table(folder, name).write(decide)
        return results


def _next(
    last: DatasetVersion,
    schema: Mapping[str, pl.DataType],
    batches: Sequence[_Batch],
    number_of: Callable[[str], int | None],
    results: list[DatasetVersion | Exception],
    versions: Sequence[DatasetVersion],
) -> tuple[DatasetVersion | None, list[_Batch]]:
    """Make one version of those batches that are new and fit; fill in what becomes of each of them."""
    results.clear()
    types = dict(schema)
    accepted: list[_Batch] = []
    outcome: list[DatasetVersion | Exception | None] = []  # None: in the new version
    chained = last.digest
    for batch in batches:
        known = number_of(_application(batch.key)) if batch.key is not None else None
        if known is not None:
            outcome.append(versions[known - 1])
            continue
        if batch.key is not None and any(other.key == batch.key for other in accepted):
            outcome.append(None)
            continue
        try:
            fitted = fit(batch.frame, types, last.name)
        except OrreryError as error:
            outcome.append(error)
            continue
        types.update(fitted.schema)
        chained = digest_of(fitted, chained)
        accepted.append(replace(batch, frame=fitted))
        outcome.append(None)
    new = None
    if accepted:
        added = sum(batch.frame.height for batch in accepted)
        new = DatasetVersion(
            name=last.name,
            version=last.version + 1,
            rows_added=added,
            rows=last.rows + added,
            erased=last.erased,
            digest=chained,
            at=max(batch.at for batch in accepted),
            note="; ".join(dict.fromkeys(batch.note for batch in accepted if batch.note)),
            columns=_shown(types),
            about=tuple(batch.about for batch in accepted if batch.about),
        )
    for entry in outcome:
        if (become := entry or new) is not None:
            results.append(become)
    return new, accepted


def _stream(
    blocks: Callable[[], Iterator[pl.DataFrame]], types: Mapping[str, pl.DataType], last: DatasetVersion
) -> pa.RecordBatchReader:
    """Return the blocks as one Arrow stream, their places after those of the last version."""
    import pyarrow as pa

    def placed() -> Iterator[pa.Table]:
        start = last.end
        for block in blocks():
            fitted = fit(normalise(block), types, last.name)
            place = pl.int_range(start, start + block.height, dtype=pl.Int64, eager=True).alias(ROW)
            start += block.height
            yield fitted.with_columns(place).to_arrow()

    tables = placed()
    head = next(tables)
    batches = (batch for table in chain((head,), tables) for batch in table.to_batches())
    return pa.RecordBatchReader.from_batches(head.schema, batches)


def _shown(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that a version has: what is encrypted is read by nobody but who asks for it by name."""
    return tuple(name for name in columns if name != ROW and not name.startswith(HIDDEN))


def _application(key: str | None) -> str:
    return f"key:{digest(key or '')}"


def _without(versions: Iterable[DatasetVersion], gaps: Gaps) -> tuple[DatasetVersion, ...]:
    """Return versions as they were made with the counts of the rows that are left."""
    made = []
    for one in versions:
        gone, older = gaps.before(one.rows), gaps.before(one.rows - one.rows_added)
        if gone:
            one = replace(one, rows=one.rows - gone, rows_added=one.rows_added - (gone - older), erased=gone)
        made.append(one)
    return tuple(made)


def _to_note(version: DatasetVersion) -> dict[str, Any]:
    """Return what the commit carries: what the version is when it is made, whatever is erased of it afterwards."""
    note = {**asdict(version), "at": format_instant(version.at), "rows": version.end}
    note["about"] = [dict(entry) for entry in version.about]
    del note["name"], note["erased"]
    return note


def _from_note(name: str, note: Mapping[str, Any]) -> DatasetVersion:
    fields = {**note, "at": parse_instant(note["at"])}
    return DatasetVersion(name=name, **{**fields, "columns": tuple(note["columns"]), "about": tuple(note["about"])})
