"""Until when a review may wait, and the reminders of those that wait longer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from orrery.timeline.event import Draft
from orrery.timeline.state import ModelState, Version
from orrery.types import format_instant, parse_duration
from orrery.workers.action import Action, record


def within(model: ModelState, environment: str) -> timedelta:
    """Return how long a review before an environment may wait; nothing where the policy does not say."""
    policy = model.policy()
    rules = policy.environments.get(environment) if policy is not None else None
    return parse_duration(rules.review_within) if rules is not None else timedelta()


def deadline(model: ModelState, version: Version, environment: str, role: str) -> datetime | None:
    """Return until when a review that waits should be answered; nothing where the policy does not say."""
    period, since = within(model, environment), version.asked.get(f"{environment}:{role}")
    return since + period if period and since is not None else None


def overdue(model: ModelState, now: datetime) -> list[tuple[Version, str, str]]:
    """Return what waits for a review longer than the policy allows: version, environment, role."""
    return [one for one in model.waiting() if (until := deadline(model, *one)) is not None and until <= now]


def reminders(model: ModelState, now: datetime) -> Iterator[Action]:
    """Yield the reminders that are due, one each time the deadline has gone by again; what was slept through is one."""
    for version, environment, role in model.waiting():
        request, period = f"{environment}:{role}", within(model, environment)
        asked = version.asked.get(request)
        if not period or asked is None:
            continue
        last = max(asked, version.reminded.get(request, asked))
        if now - last < period:
            continue
        whose = f" of {role}" if role else ""
        why = (
            f"The review{whose} of version {version.number} before {environment} waits since {asked:%Y-%m-%d %H:%M}; "
            f"it should take {_words(period)}."
        )
        draft = Draft(
            kind="review_reminded",
            actor="orrery/review",
            why=why,
            model=model.name,
            version=version.number,
            environment=environment,
            data={"role": role, "since": format_instant(asked)},
        )
        yield record(f"remind:{model.name}:{version.number}:{request}:{last.timestamp():.0f}", draft)


def _words(period: timedelta) -> str:
    hours = period.total_seconds() / 3600
    return f"{hours / 24:g} days at most" if hours > 48 else f"{hours:g} hours at most"
