"""Business metrics as guardrails: an arm that earns less is refused, days that are worse take a promotion back."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.errors import NotUnderstood
from orrery.rollout.business import BEFORE, DayFinding, day_after_day
from orrery.rollout.compare import Comparison, look, look_at_arm, with_days
from orrery.rollout.moves import next_moves
from orrery.rollout.shares import look_due, step_done
from orrery.spec import Business
from orrery.stats import PairedTest, log_mean_e
from orrery.timeline.event import Event
from orrery.timeline.fold import fold
from orrery.timeline.state import Challenger, ModelState

PROMOTED = date(2024, 3, 1)
SALES = Business(low=0.0, high=200.0, margin=2.0, by="day")
ALPHA = 0.05
NOW = datetime(2024, 3, 8, tzinfo=UTC)
NO_PAIRS = pl.DataFrame(schema={"at": pl.Datetime("us", "UTC"), "champion": pl.List(pl.Float64), "label": pl.Int64})
UNDECIDED = Comparison(
    n=0, rows=0, effect=None, interval=None, evidence=1.0, counter=1.0, decision="undecided", guardrails={}, state={}
)


def policy(**metric: Any) -> specs.Spec:
    return specs.from_dict(
        {
            "model": {"name": "tides", "task": "binary", "target": "y", "entity": "who"},
            "data": {"t": "t"},
            "rollout": {
                "primary": "brier",
                "redesign": {"ab": "50%"},
                "business": {"revenue": {"low": 0.0, "high": 20.0, "margin": 0.5, **metric}},
            },
        }
    )


def played(spec: specs.Spec, seed: int, lost: float, looks: int = 20, a_look: int = 500) -> Comparison:
    """An A/B of two versions that are as good by their labels; the arm's units bring less by so much."""
    random, state, found = np.random.default_rng(seed), {}, None
    for _ in range(looks):
        arm = random.random(a_look) < 0.5
        label = random.random(a_look) < 0.3
        units = pl.DataFrame({"output": [[0.3]] * a_look, "label": label, "arm": arm})
        bought = random.random(a_look) < 0.5
        value = np.where(bought, random.exponential(8.0, a_look) - lost * arm, 0.0)
        came = {"revenue": pl.DataFrame({"value": value, "arm": arm, "share": 0.5})}
        found = look_at_arm(state, units, spec, [False, True], 0.5, expected=0.2, business=came)
        state = found.state
        if found.decision == "abort":
            break
    assert found is not None
    return found


def test_an_arm_that_earns_less_is_refused_although_its_labels_are_as_good() -> None:
    found = played(policy(), 1, lost=6.0)
    assert found.decision == "abort" and found.counter < 1 / ALPHA
    assert len(found.broken) == 1 and found.broken[0].startswith("revenue is proven worse by ")


def test_where_lower_is_better_the_same_arm_is_fine() -> None:
    found = played(policy(better="lower"), 1, lost=6.0)
    assert found.decision != "abort" and found.guardrails["revenue"] > 1 / ALPHA and not found.broken


def test_an_arm_that_earns_as_much_is_left_in_peace() -> None:
    even = (played(policy(margin=0.0), seed, lost=0.0, looks=5, a_look=200) for seed in range(100))
    refused = sum(found.decision == "abort" for found in even)
    assert refused / 100 <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / 100) ** 0.5


def test_without_values_nothing_is_promoted() -> None:
    """A guardrail of which nothing is known is not kept: the proof on labels alone does not do."""
    state: dict[str, Any] = {}
    random = np.random.default_rng(5)
    for _ in range(20):
        arm, label = random.random(500) < 0.5, random.random(500) < 0.3
        output = [[0.9 if one else 0.1] if drawn else [0.5] for one, drawn in zip(label, arm, strict=True)]
        units = pl.DataFrame({"output": output, "label": label, "arm": arm})
        found = look_at_arm(state, units, policy(), [False, True], 0.5, expected=0.2, business={})
        state = found.state
    assert found.evidence > 1 / ALPHA and found.decision == "undecided"
    plain = specs.from_dict({**specs.to_dict(policy()), "rollout": {"primary": "brier", "redesign": {"ab": "50%"}}})
    assert look_at_arm(_without(state), units, plain, [False, True], 0.5, expected=0.2).decision == "promote"


def _without(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "tests": {name: one for name, one in state["tests"].items() if not name.startswith("revenue")}}


