"""A reviewer asks for changes, is reminded of what waits, and is overridden in an emergency, never in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orrery.access.roles import Grant, Principal
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotUnderstood
from orrery.review.commands import OwnWork
from orrery.review.deadlines import overdue
from orrery.rollout.moves import next_moves, policy_of_whom
from orrery.settings import Settings
from orrery.spec import from_dict
from orrery.timeline.clock import ReplayClock
from orrery.timeline.event import Draft
from orrery.timeline.standing import standing
from orrery.timeline.state import Issue
from orrery.types import format_instant

MODEL = "tides"
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
WHY = "For the test."


def spec(**production: Any) -> dict[str, Any]:
    return {
        "model": {"name": MODEL, "task": "regression", "target": "height", "owner": "olga"},
        "data": {MODEL: MODEL},
        "environments": {
            "staging": {"needs": ["gates"]},
            "production": {"needs": ["staging", "review:quality", "review:legal"], **production},
        },
    }


def draft(kind: str, actor: str = "orrery/test", environment: str = "", **data: Any) -> Draft:
    version = None if kind in ("pushed", "triggered") else 1
    return Draft(kind=kind, actor=actor, why=WHY, model=MODEL, version=version, environment=environment, data=data)


@pytest.fixture
def orrery(home: Settings, request: pytest.FixtureRequest) -> Iterator[Orrery]:
    """A version of nora's that waits for two sign-offs, of an orrery whose clock is a replay."""
    (home.home / "clock").write_text(format_instant(START))
    made = Orrery(replace(home, access="required", replay=True))
    for name in ("nora", "mara", "li", "otto"):
        made.accounts.add(name, by="root", why=WHY)
    at(made, 0)
    facts: dict[str, Any] = {"run": "r", "commit": "a" * 40, "change": "redesign", "data": {MODEL: 1}}
    policy = {"review_within": "3d", "emergency": True, **getattr(request, "param", {})}
    made.append(
        [
            draft("pushed", "nora", commit="a" * 40, spec=spec(**policy), author="nora"),
            draft("trained", artifact="x", **facts),
            draft("gated", passed=True, gates={"quality": {"verdict": "passed"}}),
            draft("promoted", environment="staging", previous=None, change="redesign"),
        ]
    )
    settle(made)
    yield made
    made.timeline.engine.dispose()


def at(orrery: Orrery, days: float) -> None:
    assert isinstance(orrery.clock, ReplayClock)
    orrery.clock.set(START + timedelta(days=days))


def settle(orrery: Orrery) -> list[str]:
    """Write down what is due, until nothing is; return the kinds."""
    before = orrery.timeline.head()[0]
    while due := [one for one in orrery.due(MODEL) if one.kind == "record"]:
        orrery.append(due[0].drafts)
    return [event.kind for event in orrery.timeline.read(MODEL, after=before)]


def acting(orrery: Orrery, name: str, role: str = "reviewer") -> Orrery:
    return orrery.acting(Principal(name, (Grant(role, MODEL),)))


def said(name: str) -> dict[str, str]:
    return {"why": "The harbour of Brest is missing.", "actor": name}


def waiting(orrery: Orrery) -> set[str]:
    return {role for _, _, role in orrery.model(MODEL).waiting()}


def issue(orrery: Orrery) -> Issue:
    return list(orrery.model(MODEL).issues.values())[-1]


# --- asking for changes ----------------------------------------------------------------------------------------------


