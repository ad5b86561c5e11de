"""Will a flight from New York arrive more than a quarter of an hour late?

Plain functions: an argument's name says where it comes from. ``flights`` is the dataset, ``late`` its target, and an
argument with a default is a parameter.
"""

import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier

# Fixed lists, so that a code means the same in every training and in every request; what is not in them is missing.
CARRIERS = ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"]
ORIGINS = ["EWR", "JFK", "LGA"]


def _code(column, known):
    """Return the place of each value in the list `known`, null where it is not in it."""
    places = pl.Series(range(len(known)), dtype=pl.Float64)
    return pl.col(column).replace_strict(known, places, default=None, return_dtype=pl.Float64)


def features(flights):
    """Return what the model sees of each flight; each row depends on nothing but itself."""
    scheduled = pl.col("scheduled")
    minute = scheduled.dt.hour().cast(pl.Float64) * 60 + scheduled.dt.minute()
    return flights.select(
        carrier=_code("carrier", CARRIERS),
        origin=_code("origin", ORIGINS),
        distance="distance",  # nearly names the destination
        departs=minute,
        arrives="sched_arr",
        weekday=scheduled.dt.weekday(),
        temp="temp",
        dewp="dewp",
        humid="humid",
        wind_speed="wind_speed",
        wind_gust="wind_gust",
        precip="precip",
        pressure="pressure",
        visib="visib",
    )


def model(features, late, *, iterations: int = 60, learning_rate: float = 0.1, seed: int = 0):
    """Return a small gradient boosting of the probability of being late."""
    boosting = HistGradientBoostingClassifier(
        max_iter=iterations,
        learning_rate=learning_rate,
        min_samples_leaf=100,
        categorical_features=["carrier", "origin"],
        early_stopping=False,
        random_state=seed,
    )
    return boosting.fit(features, late)
