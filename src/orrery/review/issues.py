"""Issues: what people order of them, and those that close by themselves because what they waited for has happened."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

from orrery.errors import NotAllowed, NotFound, NotUnderstood
from orrery.review.commands import answered
from orrery.timeline.event import Draft
from orrery.timeline.state import Issue, ModelState
from orrery.types import PRODUCTION
from orrery.workers.action import Action, record

QUESTION, OVERRIDE = "changes:", "override:"
"""Begin the cause of a reviewer's question, and of what an emergency left to be reviewed."""


def find(model: ModelState, id_: str) -> Issue:
    """Return the issue of an id, or of the beginning of one.

    Raises
    ------
    NotFound
        If there is none, or several begin so.
    """
    fits = [one for key, one in model.issues.items() if key == id_]
    fits = fits or [one for key, one in model.issues.items() if len(id_) >= 4 and key.startswith(id_)]
    if len(fits) != 1:
        raise NotFound(
            f"There is no one issue {id_!r} of {model.name}.", todo=f"`orrery issue list {model.name}` names them."
        )
    return fits[0]


def opened(
    model: ModelState,
    *,
    title: str,
    why: str,
    actor: str,
    owner: str = "",
    version: int | None = None,
    events: Sequence[str] = (),
) -> list[Draft]:
    """Return the events of an issue that a person opens; it is for who owns the model if nobody else is named.

    Raises
    ------
    NotUnderstood
        If it has no title, or one of more than 300 characters.
    NotFound
        If there is no such version.
    """
    title = " ".join(title.split())
    if not 0 < len(title) <= 300:
        raise NotUnderstood("An issue needs a title of at most 300 characters.", todo="Say the rest in the reason.")
    newest = next(reversed(model.commits.values()), None)
    known = str(newest.spec["model"].get("owner") or newest.author) if newest else ""
    facts = {"issue": uuid.uuid4().hex[:12], "title": title, "owner": owner or known, "events": list(events)}
    return [_draft("issue_opened", model, why, actor, _there(model, version), facts)]


def commented(
    model: ModelState, id_: str, *, why: str, actor: str, version: int | None = None, events: Sequence[str] = ()
) -> list[Draft]:
    """Return the event of a comment, which may link the issue to a version or to events.

    Raises
    ------
    NotFound
        If there is no such issue or version.
    """
    facts = {"issue": find(model, id_).id, "events": list(events)}
    return [_draft("issue_commented", model, why, actor, _there(model, version), facts)]


def assigned(model: ModelState, id_: str, *, owner: str, why: str, actor: str) -> list[Draft]:
    """Return the event after which somebody else looks after an issue.

    Raises
    ------
    NotFound
        If there is no such issue.
    NotAllowed
        If it is closed.
    NotUnderstood
        If that is no name.
    """
    issue, owner = find(model, id_), owner.strip()
    if not owner or len(owner) > 256 or not owner.isprintable():
        raise NotUnderstood("This is not a name.", safe="Nothing was changed.")
    if issue.closed is not None:
        raise NotAllowed(f"The issue {issue.id} is closed.", todo="Reopen it first.")
    return [_draft("issue_assigned", model, why, actor, issue.version, {"issue": issue.id, "owner": owner})]


def closed(
    model: ModelState,
    id_: str,
    *,
    why: str,
    actor: str,
    person: Callable[[str], str] = str,
    reviews: bool = True,
) -> list[Draft]:
    """Return the events of closing an issue; a review that waited for it waits for its reviewers again.

    Parameters
    ----------
    person : returns who is behind a name.
    reviews : whether the actor may review: only who does closes what an emergency left to be reviewed.

    Raises
    ------
    NotFound
        If there is no such issue.
    NotAllowed
        If it is closed already, or is about an override of the actor's own.
    """
    issue = find(model, id_)
    own = person(issue.opened_by).casefold() == person(actor).casefold()
    if issue.cause.startswith(OVERRIDE) and (own or not reviews):
        raise NotAllowed(
            "What was let in without a review is reviewed afterwards by somebody who may, and did not let it in.",
            safe="The issue stays open.",
        )
    if issue.closed is not None:
        raise NotAllowed(f"The issue {issue.id} was closed by {issue.closed_by or 'orrery'}: {issue.closed_why}")
    return [_draft("issue_closed", model, why, actor, issue.version, {"issue": issue.id}), *answered(model, issue)]


def reopened(model: ModelState, id_: str, *, why: str, actor: str) -> list[Draft]:
    """Return the event after which an issue waits again; from then on only a person closes it.

    Raises
    ------
    NotFound
        If there is no such issue.
    NotAllowed
        If it is open, or another one is of the same cause.
    """
    issue = find(model, id_)
    if issue.closed is None:
        raise NotAllowed(f"The issue {issue.id} is open.")
    if (other := model.open_issue(issue.cause)) is not None:
        raise NotAllowed(f"The issue {other.id} of the same cause is open.", todo="Comment on that one.")
    return [_draft("issue_reopened", model, why, actor, issue.version, {"issue": issue.id})]


def settled(model: ModelState) -> Iterator[Action]:
    """Yield the closing of every open issue whose cause is gone."""
    for issue in model.issues.values():
        if issue.closed is None and not issue.kept and (why := _gone(model, issue)):
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
    """Return why an issue needs nobody any more; empty while it does, or where a person opened it."""
    if issue.cause.startswith(QUESTION):
        waits = any(issue.id in one.questions.values() for one, _, _ in model.unreviewed())
        return "" if waits else "The review that asked it waits no more."
    if issue.opened_by != "orrery" and not issue.opened_by.startswith("orrery/"):
        return ""
    stage = issue.opened_by.removeprefix("orrery/")
    if stage == "notify":
        return ""  # closed by who opened it, when it works again
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


def _there(model: ModelState, version: int | None) -> int | None:
    if version is not None and version not in model.versions:
        raise NotFound(f"{model.name} has no version {version}.", todo=f"It has: {list(model.versions) or 'none'}.")
    return version


def _draft(
    kind: str, model: ModelState, why: str, actor: str, version: int | None, data: Mapping[str, object]
) -> Draft:
    return Draft(kind=kind, actor=actor, why=why, model=model.name, version=version, data=dict(data))
