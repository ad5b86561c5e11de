"""The pages of personal data: what was erased and what is kept for how long; and what a model processes, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orrery.app import Orrery
from orrery.timeline.state import Erasure
from orrery.web.render import Page

if TYPE_CHECKING:
    from orrery.data.processing import Record


@dataclass(frozen=True)
class Kept:
    """How long rows of a dataset are kept, and what of them is personal."""

    dataset: str
    rows: int
    retention: str
    subject: str
    personal: dict[str, str]


@dataclass(frozen=True)
class Looked:
    """Somebody looked what is kept of a person."""

    at: datetime
    by: str
    rows: int
    why: str


@dataclass(frozen=True, kw_only=True)
class PrivacyPage(Page):
    """Erasures, look-ups and what is kept.

    Parameters
    ----------
    order, found : what was just ordered (``find``, ``preview`` or ``erase``) and what was found; empty for nothing.
    """

    template = "privacy.html"
    refreshes = False

    erasures: list[dict[str, Any]]
    looks: list[Looked]
    kept: list[Kept]
    expired: list[dict[str, Any]]
    order: str
    found: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RecordPage(Page):
    """The record of processing of one model."""

    template = "record.html"
    refreshes = False

    record: Record
    missing: list[str]
    basis: str


def privacy_page(orrery: Orrery, limit: int = 100, order: str = "", found: dict[str, Any] | None = None) -> PrivacyPage:
    """Return the page of erasures; who may not find a person's data does not see it."""
    from orrery.data.subject import contracts_of

    orrery.allow("privacy", "")
    data = orrery.states.data()
    looks = orrery.timeline.read("", kinds=("subject_searched",), newest_first=True, limit=limit)
    expired = orrery.timeline.read(kinds=("expired",), newest_first=True, limit=limit)
    return PrivacyPage(
        title="Personal data",
        erasures=erasures(orrery)[:limit],
        looks=[Looked(one.occurred_at, one.actor, one.data["rows"], one.why) for one in looks],
        kept=[
            Kept(name, data.datasets[name].rows, one.retention, one.subject, dict(one.personal))
            for name, one in sorted(contracts_of(data).items())
        ],
        expired=[{"at": one.occurred_at, "why": one.why} for one in expired],
        order=order,
        found=found or {},
    )


def erasures(orrery: Orrery) -> list[dict[str, Any]]:
    """Return the erasures that were asked for, the newest first."""
    found = sorted(orrery.states.data().asked.values(), key=lambda one: one.at, reverse=True)
    return [_erasure(one) for one in found]


def record_page(orrery: Orrery, name: str) -> RecordPage:
    """Return the record of processing of a model."""
    from orrery.data.processing import BASIS, record_of

    record = record_of(orrery.model(name), orrery.states.data(), orrery.settings, orrery.clock.now())
    basis = BASIS.get(record.legal_basis, "")
    return RecordPage(title=f"{name}: processing", record=record, missing=record.missing, basis=basis)


def _erasure(one: Erasure) -> dict[str, Any]:
    return {
        "grave": one.grave,
        "at": one.at,
        "by": one.by,
        "why": one.why,
        "done": one.done,
        "rows": one.rows,
        "clean": one.clean,
        "proof": one.proof,
        "versions": one.versions,
    }