def grown(spec: specs.Spec, seed: int, lost: float, each: int = 10, a_look: int = 500) -> Comparison:
    """A canary of 5 %, then of 25 %; a look brings units of both shares where their values overlap in time."""
    random, state, found = np.random.default_rng(seed), {}, None
    for number in range(2 * each):
        share = np.where(np.arange(a_look) < a_look * (number - each + 2) / 4, 0.25, 0.05)
        arm, bought = random.random(a_look) < share, random.random(a_look) < 0.5
        value = np.where(bought, random.exponential(8.0, a_look) - lost * arm, 0.0)
        came = {"revenue": pl.DataFrame({"value": value, "arm": arm, "share": share})}
        found = look(state, NO_PAIRS, spec, [False, True], NOW, business=came)
        state = json.loads(json.dumps(found.state, allow_nan=False))
        if found.decision == "abort":
            break
    assert found is not None
    return found


def canary(**metric: Any) -> specs.Spec:
    told = specs.to_dict(policy(**metric))
    told["rollout"]["redesign"] |= {"ab": "", "canary": ["5%", "25%"]}
    return specs.from_dict(told)


def test_a_canary_that_earns_less_is_refused_at_its_first_step() -> None:
    found = grown(canary(), 1, lost=12.0)
    assert found.decision == "abort" and found.broken[0].startswith("revenue is proven worse by ")
    assert set(found.state["tests"]) == {"", "revenue@0.05"} and found.rows == 0  # before a label came


def test_a_canary_that_earns_as_much_is_left_in_peace() -> None:
    even = [grown(canary(margin=0.0), seed, lost=0.0, each=3, a_look=200) for seed in range(60)]
    assert all(set(found.state["tests"]) == {"", "revenue@0.05", "revenue@0.25"} for found in even)
    refused = sum(found.decision == "abort" for found in even)
    assert refused / 60 <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / 60) ** 0.5


def test_the_shares_of_a_canary_add_up() -> None:
    """A loss that neither step shows alone is shown by both; a unit is in one of them."""
    random, state, found = np.random.default_rng(3), {}, UNDECIDED
    while found.decision != "abort":
        share = np.repeat([0.25, 0.3], 25)
        arm = random.random(50) < share
        came = {"revenue": pl.DataFrame({"value": 10.0 - 8.0 * arm, "arm": arm, "share": share})}
        found = look(state, NO_PAIRS, canary(), [False, True], NOW, business=came)
        state = found.state
    parts = {name: PairedTest.from_state(one) for name, one in found.state["tests"].items() if name}
    logs = [one.log_counter_evidence for one in parts.values()]
    assert len(logs) == 2
    assert log_mean_e([0.0, max(logs)]) < -math.log(ALPHA) <= log_mean_e([0.0, sum(logs)])


def test_each_step_of_a_canary_waits_for_what_its_answers_bring() -> None:
    """Unless an A/B has judged the metric before, or none comes by unit."""
    delayed = canary(delay="2d")
    assert specs.values_wait(delayed, "redesign") == timedelta(days=2)
    assert specs.values_wait(policy(delay="2d"), "redesign") == timedelta()
    began, time = datetime(2024, 3, 1, tzinfo=UTC), timedelta(minutes=15)
    one = Challenger(
        version=2, role="canary", since=began, until=began, change="redesign", share=0.05, steps=[0.05, 0.25]
    )
    one.moved, one.service = began, {"requests": 1000}
    one.compared_until = began + timedelta(days=1)
    for now in (began + timedelta(days=1), began + timedelta(days=3)):
        assert not step_done(one, delayed, now)  # what its first answers brought was not looked at yet
        assert step_done(one, canary(delay="0s"), now)
    assert not look_due(one, delayed, began + timedelta(days=1, hours=1))
    assert look_due(one, delayed, began + timedelta(days=2) + time)
    one.compared_until = began + timedelta(days=2) + time
    assert step_done(one, delayed, one.compared_until)
    with pytest.raises(NotUnderstood, match="2 steps that each wait"):
        canary(delay="30d")


def days(seed: int, *, after: float, count: int = 14, season: float = 0.0) -> dict[date, float]:
    """A hundred a day before the promotion, and so many after it."""
    random, found = np.random.default_rng(seed), {}
    for place in range(-BEFORE.days, count + 1):
        mean = 100.0 if place <= 0 else after
        found[PROMOTED + timedelta(days=place)] = float(mean + random.normal(0, 15) + season * place)
    return found


