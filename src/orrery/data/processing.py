"""The record of processing of a model: made of what its project file, the contracts and the timeline say."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from orrery.data.pseudonyms import at_a_service
from orrery.data.subject import contracts_of
from orrery.settings import Settings
from orrery.timeline.state import DataState, ModelState

UNSAID = "not said"
BASIS = {
    "consent": "consent (GDPR article 6, 1 a)",
    "contract": "a contract with the person (GDPR article 6, 1 b)",
    "legal_obligation": "a legal obligation (GDPR article 6, 1 c)",
    "vital_interests": "vital interests (GDPR article 6, 1 d)",
    "public_task": "a public task (GDPR article 6, 1 e)",
    "legitimate_interests": "legitimate interests (GDPR article 6, 1 f)",
}


@dataclass(frozen=True)
class Category:
    """A column that says something of a person.

    Parameters
    ----------
    dataset, column : where.
    kept : pseudonymised, encrypted or plain.
    subject : whether it says whose a row is.
    """

    dataset: str
    column: str
    kept: str
    subject: bool


@dataclass(frozen=True)
class Source:
    """A dataset that a model learns from.

    Parameters
    ----------
    name, rows, retention : the dataset, its rows now, and how long each is kept (empty: without end).
    subject : column that says whose a row is; empty where rows cannot be found by person.
    """

    name: str
    rows: int
    retention: str
    subject: str


@dataclass(frozen=True)
class Record:
    """What article 30 of the GDPR asks for, of one model."""

    model: str
    at: datetime
    purpose: str
    legal_basis: str
    controller: str
    recipients: tuple[str, ...]
    retention: str
    """Of predictions, labels and values; empty: without end."""
    sources: list[Source]
    categories: list[Category]
    champion: int | None
    since: datetime | None
    versions: int
    """That exist."""
    unlearn: list[int]
    """Versions that exist and learned from rows of a subject that was erased."""
    erasures: int
    """Subjects erased from what it learned from."""
    measures: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """What nobody has said yet."""
        held = {"purpose": self.purpose, "legal basis": self.legal_basis, "controller": self.controller}
        return [name for name, value in held.items() if not value]

    def to_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self), "missing": self.missing}

    def to_markdown(self) -> str:
        """Return it as a document."""
        forever = "without end"
        lines = [f"# Record of processing: {self.model}", "", f"As of {self.at:%Y-%m-%d %H:%M} UTC.", ""]
        lines += ["| | |", "|---|---|"]
        told = {
            "Purpose": self.purpose or UNSAID,
            "Legal basis": BASIS.get(self.legal_basis, UNSAID),
            "Controller": self.controller or UNSAID,
            "Recipients": ", ".join(self.recipients) or UNSAID,
            "Kept: predictions, labels": self.retention or forever,
            "Answers": f"version {self.champion} since {self.since:%Y-%m-%d}" if self.since else "nowhere yet",
            "Versions kept": f"{self.versions}",
        }
        lines += [f"| {name} | {_cell(text)} |" for name, text in told.items()]
        lines += ["", "## Data", "", "| dataset | rows | kept | found by |", "|---|---|---|---|"]
        for one in self.sources:
            lines.append(
                f"| {one.name} | {one.rows} | {one.retention or forever} | {one.subject or 'not searchable'} |"
            )
        lines += ["", "## Personal data", ""]
        if self.categories:
            lines += ["| dataset | column | kept | |", "|---|---|---|---|"]
            for each in self.categories:
                says = "says whose the row is" if each.subject else ""
                lines.append(f"| {each.dataset} | {_cell(each.column)} | {each.kept} | {says} |")
        else:
            lines.append("No column is marked as personal.")
        lines += ["", "## Erasures", "", f"{self.erasures} subjects were erased from what the model learned from."]
        if self.unlearn:
            numbers = ", ".join(f"v{number}" for number in self.unlearn)
            lines.append(f"Versions that learned from one of them and still exist: {numbers}.")
        lines += ["", "## Measures", "", *(f"- {measure}" for measure in self.measures)]
        return "\n".join(lines) + "\n"


def record_of(model: ModelState, data: DataState, settings: Settings, now: datetime) -> Record:
    """Return the record of a model, as of a time."""
    policy = model.policy()
    said = policy.privacy if policy else None
    names = list(policy.data.values()) if policy else []
    contracts = contracts_of(data)
    kept = {one: contracts[one] for one in names if one in contracts}
    lane = model.lane("production")
    there = [number for number, version in model.versions.items() if not version.deleted]
    return Record(
        model=model.name,
        at=now,
        purpose=(said.purpose or (policy.model.objective if policy else "")) if said else "",
        legal_basis=said.legal_basis if said else "",
        controller=said.controller if said else "",
        recipients=said.recipients if said else (),
        retention="" if said is None or said.retention == "0s" else said.retention,
        sources=[
            Source(one, data.datasets[one].rows if one in data.datasets else 0, kept[one].retention, kept[one].subject)
            if one in kept
            else Source(one, 0, "", "")
            for one in names
        ],
        categories=[
            Category(one, column, mark, contract.subject == column)
            for one, contract in kept.items()
            for column, mark in contract.personal.items()
        ],
        champion=lane.champion,
        since=lane.since,
        versions=len(there),
        unlearn=[number for number in there if number in model.unlearn],
        erasures=sum(1 for one in data.asked.values() if one.done and set(one.held) & set(names)),
        measures=_measures(settings),
    )


def _measures(settings: Settings) -> list[str]:
    access = settings.access == "required"
    where = "outside the home folder" if settings.privacy_key else "in the home folder"
    where = "opened by a key service" if at_a_service(settings) else where
    return [
        "Pseudonymised columns are keyed hashes from the first byte on; encrypted ones have a key for each subject.",
        f"The key of both is {where}.",
        "Whoever asks needs an account with a role." if access else "Access is open to who reaches this machine.",
        "Who looked up a subject, and who erased one, stands on a chain of events that shows every change.",
    ]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
