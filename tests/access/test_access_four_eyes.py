"""Nobody approves their own work where the policy says so, and an approval is of what was seen and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from orrery.access.roles import Grant, Principal
from orrery.app import Orrery
from orrery.errors import NotAllowed
from orrery.review.commands import OwnWork
from orrery.rollout.moves import next_moves
from orrery.settings import Settings
from orrery.timeline.event import Draft
from orrery.types import address_mark

MODEL = "tides"
WHY = "The numbers hold."


def spec(four_eyes: bool) -> dict[str, Any]:
    return {
        "model": {"name": MODEL, "task": "regression", "target": "height"},
        "data": {MODEL: MODEL},
        "environments": {
            "staging": {"needs": ["gates"]},
            "production": {"needs": ["staging", "review:quality", "review:legal"], "four_eyes": four_eyes},
        },
    }


GATES = {"quality": {"verdict": "passed", "why": "0.5 m", "numbers": {"value": 0.5}}}


def draft(kind: str, actor: str = "orrery/test", environment: str = "", **data: Any) -> Draft:
    version = None if kind in ("pushed", "triggered") else 1
    return Draft(
        kind=kind, actor=actor, why="For the test.", model=MODEL, version=version, environment=environment, data=data
    )


def write(orrery: Orrery, *, four_eyes: bool) -> None:
    authors = ["Nora Berg", address_mark("nora@home.example")]
    facts: dict[str, Any] = {"run": "r", "commit": "a" * 40, "change": "redesign", "data": {MODEL: 1}}
    orrery.append(
        [
            draft("pushed", "pia", commit="a" * 40, spec=spec(four_eyes), author="Nora Berg", authors=authors),
            draft("triggered", "tom", reason="hand", **facts),
            draft("trained", artifact="x", metrics={"absolute_error": 0.5}, **facts),
            draft("gated", passed=True, gates=GATES),
            draft("promoted", environment="staging", previous=None, change="redesign"),
            draft("review_requested", "rosa", "production", role="quality"),
            draft("review_requested", environment="production", role="legal"),
        ]
    )


@pytest.fixture
def orrery(home: Settings, request: pytest.FixtureRequest) -> Iterator[Orrery]:
    """A version that waits for two sign-offs: nora wrote it, pia pushed, tom trained, rosa asked for the release."""
    made = Orrery(replace(home, access="required"))
    for name in ("nora", "pia", "tom", "rosa", "mara", "li"):
        made.accounts.add(name, by="root", why="For the test.")
    made.accounts.link("nora", "nora@home.example", by="root", why="For the test.")
    write(made, four_eyes=getattr(request, "param", True))
    yield made
    made.timeline.engine.dispose()


def as_reviewer(orrery: Orrery, name: str, role: str = "reviewer") -> Orrery:
    return orrery.acting(Principal(name, (Grant(role, MODEL),)))


def approve(orrery: Orrery, name: str, **more: Any) -> list[Any]:
    return as_reviewer(orrery, name).approve(MODEL, 1, why=WHY, actor=name, **more)


def test_who_had_a_hand_in_it_does_not_approve_it(orrery: Orrery) -> None:
    for name in ("nora", "pia", "tom", "rosa", "PIA"):
        with pytest.raises(OwnWork):
            approve(orrery, name)
    told = [(one.actor, one.model, one.version) for one in orrery.timeline.read(kinds=["denied"])]
    assert told == [(name, MODEL, 1) for name in ("nora", "pia", "tom", "rosa", "PIA")]
    assert [one.data["role"] for one in approve(orrery, "mara")] == ["quality", "legal"]


def test_no_second_name_helps(orrery: Orrery) -> None:
    said = {"by": "root", "why": "For the test."}
    orrery.accounts.add("pia2", **said)
    orrery.accounts.add("robot", kind="service", owner="pia2", **said)
    assert approve(orrery, "robot", role="legal")  # so far nobody knows who pia2 is
    orrery.accounts.link("pia", "pia2", **said)
    for name in ("pia2", "robot", "nora@home.example", "Nora Berg"):
        with pytest.raises(OwnWork):
            approve(orrery, name)
    assert approve(orrery, "mara", role="quality")


@pytest.mark.parametrize("orrery", [False], indirect=True)
def test_without_the_rule_they_may(orrery: Orrery) -> None:
    assert approve(orrery, "pia")


def test_each_signs_what_they_may(orrery: Orrery) -> None:
    quality = as_reviewer(orrery, "li", "reviewer:quality")
    with pytest.raises(NotAllowed):
        quality.approve(MODEL, 1, why=WHY, actor="li", role="legal")
    assert [one.data["role"] for one in quality.approve(MODEL, 1, why=WHY, actor="li")] == ["quality"]
    with pytest.raises(NotAllowed):  # the other one waits still, and is not theirs
        quality.approve(MODEL, 1, why=WHY, actor="li")
    with pytest.raises(NotAllowed):
        as_reviewer(orrery, "li", "scientist").approve(MODEL, 1, why=WHY, actor="li")
    assert not entered(orrery)
    approve(orrery, "mara", role="legal")
    assert entered(orrery)


def test_the_name_that_is_claimed_is_not_the_one_that_acts(orrery: Orrery) -> None:
    with pytest.raises(OwnWork):
        as_reviewer(orrery, "pia").approve(MODEL, 1, why=WHY, actor="mara")
    (event, *_) = as_reviewer(orrery, "mara").approve(MODEL, 1, why=WHY, actor="li")
    assert event.actor == "mara"


def test_an_approval_falls_with_its_evidence(orrery: Orrery) -> None:
    approve(orrery, "mara")
    assert entered(orrery) and not orrery.model(MODEL).waiting()
    orrery.append([draft("gated", passed=True, gates=GATES)])  # the same once more changes nothing
    assert entered(orrery)
    other = {"quality": {**GATES["quality"], "numbers": {"value": 0.9}}}
    orrery.append([draft("gated", passed=True, gates=other)])
    assert not entered(orrery)
    assert {role for _, _, role in orrery.model(MODEL).waiting()} == {"quality", "legal"}
    approve(orrery, "mara")
    assert entered(orrery)


def test_an_override_of_a_gate_is_of_what_the_gate_said_and_takes_four_eyes(orrery: Orrery) -> None:
    refused = {"quality": {"verdict": "refused", "why": "0.9 m", "numbers": {"value": 0.9}}}
    orrery.append([draft("gated", passed=False, gates=refused)])
    with pytest.raises(OwnWork):
        approve(orrery, "pia", gate="quality")
    approve(orrery, "mara", gate="quality")
    assert orrery.model(MODEL).versions[1].released
    worse = {"quality": {"verdict": "refused", "why": "2 m", "numbers": {"value": 2.0}}}
    orrery.append([draft("gated", passed=False, gates=worse)])
    assert not orrery.model(MODEL).versions[1].released


def test_an_approval_of_before_there_was_evidence_stands(orrery: Orrery) -> None:
    for role in ("quality", "legal"):
        orrery.append([draft("approved", "mara", "production", role=role)])
    assert entered(orrery)


def entered(orrery: Orrery) -> bool:
    """Say whether the loop lets the version into production now."""
    model = orrery.model(MODEL)
    actions = next_moves(model, orrery.clock.now())
    return any(action.key == f"promote:{MODEL}:1:production" for action in actions)
