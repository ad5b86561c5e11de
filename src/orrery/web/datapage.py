"""The pages of the datasets: their versions, what they promise, and what was set aside."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from orrery.app import Orrery
from orrery.errors import NotFound
from orrery.timeline.state import Dataset
from orrery.web import wire
from orrery.web.reading import data_versions
from orrery.web.render import Page

PROFILED = 50_000
"""Rows that a profile describes, the newest."""


@dataclass(frozen=True, kw_only=True)
class DataPage(Page):
    """All datasets."""

    template = "data.html"

    datasets: list[Dataset]


@dataclass(frozen=True)
class SetAside:
    """Rows that broke the contract, and why."""

    at: datetime
    rows: int
    reasons: dict[str, int]
    why: str


@dataclass(frozen=True, kw_only=True)
class DatasetPage(Page):
    """One dataset."""

    template = "dataset.html"

    dataset: Dataset
    versions: list[wire.DataVersion]
    contract: dict[str, Any]
    aside: list[SetAside]
    profile: list[dict[str, Any]]
    profiled: int
    gone: dict[int, int]
    """Version -> rows that it had and that were erased, or whose time was up."""
    expired: dict[str, Any] | None


def data_page(orrery: Orrery) -> DataPage:
    """Return the page of all datasets."""
    return DataPage(title="Data", datasets=sorted(orrery.datasets().values(), key=lambda one: one.name))


def dataset_page(orrery: Orrery, name: str, *, profile: bool = False, actor: str = "") -> DatasetPage:
    """Return the page of one dataset; its profile reads rows, so only who asks for it gets it."""
    dataset = orrery.datasets().get(name)
    if dataset is None:
        raise NotFound(f"There is no dataset {name!r}.", todo=f"Add it with: orrery data add {name} FILES...")
    if profile:
        orrery.note_read(name, "profile", actor)
    columns = _profile(orrery, name) if profile else []
    return DatasetPage(
        title=name,
        dataset=dataset,
        versions=data_versions(orrery, name, limit=200),
        contract=dict(dataset.contract or {}),
        aside=_aside(orrery, name),
        profile=columns,
        profiled=min(PROFILED, dataset.rows) if profile else 0,
        gone={one.version: one.erased for one in orrery.lake.versions(name) if one.erased} if dataset.lost else {},
        expired=dataset.expired,
    )


def _aside(orrery: Orrery, name: str, limit: int = 100) -> list[SetAside]:
    found: list[SetAside] = []
    for event in orrery.timeline.read("", kinds=("quarantined",), newest_first=True):
        if event.data.get("dataset") == name and len(found) < limit:
            found.append(SetAside(event.occurred_at, event.data["rows"], event.data.get("reasons", {}), event.why))
    return found


def _profile(orrery: Orrery, name: str) -> list[dict[str, Any]]:
    from orrery.data.profile import profile

    rows = orrery.lake.read(name).lazy().tail(PROFILED).collect()
    return [asdict(column) for column in profile(rows)]
