"""One look after the other at champion and challenger: pieces add up, units are units, and chance promotes rarely."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery import spec as specs
from orrery.errors import NotUnderstood
from orrery.rollout.compare import Comparison, look, look_at_arm

START = datetime(2013, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
YES_NO: list[Any] = [0, 1]


def policy(unit: str = "day", delay: str = "1d", task: str = "binary", **rollout: Any) -> specs.Spec:
    model = {"name": "tides", "task": task, "target": "y", "label_delay": delay}
    rollout = {"primary": "absolute_error" if task == "regression" else "brier", "unit": unit, **rollout}
    return specs.from_dict({"model": model, "data": {"t": "t"}, "rollout": rollout})


def frame(at: list[datetime], champion: Any, challenger: Any, label: Any, unit: Any = None) -> pl.DataFrame:
    columns: dict[str, Any] = {
        "at": pl.Series(at, dtype=pl.Datetime("us", "UTC")),
        "champion": pl.Series([[float(value)] for value in champion], dtype=pl.List(pl.Float64)),
        "challenger": pl.Series([[float(value)] for value in challenger], dtype=pl.List(pl.Float64)),
        "label": label,
    }
    return pl.DataFrame(columns if unit is None else columns | {"unit": unit})


def year(
    days: int, each: int, gain: float = 0.0, seed: int = 0, day_sd: float = 0.1, wobble: float = 0.1
) -> pl.DataFrame:
    """Pairs whose difference has a part that all rows of a day share, and one of the row."""
    rng = np.random.default_rng(seed)
    at = [START + day * DAY + hour * (DAY / each) for day in range(days) for hour in range(each)]
    label = (rng.random(days * each) < 0.4).astype(float)
    apart = np.repeat(rng.normal(gain, day_sd, days), each) + rng.normal(0, wobble, days * each)
    side = np.where(label == 1, 1, -1)
    return frame(at, np.full(len(at), 0.5), np.clip(0.5 + side * apart, 0.01, 0.99), label)


def run(pairs: pl.DataFrame, spec: specs.Spec, cuts: list[datetime], scale: float = 1.0) -> Comparison:
    """Look at each cut at the pairs whose labels are final there; the state goes through JSON every time."""
    state: dict[str, Any] = {}
    before = datetime(1970, 1, 1, tzinfo=UTC)
    found = None
    delay = timedelta(days=1)
    for cut in cuts:
        fresh = pairs.filter((pl.col("at") > before - delay) & (pl.col("at") <= cut - delay))
        found = look(state, fresh, spec, YES_NO if spec.model.task == "binary" else [], cut, scale=scale)
        state, before = json.loads(json.dumps(found.state, allow_nan=False)), cut
    assert found is not None
    return found


def same(one: Comparison, other: Comparison) -> None:
    assert (one.n, one.rows, one.decision) == (other.n, other.rows, other.decision)
    assert one.evidence == pytest.approx(other.evidence) and one.counter == pytest.approx(other.counter)
    assert one.effect == pytest.approx(other.effect)
    assert one.guardrails == pytest.approx(other.guardrails)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 14 * 24), max_size=30),
    st.sampled_from(["day", "hour", "row"]),
    st.sampled_from([{}, {"log_loss": 0.1, "zero_one": 0.05}, {"brier": 0.1}]),
)
def test_many_looks_are_one_look(hours: list[int], unit: str, guardrails: dict[str, float]) -> None:
    pairs = year(10, 48, gain=0.03)
    spec = policy(unit, guardrails=guardrails)
    end = START + 12 * DAY
    cuts = [START + hour * HOUR for hour in sorted(set(hours)) if hour < 12 * 24]
    same(run(pairs, spec, [*cuts, end]), run(pairs, spec, [end]))


def test_units() -> None:
    pairs = year(10, 48)
    end = [START + 12 * DAY]
    assert run(pairs, policy("day"), end).n == 10
    assert run(pairs, policy("hour"), end).n == 240
    assert run(pairs, policy("row"), end).n == run(pairs, policy("row"), end).rows == 480
    people = pairs.with_columns(unit=pl.Series([f"u{number % 7}" if number % 11 else None for number in range(480)]))
    assert run(people, policy("person"), end).n == 8  # who is nobody is one unit
    numbers = pairs.with_columns(unit=pl.Series([number % 5 for number in range(480)]))
    assert run(numbers, policy("harbour"), end).n == 5


def test_a_day_closes_when_its_last_label_is_final() -> None:
    pairs = year(1, 24, gain=0.1)
    spec = policy("day", guardrails={"log_loss": 0.2})
    looks = [START + DAY + hour * HOUR for hour in range(1, 25)]
    before = run(pairs, spec, looks[:-1])
    assert before.rows == 24 and before.n == 0  # all labels are here, and the day's last instant is not yet final
    assert before.effect is None and before.interval is None and before.guardrails == {"log_loss": 1.0}
    after = run(pairs, spec, looks)
    assert after.n == 1 and after.effect is not None
    assert after.guardrails["log_loss"] != 1.0


def test_guardrails_count_a_day_once_however_often_one_looks() -> None:
    """Looked at hourly, a guardrail must not take a day for 24 witnesses."""
    pairs = year(8, 48, gain=0.2, day_sd=0.0)
    hourly = [START + hour * HOUR for hour in range(1, 10 * 24 + 1)]
    spec = policy("day", guardrails={"log_loss": 0.1})
    often = run(pairs, spec, hourly).guardrails["log_loss"]
    assert often == pytest.approx(run(pairs, spec, [START + 10 * DAY]).guardrails["log_loss"])
    assert 1.0 < often < 20


def test_nothing_new_changes_nothing() -> None:
    pairs = year(6, 24, gain=0.05)
    spec = policy("day")
    first = run(pairs, spec, [START + 8 * DAY])
    again = look(first.state, pairs[:0], spec, YES_NO, START + 9 * DAY)
    same(first, again)
    assert look({}, pairs[:0], spec, YES_NO, START).decision == "undecided"


def decided(gain: float, seeds: range, decision: str, unit: str = "day", days: int = 60, **year_of: float) -> int:
    spec = policy(unit)
    cuts = [START + (day + 2) * DAY for day in range(days)]
    count = 0
    for seed in seeds:
        pairs = year(days, 4, gain, seed, **year_of)  # type: ignore[arg-type]
        state: dict[str, Any] = {}
        for number, cut in enumerate(cuts[4::5]):
            found = look(state, pairs[number * 20 : number * 20 + 20], spec, YES_NO, cut)
            state = found.state
            if found.decision == decision:
                count += 1
                break
    return count


def test_chance_promotes_rarely_and_a_better_challenger_is_found() -> None:
    """Of 100 nulls at alpha .05 at most 11 (three standard errors): looked at every five days for sixty."""
    null = {"day_sd": 0.06, "wobble": 0.1}
    # the Brier score punishes the wobble itself: this gain makes the expected difference zero
    level = fair_gain(**null)
    assert decided(level, range(100), "promote", **null) <= 11
    assert decided(level, range(100), "abort", **null) <= 11
    assert decided(level + 0.15, range(20), "promote", **null) >= 18
    assert decided(level - 0.15, range(20), "abort", **null) >= 18


def fair_gain(day_sd: float, wobble: float) -> float:
    """The gain at which 0.25 - (0.5 - apart)² is zero in the mean: apart - apart² with E[apart²] = g² + variance."""
    variance = day_sd**2 + wobble**2
    return float((1 - np.sqrt(1 - 4 * variance)) / 2)


def test_rows_taken_for_units_would_promote_falsely() -> None:
    """The negative control: storms make rows of a day alike; who counts rows sees proof where there is none."""
    storms = {"day_sd": 0.25, "wobble": 0.01}
    spec, level, wrong, right = policy("row"), fair_gain(**storms), 0, 0
    for seed in range(40):
        pairs = year(20, 100, level, seed, **storms)  # type: ignore[arg-type]
        for day in (2, 5, 10, 20):
            if look({}, pairs[: day * 100], spec, YES_NO, START + 40 * DAY).decision == "promote":
                wrong += 1
                break
        right += look({}, pairs, policy("day"), YES_NO, START + 40 * DAY).decision == "promote"
    assert wrong >= 10 and right <= 5


def test_guardrails_abort_and_hold_back() -> None:
    """Better on the primary loss, but worse where a guardrail looks."""
    days, each = 60, 20
    at = [START + day * DAY + hour * (DAY / each) for day in range(days) for hour in range(each)]
    label = np.tile([1.0] + [0.0] * (each - 1), days)
    champion = np.where(label == 1, 0.45, 0.45)
    careless = np.where(label == 1, 0.01, 0.1)  # better Brier score, and far too sure of itself
    pairs = frame(at, champion, careless, label)
    end = [START + (days + 1) * DAY]
    assert run(pairs, policy("day"), end).decision == "promote"
    strict = policy("day", guardrails={"zero_one": 0.01})
    assert run(pairs, strict, end).decision == "undecided"  # the same classes: no worse, but not shown within 0.01
    assert run(pairs, policy("day", guardrails={"zero_one": 0.2}), end).decision == "promote"
    turned = frame(at, champion, np.where(label == 1, 0.4, 0.51), label)
    found = run(turned, policy("day", guardrails={"zero_one": 0.2}), end)
    assert found.decision == "abort" and found.counter < 20  # by the guardrail, before the primary loss would


def test_a_margin_larger_than_any_loss_tolerates_all() -> None:
    pairs = year(40, 10, gain=-0.3)
    found = run(pairs, policy("day", guardrails={"zero_one": 1.0}), [START + 50 * DAY])
    assert found.guardrails["zero_one"] >= 20 and found.decision == "abort"


def heights(factor: float, better: bool = True) -> tuple[pl.DataFrame, float]:
    rng = np.random.default_rng(3)
    at = [START + day * DAY + hour * HOUR for day in range(60) for hour in range(10)]
    truth = rng.normal(5, 2, 600) * factor
    rough, fine = (truth + rng.normal(0, sd * factor, 600) for sd in (1.0, 0.4))
    return frame(at, *((rough, fine) if better else (fine, rough)), truth), 3.0 * factor


@pytest.mark.parametrize("factor", [0.01, 1.0, 10_000.0])
def test_regressions_decide_alike_in_any_unit(factor: float) -> None:
    pairs, scale = heights(factor)
    spec = policy("day", task="regression", guardrails={"squared_error": 0.1 * factor**2})
    found = run(pairs, spec, [START + 62 * DAY], scale)
    unit, unit_scale = heights(1.0)
    same_in_one = run(
        unit, policy("day", task="regression", guardrails={"squared_error": 0.1}), [START + 62 * DAY], unit_scale
    )
    assert found.decision == same_in_one.decision == "promote"
    assert found.evidence == pytest.approx(same_in_one.evidence, rel=1e-6)
    assert found.guardrails["squared_error"] == pytest.approx(same_in_one.guardrails["squared_error"], rel=1e-6)
    assert found.effect == pytest.approx(same_in_one.effect * factor)  # type: ignore[operator]
    worse, _ = heights(factor, better=False)
    assert run(worse, policy("day", task="regression"), [START + 62 * DAY], scale).decision == "abort"


def test_one_wild_error_counts_no_more_than_the_scale() -> None:
    pairs, scale = heights(1.0)
    wild = pairs.with_columns(
        challenger=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit([1e9])).otherwise("challenger")
    )
    assert run(wild, policy("day", task="regression"), [START + 62 * DAY], scale).decision == "promote"


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        ([0, 1], [0, 1]),
        ([0, 1], [False, True]),
        ([False, True], [0.0, 1.0]),
        (["no", "yes"], ["no", "yes"]),
    ],
)
def test_labels_come_as_they_are(classes: list[Any], labels: list[Any]) -> None:
    pairs = year(10, 24, gain=0.1)
    worded = pairs.with_columns(label=pl.Series([labels[int(value)] for value in pairs["label"]]))
    spec, end = policy("day"), START + 20 * DAY
    same(look({}, worded, spec, classes, end), look({}, pairs, spec, YES_NO, end))


def test_a_label_that_is_no_class_is_refused() -> None:
    pairs = year(2, 24).with_columns(label=pl.lit("perhaps"))
    with pytest.raises(NotUnderstood, match="perhaps"):
        look({}, pairs, policy("day"), YES_NO, START + 20 * DAY)


def lots(gain: float, rows: int = 6000, share: float = 0.3, seed: int = 0) -> pl.DataFrame:
    """Units of an A/B: labels, who answered, and outputs of which the arm's are nearer to the truth."""
    rng = np.random.default_rng(seed)
    arm, label = rng.random(rows) < share, (rng.random(rows) < 0.5).astype(float)
    sure = 0.5 + np.where(arm, gain, 0.0) + rng.normal(0, 0.05, rows)
    output = np.clip(np.where(label == 1, sure, 1 - sure), 0.01, 0.99)
    return pl.DataFrame({"output": [[value] for value in output.tolist()], "label": label, "arm": arm})


