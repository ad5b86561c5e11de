"""Issues: people open, discuss, assign, close and reopen them; an alarm opens one, another cause another."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from orrery.access.roles import Grant, Principal
from orrery.actions.desk import failure
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotFound, NotUnderstood
from orrery.settings import Settings
from orrery.timeline.event import Draft
from orrery.timeline.fold import fold
from orrery.timeline.state import Issue, ModelState
from orrery.workers.action import Action

MODEL = "tides"
SPEC = {"model": {"name": MODEL, "task": "regression", "target": "height", "owner": "nora"}, "data": {MODEL: MODEL}}
TRAINED = {"run": "r", "commit": "a" * 40, "change": "redesign", "data": {MODEL: 1}}


def draft(kind: str, version: int | None = None, actor: str = "orrery/test", **data: Any) -> Draft:
    return Draft(
        kind=kind, actor=actor, why="because", model=MODEL, version=version, environment="production", data=data
    )


@pytest.fixture
def orrery(home: Settings) -> Iterator[Orrery]:
    made = Orrery(home)
    made.append([draft("pushed", commit="a" * 40, spec=SPEC, author="ann"), draft("trained", 1, **TRAINED)])
    made.append([draft("gated", 1, passed=True, gates={}), draft("promoted", 1, previous=None, change="redesign")])
    yield made
    made.timeline.engine.dispose()


def issues(orrery: Orrery) -> list[Issue]:
    return list(orrery.model(MODEL).issues.values())


def settle(orrery: Orrery) -> list[str]:
    before = orrery.timeline.head()[0]
    for due in orrery.due(MODEL):
        if due.kind == "record":
            orrery.append(due.drafts)
    return [event.kind for event in orrery.timeline.read(MODEL, after=before)]


def test_the_life_of_an_issue_that_a_person_opens(orrery: Orrery) -> None:
    seq = next(event.seq for event in orrery.timeline.read(MODEL, kinds=["promoted"]))
    said = {"why": "Since Monday.", "actor": "mara"}
    orrery.open_issue(MODEL, "The small  harbours\nare wrong", **said, version=1, event=seq)
    [issue] = issues(orrery)
    assert (issue.title, issue.owner, issue.opened_by) == ("The small harbours are wrong", "nora", "mara")
    assert issue.versions == [1] and orrery.timeline.named(issue.events)[0].seq == seq
    orrery.comment_issue(MODEL, issue.id[:6], why="Only at low tide.", actor="olaf", event=1)
    orrery.assign_issue(MODEL, issue.id, owner="pia", why="Knows the gauges.", actor="nora")
    orrery.close_issue(MODEL, issue.id, why="A gauge was stuck.", actor="pia")
    [issue] = issues(orrery)
    assert (issue.comments, issue.owner, issue.closed_by, issue.closed_why) == (1, "pia", "pia", "A gauge was stuck.")
    assert len(issue.events) == 2 and issue.closed is not None
    orrery.reopen_issue(MODEL, issue.id, why="It is stuck again.", actor="olaf")
    assert issues(orrery)[0].closed is None
    kinds = [event.kind for event in orrery.timeline.read(MODEL) if event.kind.startswith("issue_")]
    assert [kind.removeprefix("issue_") for kind in kinds] == ["opened", "commented", "assigned", "closed", "reopened"]


def test_what_cannot_be_ordered_changes_nothing(orrery: Orrery) -> None:
    orrery.open_issue(MODEL, "A", why="b", actor="mara")
    id_, before, said = issues(orrery)[0].id, orrery.timeline.head(), {"why": "x", "actor": "mara"}
    for error, order in (
        (NotUnderstood, lambda: orrery.open_issue(MODEL, " ", **said)),
        (NotUnderstood, lambda: orrery.open_issue(MODEL, "x" * 301, **said)),
        (NotFound, lambda: orrery.open_issue(MODEL, "B", **said, version=9)),
        (NotFound, lambda: orrery.open_issue(MODEL, "B", **said, event=10**9)),
        (NotFound, lambda: orrery.comment_issue(MODEL, "nothing", **said)),
        (NotUnderstood, lambda: orrery.assign_issue(MODEL, id_, owner=" ", **said)),
        (NotAllowed, lambda: orrery.reopen_issue(MODEL, id_, **said)),
        (NotUnderstood, lambda: orrery.close_issue(MODEL, id_, why=" ", actor="mara")),
    ):
        with pytest.raises(error):
            order()
    assert orrery.timeline.head() == before
    orrery.close_issue(MODEL, id_, **said)
    for order in (
        lambda: orrery.close_issue(MODEL, id_, **said),
        lambda: orrery.assign_issue(MODEL, id_, owner="pia", **said),
    ):
        with pytest.raises(NotAllowed):
            order()


def test_viewers_read_and_others_write(orrery: Orrery) -> None:
    with pytest.raises(NotAllowed):
        orrery.acting(Principal("vera", (Grant("viewer", MODEL),))).open_issue(MODEL, "A", why="b", actor="vera")
    (event,) = orrery.acting(Principal("sam", (Grant("scientist", MODEL),))).open_issue(MODEL, "A", why="b", actor="x")
    assert event.actor == "sam"


def test_what_a_person_opened_or_reopened_only_a_person_closes(orrery: Orrery) -> None:
    orrery.open_issue(MODEL, "Is the target right?", why="b", actor="mara")
    facts = {"issue": "gates1", "title": "refused", "owner": "nora"}
    orrery.append([draft("issue_opened", actor="orrery/gates", **facts)])
    later = {**TRAINED, "run": "r2"}
    orrery.append([draft("trained", 2, **later), draft("gated", 2, passed=True, gates={})])
    orrery.append([draft("promoted", 2, previous=1, change="redesign")])
    assert "issue_closed" in settle(orrery)  # the control: what a gate opened closes when its cause is gone
    assert {one.opened_by: one.closed is None for one in issues(orrery)} == {"mara": True, "orrery/gates": False}
    orrery.reopen_issue(MODEL, "gates1", why="Not yet.", actor="mara")
    assert "issue_closed" not in settle(orrery) and issues(orrery)[-1].closed is None


def test_a_failure_that_repeats_opens_no_second_issue_and_another_cause_does(orrery: Orrery) -> None:
    def fail(look: int, version: int) -> list[str]:
        args = {"look": look, "until": "2026-01-02T00:00:00Z"}
        action = Action(
            key=f"watch:{look}:{version}",
            kind="watch",
            model=MODEL,
            version=version,
            environment="production",
            args=args,
        )
        drafts = failure(orrery.model(MODEL), action, "monitors", "No memory.", owner="nora")
        return [event.kind for event in orrery.append(drafts)]

    assert fail(1, 1) == ["failed", "issue_opened"]
    assert fail(2, 1) == fail(3, 1) == ["failed"]
    assert fail(3, 2) == ["failed", "issue_opened"]
    first = issues(orrery)[0]
    assert orrery.timeline.named(first.events)[0].kind == "failed"
    orrery.close_issue(MODEL, first.id, why="More memory.", actor="pia")
    assert fail(4, 1) == ["failed", "issue_opened"]  # it was over, and is so no more
    with pytest.raises(NotAllowed):  # two of one cause are never open
        orrery.reopen_issue(MODEL, first.id, why="Again.", actor="pia")


def test_issues_of_older_logs_have_no_cause_and_stay_apart() -> None:
    state = ModelState(name=MODEL)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(2):
        state.issues[str(number)] = Issue(id=str(number), at=at, title="t", owner="o", version=None)
    assert state.open_issue("") is None and fold(state, []) is state
