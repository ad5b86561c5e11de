"""Issues that closed themselves: what they waited for has happened."""

from __future__ import annotations

from collections.abc import Iterator

from orrery.timeline.event import Draft
from orrery.timeline.state import Issue, ModelState
from orrery.types import PRODUCTION
from orrery.workers.action import Action, record


def settled(model: ModelState) -> Iterator[Action]:
    """Yield the closing of every open issue whose cause is gone."""
    for issue in model.issues.values():
        if issue.closed is None and (why := _gone(model, issue)):
            draft = Draft(
                kind="issue_closed",
                actor="orrery/review",
                why=why,
                model=model.name,
                version=issue.version,
                data={"issue": issue.id},
            )
            yield record(f"close:{model.name}:{issue.id}:{issue.at.timestamp():.0f}", draft)


def _gone(model: ModelState, issue: Issue) -> str:
    """Return why an issue needs nobody any more; empty while it does."""
    stage = issue.opened_by.removeprefix("orrery/")
    if stage.startswith("monitors/"):
        return "" if stage.removeprefix("monitors/") in model.lane(PRODUCTION).alarms else "The alarm is over."
    if stage in ("build", "tests"):
        later = (one for one in model.commits.values() if one.at > issue.at and one.tested.get("development"))
        return f"The tests of {commit.sha[:7]} passed." if (commit := next(later, None)) else ""
    if stage == "training":
        trained = (one for one in model.versions.values() if one.at > issue.at)
        return f"Version {version.number} was trained." if (version := next(trained, None)) else ""
    tenures = (number for number, since, _ in model.lane(PRODUCTION).tenures if since > issue.at)
    return f"Version {number} took over since." if (number := next(tenures, 0)) else ""