def finding(values: dict[date, float], rule: Business = SALES) -> DayFinding:
    found = day_after_day("sales", rule, values, PROMOTED)
    assert found is not None
    return found


def test_days_that_are_clearly_worse_are_told() -> None:
    found = finding(days(1, after=40.0))
    beside = with_days(UNDECIDED, [found], 1, ALPHA)
    (told,) = beside.broken
    assert found.days == 14 and "sales" in told and "worse than before" in told and beside.decision == "promote"


def test_days_like_those_before_are_quiet_however_often_one_looks() -> None:
    fired = 0
    for seed in range(300):
        values = days(seed, after=100.0)
        for count in range(1, 15):
            seen = {day: value for day, value in values.items() if day <= PROMOTED + timedelta(days=count)}
            if with_days(UNDECIDED, [finding(seen)], 1, ALPHA).broken:
                fired += 1
                break
    assert fired / 300 <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / 300) ** 0.5


def test_it_cannot_tell_a_version_from_a_season() -> None:
    """What the decision record says it cannot do: the version changed nothing, the season did."""
    assert with_days(UNDECIDED, [finding(days(1, after=100.0, count=30, season=-3.0))], 1, ALPHA).broken


def test_too_few_days_say_nothing() -> None:
    values = days(1, after=10.0)
    week = {day: value for day, value in values.items() if day >= PROMOTED - timedelta(days=6)}
    assert day_after_day("sales", SALES, week, PROMOTED) is None
    assert day_after_day("sales", SALES, {day: v for day, v in values.items() if day <= PROMOTED}, PROMOTED) is None


def test_several_metrics_share_the_risk() -> None:
    one = DayFinding(before=1.0, after=0.5, days=3, evidence=45.0, why="sales fell")
    assert with_days(UNDECIDED, [one], 1, ALPHA).decision == "promote"
    assert with_days(UNDECIDED, [one], 2, ALPHA).decision == "undecided"  # of the other one nothing is known
    assert with_days(UNDECIDED, [one, one], 2, ALPHA).decision == "promote"


def test_labels_and_days_share_the_risk() -> None:
    proven = msgspec.structs.replace(UNDECIDED, evidence=25.0, decision="promote")
    assert with_days(proven, [], 0, ALPHA) == proven
    quiet = DayFinding(before=1.0, after=1.0, days=3, evidence=0.0, why="as before")
    assert with_days(proven, [quiet], 1, ALPHA).decision == "undecided"
    sure = with_days(msgspec.structs.replace(proven, evidence=41.0), [quiet], 1, ALPHA)
    assert sure.decision == "promote" and not sure.broken  # by labels: nothing is said of days


@pytest.mark.parametrize(("role", "decision"), [("guard", "promote"), ("arm", "abort")])
def test_the_reason_is_written_down(role: str, decision: str) -> None:
    at = datetime(2024, 3, 1, tzinfo=UTC)
    spec = specs.to_dict(policy())
    compared = {"until": "2024-03-08T00:00:00Z", "decision": decision, "broken": ["revenue fell"], "state": {}}
    until = {"until": "2024-04-01T00:00:00Z", "change": "redesign", "share": 0.5}
    told: list[tuple[str, int | None, dict[str, Any]]] = [
        ("pushed", None, {"commit": "abc", "message": "m", "author": "ann", "spec": spec}),
        ("trained", 1, {"run": "a", "commit": "abc", "change": "redesign", "data": {"t": 1}}),
        ("trained", 2, {"run": "b", "commit": "abc", "change": "redesign", "data": {"t": 1}}),
        ("promoted", 1, {}),
        ("challenged", 2, {"role": role, **until}),
        ("compared", 2, compared),
    ]
    events = [
        Event(
            seq=seq,
            id=str(seq),
            kind=kind,
            actor="t",
            why="because",
            model="tides",
            version=version,
            environment="production" if kind in ("promoted", "challenged", "compared") else "",
            data=data,
            occurred_at=at,
            recorded_at=at,
            hash="",
            prev_hash="",
        )
        for seq, (kind, version, data) in enumerate(told, 1)
    ]
    state = fold(ModelState(name="tides"), events)
    (move, *_) = next_moves(state, at + timedelta(days=8))
    kinds = {"guard": "rolled_back", "arm": "retired"}
    assert move.drafts[0].kind == kinds[role] and "revenue fell" in move.drafts[0].why