def test_a_question_goes_to_the_author_and_the_answer_reopens_the_review(orrery: Orrery) -> None:
    quality = acting(orrery, "li", "reviewer:quality")
    events = quality.ask_changes(MODEL, 1, **said("li"))
    assert [event.kind for event in events] == ["changes_requested", "issue_opened"]
    assert (issue(orrery).owner, issue(orrery).opened_by) == ("nora", "li")
    assert waiting(orrery) == {"legal"}  # the other sign-off goes on
    assert "waits for a review" in standing(orrery.model(MODEL), orrery.model(MODEL).versions[1])
    with pytest.raises(NotAllowed, match="asked for changes"):
        acting(orrery, "mara").approve(MODEL, 1, why=WHY, actor="mara", role="quality")
    assert settle(orrery) == []  # nothing closes it but an answer
    at(orrery, 1)
    kinds = [
        event.kind for event in acting(orrery, "nora", "scientist").close_issue(MODEL, issue(orrery).id, **said("nora"))
    ]
    assert kinds == ["issue_closed", "review_requested"] and waiting(orrery) == {"legal", "quality"}
    assert orrery.model(MODEL).versions[1].requested_by == []  # who answers did not ask for the release
    acting(orrery, "mara").approve(MODEL, 1, why=WHY, actor="mara")
    assert "promoted" in settle(orrery)


def test_who_asked_may_say_yes_after_all(orrery: Orrery) -> None:
    mara = acting(orrery, "mara")
    mara.ask_changes(MODEL, 1, **said("mara"), role="legal")
    assert "waits for a review" in standing(orrery.model(MODEL), orrery.model(MODEL).versions[1])
    kinds = [event.kind for event in mara.approve(MODEL, 1, why="I misread it.", actor="mara")]
    assert kinds == ["approved", "approved", "issue_closed"]
    assert issue(orrery).closed is not None and "promoted" in settle(orrery)


def test_a_question_ends_with_the_review_that_asked_it(orrery: Orrery) -> None:
    mara = acting(orrery, "mara")
    mara.ask_changes(MODEL, 1, **said("mara"))
    assert waiting(orrery) == set()
    assert "an answer to mara" in standing(orrery.model(MODEL), orrery.model(MODEL).versions[1])
    with pytest.raises(NotAllowed):  # asked is asked
        mara.ask_changes(MODEL, 1, **said("mara"))
    mara.reject(MODEL, 1, why=WHY, actor="mara")
    assert settle(orrery).count("issue_closed") == 2


def test_who_may_not_sign_may_not_ask(orrery: Orrery) -> None:
    head = orrery.timeline.head(MODEL)
    with pytest.raises(NotAllowed):
        acting(orrery, "nora", "scientist").ask_changes(MODEL, 1, **said("nora"))
    with pytest.raises(NotAllowed):
        acting(orrery, "li", "reviewer:quality").ask_changes(MODEL, 1, **said("li"), role="legal")
    assert not [one for one in orrery.timeline.read(MODEL, after=head[0]) if one.kind != "denied"]


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_reviewers_are_reminded_once_in_each_period(orrery: Orrery) -> None:
    at(orrery, 2.99)
    assert settle(orrery) == [] and overdue(orrery.model(MODEL), orrery.clock.now()) == []
    at(orrery, 3)
    assert len(overdue(orrery.model(MODEL), orrery.clock.now())) == 2
    assert settle(orrery) == ["review_reminded"] * 2  # one for each role
    for day in (3.1, 4, 5.9):
        at(orrery, day)
        assert settle(orrery) == []
    at(orrery, 6)
    assert settle(orrery) == ["review_reminded"] * 2
    at(orrery, 40)
    assert settle(orrery) == ["review_reminded"] * 2  # weeks that were slept through are one
    event = next(iter(orrery.timeline.read(MODEL, kinds=["review_reminded"])))
    assert (
        event.why
        == "The review of quality of version 1 before production waits since 2026-03-02 09:00; it should take "
        "3 days at most."
    )


def test_who_has_to_answer_is_not_the_one_reminded(orrery: Orrery) -> None:
    acting(orrery, "mara").ask_changes(MODEL, 1, **said("mara"), role="legal")
    at(orrery, 5)
    assert settle(orrery) == ["review_reminded"]  # of quality alone: legal waits for the author
    acting(orrery, "nora", "scientist").close_issue(MODEL, issue(orrery).id, **said("nora"))
    at(orrery, 7.9)
    assert settle(orrery) == []  # the reviewer has as long again from the answer on
    at(orrery, 8)
    assert settle(orrery) == ["review_reminded"] * 2
    acting(orrery, "mara").approve(MODEL, 1, why=WHY, actor="mara")
    settle(orrery)
    at(orrery, 100)
    assert "review_reminded" not in settle(orrery)


