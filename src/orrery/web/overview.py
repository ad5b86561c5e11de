"""The pages over all models: projects, reviews."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orrery.app import Orrery
from orrery.timeline.state import Lane, ModelState
from orrery.web import wire
from orrery.web.pictures import spark
from orrery.web.reading import lanes_of, newest, reviews, running
from orrery.web.render import Page

SPARK = 60
"""Looks that a small line shows."""


@dataclass(frozen=True)
class Place:
    """An environment and who answers there."""

    environment: str
    champion: int | None
    since: datetime | None
    challengers: list[tuple[int, str]]


@dataclass(frozen=True)
class Project:
    """One model in the list.

    Parameters
    ----------
    metric, value, promised : the primary loss, the champion's at the last look, what it promised when it was trained.
    looks : the primary loss of the last looks, oldest first; ``line`` is their picture.
    """

    name: str
    objective: str
    owner: str
    places: list[Place]
    metric: str
    value: float | None
    promised: float | None
    looks: list[float]
    line: str
    alarms: list[str]
    waiting: int
    issues: int
    running: list[str]


@dataclass(frozen=True, kw_only=True)
class ProjectsPage(Page):
    """All models."""

    template = "projects.html"

    now: datetime
    projects: list[Project]
    push: str


@dataclass(frozen=True, kw_only=True)
class ReviewsPage(Page):
    """What waits for a decision."""

    template = "reviews.html"

    reviews: list[wire.ReviewAnswer]


def projects_page(orrery: Orrery) -> ProjectsPage:
    """Return the page of all models."""
    projects = [_project(orrery, orrery.model(name)) for name in orrery.models()]
    return ProjectsPage(
        title="Projects",
        now=orrery.clock.now(),
        projects=projects,
        push=f"{orrery.settings.control_url}/git/my-model.git",
        running=[f"{one.name}: {', '.join(one.running)}" for one in projects if one.running],
    )


def _project(orrery: Orrery, model: ModelState) -> Project:
    policy, champion = model.policy(), model.champion()
    metric = policy.rollout.primary if policy else ""
    events = newest(orrery, model.name, ("watched",), limit=SPARK)
    looks = [event.data["metrics"][metric] for event in reversed(events) if metric in event.data.get("metrics", {})]
    promised = champion.facts.get("expected_loss") if champion else None
    alarms = [f"{name} in {lane.environment}" for lane in model.lanes.values() for name in sorted(lane.alarms)]
    return Project(
        name=model.name,
        objective=policy.model.objective if policy else "",
        owner=policy.model.owner if policy else "",
        places=[place(lane) for lane in lanes_of(model)],
        metric=metric,
        value=looks[-1] if looks else None,
        promised=promised if isinstance(promised, float) else None,
        looks=looks,
        line=spark(looks),
        alarms=alarms,
        waiting=len(model.waiting()),
        issues=sum(issue.closed is None for issue in model.issues.values()),
        running=running(orrery, model.name),
    )


def place(lane: Lane) -> Place:
    """Return who answers in an environment."""
    return Place(
        lane.environment,
        lane.champion,
        lane.since,
        sorted((one.version, one.standing) for one in lane.challengers.values()),
    )


def reviews_page(orrery: Orrery) -> ReviewsPage:
    """Return the page of what waits for a decision."""
    return ReviewsPage(title="Reviews", reviews=reviews(orrery))
