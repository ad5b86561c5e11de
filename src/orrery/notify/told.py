"""Who is told of what: a pure function of an event, the state of its model, and the people there are.

Names, reasons and what the gates found go into a message. What a program said (errors, output, the values that a
monitor blames) does not: it may quote rows. The link leads there, behind the sign-in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from orrery.access.roles import Principal
from orrery.timeline.event import Event
from orrery.timeline.state import DataState, ModelState, Version

REVIEWS, ISSUES = "reviews", "issues"
KINDS = (
    "review_requested",
    "review_reminded",
    "changes_requested",
    "review_overridden",
    "issue_opened",
    "issue_assigned",
    "issue_closed",
)
"""Kinds of events that somebody is told of."""
DELIVERY = "delivery:"
"""Begins the cause of an issue about what could not be delivered."""


@dataclass(frozen=True)
class Reader:
    """Somebody who may be told.

    Parameters
    ----------
    name : of the account.
    may : what it may do.
    """

    name: str
    may: Principal


@dataclass(frozen=True)
class News:
    """What is to be told.

    Parameters
    ----------
    key : what makes it one piece of news, whichever event tells it.
    topic : ``reviews`` or ``issues``.
    subject, text, path : in a line; in full, without the link; and the page that it is about.
    to : accounts that are told.
    channels : whether the project's channels are told.
    """

    key: str
    topic: str
    subject: str
    text: str
    path: str
    to: tuple[str, ...]
    channels: bool = True


@dataclass(frozen=True)
class People:
    """Who there is.

    Parameters
    ----------
    readers : accounts of people that can be reached.
    person : returns who is behind a name.
    hands : returns who had a hand in a version, and which.
    """

    readers: Sequence[Reader] = ()
    person: Callable[[str], str] = str
    hands: Callable[[ModelState, Version], Iterator[tuple[str, str]]] = field(default=lambda model, version: iter(()))

    def named(self, model: ModelState, *names: str) -> list[str]:
        """Return the accounts behind names; of those that may see the model."""
        wanted = {self.person(one).casefold() for one in names if one}
        return [one.name for one in self.readers if one.name.casefold() in wanted and one.may.may("read", model.name)]

    def signers(self, model: ModelState, version: Version, environment: str, role: str) -> list[str]:
        """Return the accounts that may sign a review."""
        policy = model.policy()
        rules = policy.environments.get(environment) if policy is not None else None
        own = {self.person(name).casefold() for name, _ in self.hands(model, version)}
        barred = own if rules is not None and rules.four_eyes else set[str]()
        fits = (one for one in self.readers if one.may.may_sign(role, model.name))
        return [one.name for one in fits if one.name.casefold() not in barred]


def news_of(event: Event, model: ModelState, people: People) -> News | None:
    """Return what is to be told of an event, if anything; nobody is told of their own act."""
    if event.kind not in KINDS:
        return None
    made = _of_issue(event, model, people) if event.kind.startswith("issue_") else _of_review(event, model, people)
    if made is None:
        return None
    actor = people.person(event.actor).casefold()
    to = tuple(one for one in dict.fromkeys(made.to) if one.casefold() != actor)
    return News(made.key, made.topic, made.subject, made.text, made.path, to, made.channels)


def news_of_itself(event: Event, state: DataState, people: People) -> News | None:
    """Return what is to be told of an issue of orrery itself, if anything: to who may operate everywhere."""
    issue = state.issues.get(str(event.data.get("issue", "")))
    if event.kind not in ("issue_opened", "issue_closed") or issue is None:
        return None
    actor = people.person(event.actor).casefold()
    to = (one.name for one in people.readers if one.may.may("operate") and one.name.casefold() != actor)
    subject = f"{'Closed: o' if event.kind == 'issue_closed' else 'O'}rrery itself: {' '.join(issue.title.split())}"
    return News(event.id, ISSUES, subject, _said(event.actor, event.why), "/issues", tuple(to))


def _of_review(event: Event, model: ModelState, people: People) -> News | None:
    version, role = model.versions.get(event.version or 0), str(event.data.get("role", ""))
    if version is None:
        return None
    number, place = version.number, event.environment
    path, review = f"/{model.name}/versions/{number}", f"review{f' of {role}' if role else ''}"
    if event.kind in ("review_requested", "review_reminded"):
        if (version, place, role) not in model.waiting():
            return None  # somebody was faster
        to = people.signers(model, version, place, role)
        if event.kind == "review_requested":
            subject = f"Version {number} of {model.name} waits for your {review} before {place}"
            key = f"review/{model.name}/{number}/{place}/{role}/{version.evidence}"
        else:
            subject = f"Reminder: version {number} of {model.name} still waits for your {review} before {place}"
            key = event.id
        return News(key, REVIEWS, subject, _evidence(version, event.why), path, tuple(to))
    if event.kind == "changes_requested":
        commit = model.commits[version.commit]
        subject = f"{event.actor} asks for changes of version {number} of {model.name}"
        to = people.named(model, commit.author, commit.pushed_by, *commit.authors)
        return News(event.id, REVIEWS, subject, event.why, _issue_path(model, event.data), tuple(to))
    subject = f"EMERGENCY: {event.actor} let version {number} of {model.name} into {place} without its reviews"
    reviewers = [one.name for one in people.readers if one.may.may("review", model.name)]
    owners = people.named(model, _owner(model, version))
    return News(event.id, REVIEWS, subject, _evidence(version, event.why), path, (*reviewers, *owners))


def _of_issue(event: Event, model: ModelState, people: People) -> News | None:
    issue = model.issues.get(event.data["issue"])
    if issue is None:
        return None
    cause, path = issue.cause, _issue_path(model, event.data)
    if event.kind == "issue_closed":
        subject = f"Closed: {_title(model, event, issue.opened_by, issue.title, cause)}"
        to = people.named(model, issue.owner, issue.opened_by if cause.startswith("changes:") else "")
        return News(event.id, ISSUES, subject, _said(event.actor, event.why), path, tuple(to))
    title = _title(model, event, issue.opened_by, issue.title, cause)
    if event.kind == "issue_assigned":
        to = people.named(model, str(event.data["owner"]))
        return News(event.id, ISSUES, f"Yours now: {title}", _said(event.actor, event.why), path, tuple(to), False)
    if cause.startswith(("changes:", "override:")):
        return None  # told by the event that opened it
    owner = str(event.data.get("owner", ""))
    version = model.versions.get(event.version or 0)
    text = _said(event.actor, event.why)
    if event.actor == "orrery/gates" and version is not None:
        text = _evidence(version, "")
    elif event.actor == "orrery/review":
        text = event.why  # the words of who rejected it
    to = [] if cause.startswith(f"{DELIVERY}mail/") else people.named(model, owner)
    return News(event.id, ISSUES, title, text, path, tuple(to))


def _title(model: ModelState, event: Event, opened_by: str, title: str, cause: str) -> str:
    """Return what an issue is about; of what a program found only which part of orrery it was."""
    about = f" (version {event.version})" if event.version is not None else ""
    if not _machine(opened_by) or cause.startswith(DELIVERY):
        return f"{model.name}: {' '.join(title.split())}"
    part = opened_by.removeprefix("orrery/")
    if part == "gates" and not cause.startswith("failed:"):
        return f"{model.name}: the gates refused version {event.version}"
    if part.startswith("monitors/"):
        return f"{model.name}: the monitor {part.removeprefix('monitors/')} alarms{about}"
    if part == "review":
        return f"{model.name}: version {event.version} was rejected"
    return f"{model.name}: a step failed: {part}{about}"


def _said(actor: str, why: str) -> str:
    return "What was found is on the page." if _machine(actor) else f"{actor}: {why}"


def _machine(actor: str) -> bool:
    return actor == "orrery" or actor.startswith("orrery/")


def _evidence(version: Version, why: str) -> str:
    """Return in words what the gates found."""
    words = {"passed": "passed", "refused": "REFUSED", "insufficient": "not enough data"}
    gates: dict[str, dict[str, Any]] = version.gates
    found = [
        f"  {name}: {words.get(str(one.get('verdict')), str(one.get('verdict')))}. {one.get('why', '')}".rstrip()
        for name, one in gates.items()
    ]
    return "\n".join([*([why] if why else []), *(["What the gates found:", *found] if found else [])])


def _issue_path(model: ModelState, data: dict[str, Any]) -> str:
    return f"/{model.name}/issues/{data['issue']}"


def _owner(model: ModelState, version: Version) -> str:
    return str(model.commits[version.commit].spec["model"].get("owner") or "")
