"""Remove rows whose time is up: of datasets as their contract says, of logs as ``[privacy]`` of a project file does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from orrery.actions.desk import Desk
from orrery.data.gaps import Gaps
from orrery.data.labels import ASIDE, FOLDER, VALUES
from orrery.data.log import FOLDER as LOG
from orrery.data.purge import purge, remove_before, remove_places
from orrery.data.subject import DATASETS, QUARANTINE, contracts_of
from orrery.data.table import Table
from orrery.timeline.event import Draft
from orrery.types import format_instant, parse_duration

ACTOR = "orrery/privacy"


def expire(desk: Desk) -> int:
    """Remove what is older than it may be, and write down how much; return how many rows that were."""
    drafts = [*_datasets(desk), *_logs(desk)]
    desk.orrery.append(drafts)
    return sum(draft.data["removed"] for draft in drafts)


def _datasets(desk: Desk) -> Iterator[Draft]:
    orrery = desk.orrery
    data = orrery.states.data()
    touched = False
    for name, contract in contracts_of(data).items():
        if not contract.retention or name not in orrery.lake.names():
            continue
        before = orrery.clock.now() - parse_duration(contract.retention)
        removed = _older(desk, DATASETS, name, before)
        aside = _older(desk, QUARANTINE, name, before) if name in orrery.lake.names(folder=QUARANTINE) else 0
        newest = orrery.lake.version(name)
        known = data.datasets[name]
        unsaid = known.version == newest.version and known.rows > newest.rows  # killed before it could say so
        if removed or aside or unsaid:
            touched = True
            count = max(removed, known.rows - newest.rows) + aside
            facts = {"dataset": name, "left": newest.rows}
            yield _draft(f"{count} rows of {name}", "", before, contract.retention, {**facts, "removed": count})
    if touched:
        _clear(desk)


def _older(desk: Desk, folder: str, name: str, before: datetime) -> int:
    """Remove the rows of versions that were added before an instant; a later one may be of an earlier time."""
    versions = desk.orrery.lake.versions(name, folder=folder)
    starts = [0, *(one.end for one in versions)]
    old = Gaps().more((start, one.end) for start, one in zip(starts, versions, strict=False) if one.at < before)
    table = desk.orrery.lake.table(folder, name)
    count = remove_places(table, old.ranges)
    if count:
        _purged(table)
    return count


def _logs(desk: Desk) -> Iterator[Draft]:
    orrery = desk.orrery
    for name in orrery.timeline.models():
        policy = orrery.states.model(name).policy()
        if policy is None or not (kept := parse_duration(policy.privacy.retention)):
            continue
        before = orrery.clock.now() - kept
        places = [(LOG, "_at"), (FOLDER, "at"), (ASIDE, "at")]
        places += [(one, "at") for one in orrery.lake.folders() if one.startswith(f"{VALUES}-")]
        count = sum(
            _removed(orrery.lake.table(folder, name), column, before)
            for folder, column in places
            if name in orrery.lake.names(folder=folder)
        )
        if count:
            words = f"{count} predictions, labels and values of {name}"
            yield _draft(words, name, before, policy.privacy.retention, {"removed": count})


def _removed(table: Table, column: str, before: datetime) -> int:
    count = remove_before(table, column, before)
    if count:
        _purged(table)
    return count


def _purged(table: Table) -> None:
    if "://" not in table.uri:  # an object store's old files go with the next compaction
        purge(table, ())


def _clear(desk: Desk) -> None:
    """Remove exports of versions that have lost rows, and results that were made of them."""
    cache, lake = desk.settings.folder("cache"), desk.orrery.lake
    now = {version.key for name in lake.names() for version in lake.versions(name)}
    gone = [path for path in (cache / "datasets").glob("*") if path.stem not in now]
    gone += [path for path in desk.results() if path.is_file()]
    for path in gone:
        path.unlink(missing_ok=True)


def _draft(what: str, model: str, before: datetime, retention: str, data: dict[str, object]) -> Draft:
    return Draft(
        kind="expired",
        actor=ACTOR,
        why=f"{what} from before {before:%Y-%m-%d %H:%M} removed: they are kept for {retention}.",
        model=model,
        data={**data, "before": format_instant(before), "retention": retention},
    )
