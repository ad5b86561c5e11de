"""An event as other programs read it: a CloudEvent 1.0 around a CDEvent 0.5.

Types are those of CDEvents where one fits, and ``dev.cdeventsx.orrery-...`` otherwise. What leaves is chosen here,
field by field: outputs, errors, project files and the names and addresses of authors do not.
"""

from __future__ import annotations

from typing import Any

from orrery.timeline.event import Event
from orrery.types import format_instant

SPEC = "0.5.0"
"""Version of CDEvents."""
FACTS = (
    "branch", "cause", "change", "champion", "commit", "decision", "environment", "gate", "issue", "look", "medium",
    "monitor", "owner", "parent", "passed", "previous", "reason", "role", "roles", "run", "share", "since", "stage",
    "until",
)  # fmt: skip
"""What of an event's data leaves, where it is there."""
MACHINE_WORDS = ("failed", "quarantined", "alarmed", "not_trained")
"""Kinds whose reason a program wrote, which may quote rows: it stays here."""


def envelope(event: Event, url: str) -> dict[str, Any]:
    """Return an event as a CloudEvent in structured JSON.

    Parameters
    ----------
    url : address of the pages.
    """
    source = f"{url}/{event.model}"
    type_, subject, content = _cdevent(event, url)
    at = format_instant(event.occurred_at)
    data = {
        "context": {"specversion": SPEC, "id": event.id, "source": source, "type": type_, "timestamp": at},
        "subject": {"id": subject, "source": source, "content": content},
        "customData": _facts(event, url),
        "customDataContentType": "application/json",
    }
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": type_,
        "subject": subject,
        "time": at,
        "sequence": f"{event.seq:020d}",
        "datacontenttype": "application/json",
        "data": data,
    }


def _cdevent(event: Event, url: str) -> tuple[str, str, dict[str, Any]]:
    """Return type, subject and content of the CDEvent that fits; one of our own where none does."""
    model, data = event.model, event.data
    place = {"environment": {"id": event.environment}}
    artifact = {"artifactId": f"pkg:mlflow/{model}@{event.version}"}
    service = f"{event.environment}/{model}"
    if event.kind == "promoted":
        predicate = "deployed" if data.get("previous") is None else "upgraded"
        return f"dev.cdevents.service.{predicate}.0.3.0", service, {**place, **artifact}
    if event.kind == "rolled_back":
        return "dev.cdevents.service.rolledback.0.3.0", service, {**place, **artifact}
    if event.kind == "retired" and data.get("role") == "champion":
        return "dev.cdevents.service.removed.0.3.0", service, place
    if event.kind in ("alarmed", "quieted"):
        predicate = "detected" if event.kind == "alarmed" else "resolved"
        what = f"The monitor {data['monitor']} {'alarms' if predicate == 'detected' else 'is quiet again'}."
        content = {"description": what, **place, "service": {"id": service}}
        return f"dev.cdevents.incident.{predicate}.0.3.0", f"{service}/{data['monitor']}", content
    if event.kind == "issue_opened":
        page = f"{url}/{model}/issues/{data['issue']}"
        content = {"summary": _summary(event), "creator": event.actor, "uri": page}
        return "dev.cdevents.ticket.created.0.2.0", str(data["issue"]), content
    if event.kind == "issue_closed":
        page = f"{url}/{model}/issues/{data['issue']}"
        content = {"uri": page, "resolution": "completed", "updatedBy": event.actor}
        return "dev.cdevents.ticket.closed.0.2.0", str(data["issue"]), content
    if event.kind == "tested":
        return "dev.cdevents.testsuiterun.finished.0.3.0", str(data["commit"]), {"outcome": "success", **place}
    subject = "version" if event.version is not None else "model"
    id_ = f"{model}/versions/{event.version}" if event.version is not None else model
    return f"dev.cdeventsx.orrery-{subject}.{event.kind.replace('_', '')}.0.1.0", id_, {}


def _facts(event: Event, url: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": event.kind,
        "model": event.model,
        "version": event.version,
        "environment": event.environment,
        "actor": event.actor,
        "seq": event.seq,
        "hash": event.hash,
        "page": url + (f"/{event.model}/versions/{event.version}" if event.version is not None else f"/{event.model}"),
    }
    if not _quotes(event):
        facts["why"] = event.why
    if event.kind == "gated":
        facts["gates"] = {name: one.get("verdict") for name, one in event.data.get("gates", {}).items()}
    return facts | {name: event.data[name] for name in FACTS if name in event.data and name not in facts}


def _quotes(event: Event) -> bool:
    machine = event.actor == "orrery" or event.actor.startswith("orrery/")
    return event.kind in MACHINE_WORDS or (event.kind.startswith("issue_") and machine)


def _summary(event: Event) -> str:
    if _quotes(event):
        return f"{event.actor.removeprefix('orrery/')} found something about {event.model}"
    return str(event.data.get("title", event.why))
