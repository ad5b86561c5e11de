"""The promises of the feature drift detector: quiet days stay quiet, a shift is found and its feature blamed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from orrery.errors import NotUnderstood
from orrery.stats import FeatureDrift, Look, TableSketch
from orrery.stats.severity import jensen_shannon, ks, psi

FEATURES, REFERENCE_ROWS = 30, 40_000


@pytest.fixture(scope="module")
def reference() -> TableSketch:
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=REFERENCE_ROWS) for i in range(FEATURES)}
    columns["origin"] = rng.choice(np.array(["JFK", "LGA", "EWR"], dtype=object), REFERENCE_ROWS)
    return TableSketch.fit(columns)


def day(
    reference: TableSketch, rng: np.random.Generator, n: int = 2000, shift: float = 0.0, **more: object
) -> TableSketch:
    """One day whose means wobble by 0.03 sd; x3 is shifted by `shift` sd."""
    columns = {f"x{i}": rng.normal(rng.normal(0, 0.03), 1, n) for i in range(FEATURES)}
    columns["x3"] = columns["x3"] + shift
    columns["origin"] = rng.choice(np.array(["JFK", "LGA", "EWR"], dtype=object), n)
    return reference.empty_like().add(columns | more)  # type: ignore[arg-type]


def significant_ks(reference: TableSketch, look: Look, n: int) -> bool:
    """Negative control: whether any feature has a Kolmogorov-Smirnov p-value under .05."""
    critical = 1.358 * math.sqrt(1 / n + 1 / reference.rows)
    return any(part.ks is not None and part.ks > critical for part in look.severity.values())


def test_quiet_days_stay_quiet_where_ks_alarms_on_most(reference: TableSketch) -> None:
    rng = np.random.default_rng(1)
    drift = FeatureDrift(reference)
    looks = [drift.update(day(reference, rng)) for _ in range(100)]
    assert not any(look.alarm for look in looks)
    assert sum(significant_ks(reference, look, 2000) for look in looks) > 50


@pytest.mark.parametrize(("shift", "within"), [(0.5, 4), (0.2, 30)])
def test_a_shift_is_found_and_its_feature_blamed(reference: TableSketch, shift: float, within: int) -> None:
    rng = np.random.default_rng(2)
    drift = FeatureDrift(reference)
    for _ in range(10):
        assert not drift.update(day(reference, rng)).alarm
    looks = []
    while len(looks) < within and not (looks and looks[-1].alarm):
        looks.append(drift.update(day(reference, rng, shift=shift)))
    assert looks[-1].alarm, f"not within {within} looks"
    feature, share = looks[-1].blame[0]
    assert feature == "x3" and share > 0.9
    worst = max(looks[-1].severity, key=lambda name: looks[-1].severity[name].psi)
    assert worst == "x3"


def test_a_change_that_stays_alarms_again_and_silence_means_gone(reference: TableSketch) -> None:
    rng = np.random.default_rng(3)
    drift = FeatureDrift(reference)
    during = [drift.update(day(reference, rng, shift=1.0)).alarm for _ in range(10)]
    after = [drift.update(day(reference, rng)).alarm for _ in range(20)]
    assert sum(during) > 5 and not any(after[1:])


@pytest.mark.parametrize(
    ("columns", "feature"),
    [
        ({"origin": np.array(["JFK"] * 1800 + ["ORD"] * 200, dtype=object)}, "origin"),  # an airport never seen
        ({"x5": np.full(2000, np.nan)}, "x5"),  # a feed that fell silent
        ({"x5": np.random.default_rng(9).normal(0, 1, 2000) * 9 / 5 + 32}, "x5"),  # Celsius sent as Fahrenheit
    ],
)
def test_broken_feeds_are_found_at_the_second_look(
    reference: TableSketch, columns: dict[str, object], feature: str
) -> None:
    rng = np.random.default_rng(4)
    drift = FeatureDrift(reference)
    drift.update(day(reference, rng))
    looks = [drift.update(day(reference, rng, **columns)) for _ in range(2)]
    assert looks[1].alarm and looks[1].blame[0][0] == feature
    severity = looks[1].severity[feature]
    assert severity.missing + severity.outside > 0.09


def test_a_constant_feature_that_changes_is_found() -> None:
    reference = TableSketch.fit({"x": np.full(5000, 7.0)})
    drift = FeatureDrift(reference)
    looks = [drift.update(reference.empty_like().add({"x": np.full(500, 8.0)})) for _ in range(2)]
    assert looks[1].alarm


def test_fewer_units_than_rows_make_it_slower(reference: TableSketch) -> None:
    """Rows that depend on each other count as their units: 40 users of 50 rows each."""
    rng = np.random.default_rng(5)
    rows, users = FeatureDrift(reference), FeatureDrift(reference)
    for _ in range(2):
        batch = day(reference, rng, shift=0.5)
        by_rows, by_users = rows.update(batch), users.update(batch, units=40)
    assert by_rows.alarm and not by_users.alarm


def test_dependent_rows_keep_the_promise_only_when_units_are_counted() -> None:
    """Days that move as a whole (weather): with one unit a day it stays quiet, with rows as units it must not."""
    rng = np.random.default_rng(6)
    weather = rng.normal(0, 1, 400)
    reference = TableSketch.fit({"t": np.repeat(weather, 100) + rng.normal(0, 0.2, 40_000)})
    as_days, as_rows = FeatureDrift(reference), FeatureDrift(reference)
    alarms = np.zeros(2)
    for _ in range(150):
        batch = reference.empty_like().add({"t": rng.normal(0, 1) + rng.normal(0, 0.2, 100)})
        alarms += (as_days.update(batch, units=1).alarm, as_rows.update(batch).alarm)
    assert alarms[0] == 0 and alarms[1] > 10


def test_false_alarms_stay_under_the_promise_on_the_edge_of_the_tolerance() -> None:
    rng = np.random.default_rng(7)
    reference = TableSketch.fit({"c": np.array(["a", "b"] * 50_000, dtype=object)})
    looks, arl = 1500, 50
    drift, nervous = FeatureDrift(reference, tolerance=0.05, arl=arl), FeatureDrift(reference, tolerance=0.0, arl=arl)
    alarms = np.zeros(2)
    for _ in range(looks):
        n_a = int(rng.binomial(50, 0.55))
        batch = reference.empty_like().add({"c": np.array(["a"] * n_a + ["b"] * (50 - n_a), dtype=object)})
        alarms += (drift.update(batch).alarm, nervous.update(batch).alarm)
    assert 0 < alarms[0] <= looks / arl
    assert alarms[1] > looks / arl + 3 * math.sqrt(looks / arl)  # negative control: without the tolerance, not kept


@pytest.mark.parametrize(("moved", "kept"), [(0.05, True), (0.08, False)])
def test_the_promise_is_about_the_rows_of_the_reference_as_they_are(moved: float, kept: bool) -> None:
    """Ten features in twelve words each, all on the edge, and moved to where the reference has the fewest by chance."""
    rng = np.random.default_rng(12)
    levels, rows, looks, arl = np.arange(12), 50_000, 400, 20
    counts = rng.multinomial(rows, np.full(12, 1 / 12), size=10)
    names = np.array([f"level {i}" for i in levels], dtype=object)
    reference = TableSketch.fit({f"c{i}": np.repeat(names, n) for i, n in enumerate(counts)})
    truth = counts / rows
    for share, rare in zip(truth, np.argsort(counts, axis=1), strict=True):
        share[rare[:6]] += moved / 6
        share[rare[6:]] -= moved / 6
    drift, alarms = FeatureDrift(reference, arl=arl), 0
    for _ in range(looks):
        batch = {f"c{i}": np.repeat(names, rng.multinomial(1000, share)) for i, share in enumerate(truth)}
        alarms += drift.update(reference.empty_like().add(batch)).alarm
    assert (alarms <= looks / arl) is kept


def test_rows_like_those_of_a_small_reference_are_no_drift() -> None:
    """Chance in 300 rows is more than the tolerance: what did not change is quiet. Without that it would not be."""
    rng = np.random.default_rng(13)
    reference = TableSketch.fit({f"x{i}": rng.normal(size=300) for i in range(FEATURES)})
    drift, nervous = FeatureDrift(reference), FeatureDrift(reference)
    nervous._tolerated = np.full(FEATURES, nervous.tolerance)
    alarms = np.zeros(2)
    for _ in range(60):
        batch = reference.empty_like().add({f"x{i}": rng.normal(size=2000) for i in range(FEATURES)})
        alarms += (drift.update(batch).alarm, nervous.update(batch).alarm)
    assert alarms[0] == 0 and alarms[1] > 10


@pytest.mark.parametrize(("shift", "found"), [(0.2, True), (0.1, False)])
def test_a_fifth_of_a_deviation_in_many_rows_is_found_within_five_looks(shift: float, found: bool) -> None:
    """Days wobble, 50,000 reference rows, 10,000 in a look; a tenth moves 4 % of the rows, which is tolerated."""
    rng = np.random.default_rng(14)
    reference = TableSketch.fit({f"x{i}": rng.normal(size=50_000) for i in range(FEATURES)})
    for _ in range(3):
        drift, alarms = FeatureDrift(reference), []
        for at in range(10):
            alarms.append(drift.update(day(reference, rng, 10_000, shift if at >= 5 else 0.0)).alarm)
        assert not any(alarms[:5]) and any(alarms[5:]) is found


@pytest.mark.parametrize(
    "truth",
    [np.full(10, 0.1), np.array([0.5, 0.5]), np.array([0.9, 0.09, 0.007, 0.003]), 0.5 ** np.arange(1, 13)],
    ids=["even", "a coin", "rare", "falling"],
)
def test_what_chance_may_do_in_the_reference_is_covered(truth: np.ndarray) -> None:
    """In 95 % of references no feature is further from the truth; and a third of the bound is too little."""
    rng, features, rows, references = np.random.default_rng(11), 20, 2000, 300
    truth = truth / truth.sum()
    names = np.array([f"level {i}" for i in range(len(truth))], dtype=object)
    counts = rng.multinomial(rows, truth, (references, features))
    worst = np.abs(counts / rows - truth).sum(axis=2).max(axis=1) / 2
    sketch = TableSketch.fit({f"c{i}": np.repeat(names, n) for i, n in enumerate(counts[0])})
    bound = FeatureDrift(sketch)._by_chance().max()
    beyond = 0.05 + 3 * math.sqrt(0.05 * 0.95 / references)
    assert np.mean(worst > bound) <= beyond < np.mean(worst > bound / 3)


def test_it_goes_on_after_a_restart_and_refuses_another_reference(reference: TableSketch) -> None:
    rng = np.random.default_rng(8)
    whole, parts = FeatureDrift(reference), FeatureDrift(reference)
    for _ in range(8):
        batch = day(reference, rng, n=500, shift=0.4)
        assert parts.update(batch) == whole.update(batch)
        state = json.dumps(parts.to_state(), allow_nan=False)
        parts = FeatureDrift.from_state(json.loads(state), reference)
    assert len(state) < 12_000 and parts.looks == 8
    other = TableSketch.fit({"x": np.arange(100.0)})
    with pytest.raises(NotUnderstood, match="another reference"):
        FeatureDrift.from_state(json.loads(state), other)


def test_batches_that_do_not_fit_are_refused_and_empty_ones_are_no_look(reference: TableSketch) -> None:
    drift = FeatureDrift(reference)
    assert drift.update(reference.empty_like()) == Look(False, 0.0) and drift.looks == 0
    with pytest.raises(NotUnderstood, match="cells of the reference"):
        drift.update(TableSketch.fit({"x0": np.arange(10.0)}))
    with pytest.raises(NotUnderstood, match="units"):
        drift.update(day(reference, np.random.default_rng(0), n=10), units=11)


def test_severity_is_zero_for_the_same_and_largest_for_the_disjoint() -> None:
    same, apart = np.array([10, 20, 30]), np.array([0, 0, 0, 60])
    assert psi(same, same) == 0 and jensen_shannon(same, same) == 0 and ks(same, same) == 0
    left = np.append(same, 0)
    assert jensen_shannon(left, apart) == pytest.approx(1) and ks(left, apart) == pytest.approx(1)
    assert psi(left, apart) > 5
    assert ks(same, np.zeros(3)) >= 0 and np.isfinite(psi(same, np.zeros(3)))
