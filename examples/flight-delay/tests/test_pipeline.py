"""What must hold of the pipeline before anything is trained with it."""

from datetime import UTC, datetime, timedelta

import losses
import numpy as np
import pipeline
import polars as pl
import pytest

ROWS = 2000


@pytest.fixture(scope="module")
def flights():
    """A made-up table of the dataset's shape, in which wind makes flights late."""
    rng = np.random.default_rng(0)
    start = datetime(2013, 1, 1, 6, 5, tzinfo=UTC)
    wind = rng.gamma(2.0, 6.0, ROWS)
    temp = rng.normal(40.0, 10.0, ROWS)
    return pl.DataFrame(
        {
            "flight_id": [f"f{row}" for row in range(ROWS)],
            "scheduled": [start + timedelta(minutes=20 * row) for row in range(ROWS)],
            "carrier": rng.choice(["UA", "DL", "B6"], ROWS),
            "origin": rng.choice(["EWR", "JFK", "LGA"], ROWS),
            "dest": rng.choice(["BOS", "LAX"], ROWS),
            "distance": rng.integers(150, 2500, ROWS),
            "sched_arr": rng.integers(0, 1440, ROWS),
            "temp": temp,
            "dewp": temp - rng.gamma(2.0, 5.0, ROWS),
            "humid": rng.uniform(20.0, 100.0, ROWS),
            "wind_speed": wind,
            "wind_gust": pl.Series(np.where(rng.random(ROWS) < 0.3, wind * 1.4, np.nan)).fill_nan(None),
            "precip": rng.exponential(0.01, ROWS),
            "pressure": rng.normal(1015.0, 7.0, ROWS),
            "visib": rng.uniform(1.0, 10.0, ROWS),
            "late": pl.Series((rng.random(ROWS) < 1 / (1 + np.exp(4 - wind / 5))).astype(int), dtype=pl.Int8),
        }
    )


def test_a_request_of_one_row_gets_the_features_it_gets_in_the_table(flights):
    whole = pipeline.features(flights)
    for row in (0, 7, 1999):
        assert pipeline.features(flights[row]).equals(whole[row])


def test_the_target_is_no_feature_and_is_not_needed_for_any(flights):
    assert pipeline.features(flights.drop("late")).equals(pipeline.features(flights))
    flipped = flights.with_columns(late=1 - pl.col("late"))
    assert pipeline.features(flipped).equals(pipeline.features(flights))


def test_what_was_never_seen_is_missing_and_not_an_error(flights):
    odd = flights.head(1).with_columns(carrier=pl.lit("ZZ"), temp=pl.lit(None, pl.Float64))
    row = pipeline.features(odd)
    assert row["carrier"][0] is None
    fitted = pipeline.model(pipeline.features(flights), flights["late"], iterations=5)
    assert 0.0 < fitted.predict_proba(row)[0, 1] < 1.0


def test_the_model_learns_what_makes_flights_late(flights):
    inputs = pipeline.features(flights)
    fitted = pipeline.model(inputs[:1500], flights["late"][:1500], iterations=30)
    said, late = fitted.predict_proba(inputs[1500:])[:, 1], flights["late"][1500:].to_numpy()
    constant = flights["late"][:1500].mean()
    assert np.mean((said - late) ** 2) < 0.9 * np.mean((constant - late) ** 2)


def test_warning_from_the_threshold_on_costs_least_where_probabilities_are_true():
    assert (losses.advice(1, 0.2), losses.advice(1, 0.3), losses.advice(0, 0.2)) == (1.0, 0.0, 0.0)
    for probability in (0.1, 0.29, 0.31, 0.9):
        silent, warned = (
            probability * losses.advice(1, said) + (1 - probability) * losses.advice(0, said) for said in (0.0, 1.0)
        )
        assert (warned < silent) == (probability > losses.WARNED)


def test_the_same_seed_gives_the_same_model(flights):
    inputs = pipeline.features(flights)
    one, two = (pipeline.model(inputs, flights["late"], iterations=5, seed=3) for _ in range(2))
    assert np.array_equal(one.predict_proba(inputs), two.predict_proba(inputs))