@pytest.mark.parametrize("orrery", [{"review_within": "0s"}], indirect=True)
def test_without_a_deadline_nobody_is_reminded(orrery: Orrery) -> None:
    at(orrery, 400)
    assert settle(orrery) == [] and overdue(orrery.model(MODEL), orrery.clock.now()) == []


def test_a_deadline_that_is_none_is_refused() -> None:
    with pytest.raises(NotUnderstood):
        from_dict(spec(review_within="soon"))


# --- the emergency ---------------------------------------------------------------------------------------------------


def override(orrery: Orrery, name: str = "otto", role: str = "operator", **more: Any) -> list[str]:
    events = acting(orrery, name, role).override(MODEL, 1, **{**said(name), "emergency": True, **more})
    return [event.kind for event in events]


def test_an_emergency_is_loud_and_is_reviewed_afterwards_by_somebody_else(orrery: Orrery) -> None:
    with pytest.raises(NotUnderstood, match="emergency only"):
        override(orrery, emergency=False)
    assert override(orrery) == ["review_overridden", "issue_opened"]
    assert issue(orrery).title == "EMERGENCY: otto let version 1 into production without its review of quality, legal"
    assert issue(orrery).owner == "olga"
    assert "promoted" in settle(orrery)
    promoted = list(orrery.timeline.read(MODEL, kinds=["promoted"]))[-1]
    assert promoted.why.startswith("EMERGENCY, not reviewed: let in by otto")
    assert policy_of_whom(orrery.model(MODEL), orrery.model(MODEL).versions[1], "production", "quality") == ""
    for name, role in (("otto", "administrator"), ("nora", "scientist")):
        with pytest.raises(NotAllowed, match="reviewed afterwards"):
            acting(orrery, name, role).close_issue(MODEL, issue(orrery).id, **said(name))
    assert acting(orrery, "mara").close_issue(MODEL, issue(orrery).id, **said("mara"))


def test_a_refresh_does_not_lean_on_an_override(orrery: Orrery) -> None:
    acting(orrery, "mara").approve(MODEL, 1, why=WHY, actor="mara")  # the control: on an approval it does
    settle(orrery)
    assert policy_of_whom(orrery.model(MODEL), orrery.model(MODEL).versions[1], "production", "quality")


def test_who_may_not_override(orrery: Orrery) -> None:
    for role in ("viewer", "scientist", "reviewer", "compliance"):
        with pytest.raises(NotAllowed):
            override(orrery, "mara", role)
    assert waiting(orrery) == {"quality", "legal"} and not orrery.model(MODEL).issues


@pytest.mark.parametrize("orrery", [{"emergency": False}], indirect=True)
def test_where_the_policy_knows_no_emergency_there_is_none(orrery: Orrery) -> None:
    with pytest.raises(NotAllowed, match="knows no emergency"):
        override(orrery)
    assert not any(action.kind == "record" for action in next_moves(orrery.model(MODEL), orrery.clock.now()))


@pytest.mark.parametrize("orrery", [{"four_eyes": True}], indirect=True)
def test_four_eyes_hold_in_an_emergency_too(orrery: Orrery) -> None:
    with pytest.raises(OwnWork):
        override(orrery, "nora")
    assert [event.actor for event in orrery.timeline.read(kinds=["denied"])] == ["nora"]
    assert override(orrery) == ["review_overridden", "issue_opened"]


def test_an_override_is_of_what_was_seen(orrery: Orrery) -> None:
    override(orrery)
    orrery.append([draft("gated", passed=True, gates={"quality": {"verdict": "passed", "numbers": {"value": 2.0}}})])
    assert waiting(orrery) == {"quality", "legal"} and "promoted" not in settle(orrery)
    with pytest.raises(NotAllowed):
        override(orrery, environment="staging")
