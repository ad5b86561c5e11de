"""Remove the files of a deleted version; its record stays."""

from __future__ import annotations

from orrery.actions.desk import Desk
from orrery.registry.versions import delete_artifact
from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState
from orrery.workers.action import Action


def purge(desk: Desk, model: ModelState, action: Action) -> list[Draft]:
    """Remove the artifact of the version that the action names."""
    number = action.version or 0
    version = model.versions[number]
    delete_artifact(desk.settings, desk.orrery.timeline, model.name, number)
    why = str((version.deleted or {}).get("why", ""))
    return [
        Draft(
            id=action.event_id(),
            kind="purged",
            actor="orrery/registry",
            why=f"The files of version {number} are gone: {why}",
            model=model.name,
            version=number,
            data={"artifact": version.facts.get("artifact", "")},
        )
    ]