def ab(units: pl.DataFrame, spec: specs.Spec, looks: int = 12) -> Comparison:
    state: dict[str, Any] = {}
    each = max(len(units) // looks, 1)
    for start in range(0, len(units), each):
        found = look_at_arm(state, units[start : start + each], spec, YES_NO, 0.3, expected=0.25)
        state = json.loads(json.dumps(found.state, allow_nan=False))
        if found.decision != "undecided":
            break
    return found


def test_an_arm_is_decided_on_the_units_that_were_drawn() -> None:
    assert ab(lots(0.15), policy()).decision == "promote"
    assert ab(lots(-0.15), policy()).decision == "abort"
    same = ab(lots(0.0), policy())
    assert same.decision == "undecided" and same.n == same.rows == 6000
    assert same.interval is not None and same.interval[0] < 0 < same.interval[1]
    assert look_at_arm({}, lots(0.0)[:0], policy(), YES_NO, 0.3).effect is None


def test_the_guardrails_of_an_arm_hold_it_back() -> None:
    strict = policy(guardrails={"zero_one": 0.001})
    wide = policy(guardrails={"zero_one": 0.9})
    units = lots(0.15, rows=2000)
    assert ab(units, wide).decision == "promote"
    assert ab(units.with_columns(output=pl.lit([0.5])), strict).decision == "undecided"
