"""The pages of issues: of all models, of one model, and what was said about one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orrery.app import Orrery
from orrery.review.issues import find
from orrery.timeline.state import Issue
from orrery.web.reading import newest
from orrery.web.render import Page

KINDS = ("issue_opened", "issue_commented", "issue_assigned", "issue_closed", "issue_reopened")
CLOSED = 200
"""Closed issues that a list shows, the newest."""


@dataclass(frozen=True)
class Entry:
    """One issue in a list."""

    model: str
    id: str
    at: datetime
    title: str
    owner: str
    version: int | None
    comments: int
    closed: datetime | None
    closed_why: str


@dataclass(frozen=True, kw_only=True)
class IssuesPage(Page):
    """What waits for a person, and what did; of one model or of all.

    Parameters
    ----------
    model : whose issues; empty for all that the reader may see.
    """

    template = "issues.html"
    refreshes = False

    model: str = ""
    open: list[Entry]
    closed: list[Entry]
    done: str = ""


@dataclass(frozen=True, kw_only=True)
class IssuePage(Page):
    """One issue: what it is about, and what was said.

    Parameters
    ----------
    said : its events, oldest first.
    about : the events that it is linked to.
    """

    template = "issue.html"
    refreshes = False

    model: str
    issue: Issue
    said: list[dict[str, Any]]
    about: list[dict[str, Any]]
    done: str


def issues_page(orrery: Orrery) -> IssuesPage:
    """Return the page of the issues of all models, the newest first; orrery's own for who audits or operates it."""
    may = orrery.principal.may
    own = orrery.states.data().issues if may("audit") or may("operate") else {}
    return _listed({name: orrery.model(name).issues for name in orrery.models()} | {"": own}, "Issues")


def model_issues_page(orrery: Orrery, name: str, done: str) -> IssuesPage:
    """Return the page of the issues of one model."""
    return _listed({name: orrery.model(name).issues}, f"{name}: issues", name, done)


def issue_page(orrery: Orrery, name: str, id_: str, done: str) -> IssuePage:
    """Return the page of one issue."""
    issue = find(orrery.model(name), id_)
    said = [one for one in newest(orrery, name, KINDS, limit=1000) if one.data.get("issue") == issue.id]
    about = orrery.timeline.named(issue.events)
    return IssuePage(
        title=f"{name}: issue {issue.id}",
        model=name,
        issue=issue,
        said=[one.to_json() for one in reversed(said)],
        about=[one.to_json() for one in about if one.model == name],
        done=done,
    )


def _listed(of: dict[str, dict[str, Issue]], title: str, model: str = "", done: str = "") -> IssuesPage:
    found = [
        Entry(name, one.id, one.at, one.title, one.owner, one.version, one.comments, one.closed, one.closed_why)
        for name, issues in of.items()
        for one in issues.values()
    ]
    found.sort(key=lambda one: one.at, reverse=True)
    return IssuesPage(
        title=title,
        model=model,
        open=[one for one in found if one.closed is None],
        closed=[one for one in found if one.closed is not None][:CLOSED],
        done=done,
    )
