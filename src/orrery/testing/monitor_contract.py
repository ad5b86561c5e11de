"""What every monitor must hold; a new one is tested by standing in :data:`orrery.monitors.watch.MONITORS`.

The production that it is shown is simulated: a binary model with two features, quiet days, and from a day on one of
the changes in :data:`CHANGES`. A monitor names the change that it is for by :func:`check_monitor` finding one at least.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery import spec as specs
from orrery.data.arrays import columns_of
from orrery.monitors.monitor import Finding, Monitor, View
from orrery.monitors.predictions import output_columns
from orrery.stats import TableSketch
from orrery.stats.anomaly import AnomalyScore
from orrery.stats.estimate import Untouched
from orrery.stats.joint import JointReference
from orrery.stats.neighbours import Usual

CHANGES = ("inputs", "base rate", "noise", "groups", "unfair", "together", "strange", "probed")
"""The feature moves; events become more frequent; the label no longer follows the probability; one harbour hardly asks
any more; its probabilities are too
low; the feature depends on the harbour and each alone is as it was; one request in ten comes from a harbour that never
was; half of them are one request with the feature changed a little each time."""
ARL = 100
LARGEST_STATE = 20_000  # bytes of JSON

WOBBLE = 0.03
"""Standard deviation, from day to day, of the feature's mean (in its own) and of the harbours' shares."""
EVEN, SHIFTED = np.array([1.0, 1.0, 1.0]) / 3, np.array([0.08, 0.46, 0.46])

_START = datetime(2013, 1, 1, tzinfo=UTC)


class Simulated:
    """A model in production, a day a look. Quiet days wobble, by less than any tolerance.

    Parameters
    ----------
    seed : of all chance in it.
    rows : requests a day.
    """

    def __init__(self, seed: int, rows: int = 100) -> None:
        self.random = np.random.default_rng(seed)
        self.rows = rows
        self.day = 0
        self.spec = specs.from_dict(
            {
                "model": {
                    "name": "tides",
                    "task": "binary",
                    "target": "y",
                    "segments": ["harbour"],
                    "protected": ["harbour"],
                },
                "data": {"tides": "tides"},
                "rollout": {"primary": "brier", "unit": "row"},
                "monitors": {"arl": ARL, "every": "1d", "fairness": {"threshold": 0.2}},
            }
        )
        past = self._features(5000, 0.0, EVEN)
        self.reference = TableSketch.fit({name: past[name].to_numpy() for name in ("wind", "harbour")})
        self.joint = JointReference.fit({name: past[name].to_numpy() for name in ("wind", "harbour")})
        self.segments = TableSketch.fit({"harbour": past["harbour"].to_numpy()})
        self.score = AnomalyScore.fit(_arrays(past[:4000]), _arrays(past[4000:]))
        assert self.score is not None
        self.usual = Usual.fit(self.score, _arrays(past))
        truth = _chance(past)
        self.outputs = TableSketch.fit(output_columns("binary", truth[:, None], []))
        assert self.joint is not None
        happened = np.random.default_rng(seed + 10_000).random(len(past)) < truth
        self.untouched = Untouched(truth[:, None], happened.astype(float), self.joint.encode(_arrays(past)))
        self.expected_loss = float((truth * (1 - truth)).mean())

    def view(self, change: str = "", rows: int | None = None) -> View:
        """Return the next day, changed or quiet."""
        rows = self.rows if rows is None else rows
        self.day += 1
        wobble = self.random.normal(0.0, WOBBLE, 2)
        shares = SHIFTED if change == "groups" else EVEN + wobble[0] / 2 * np.array([1.0, -1.0, 0.0])
        requests = self._features(rows, (1.5 if change == "inputs" else 0.0) + wobble[1], shares)
        requests = _changed(requests, change)
        truth = _chance(requests)
        happens = {"base rate": truth + 0.6 * (1 - truth), "noise": 0.2 * truth + 0.4}.get(change, truth)
        low = (requests["harbour"] == "north").to_numpy() & (change == "unfair")
        said = np.where(low, 0.3 * truth, truth)
        label = (self.random.random(rows) < happens).astype(float)
        at = pl.Series([_START + timedelta(days=self.day)] * rows, dtype=pl.Datetime("us", "UTC"))
        matured = pl.DataFrame(
            {
                "output": pl.Series([[value] for value in said.tolist()], dtype=pl.List(pl.Float64)),
                "label": label,
                "at": at,
                "harbour": requests["harbour"],
            }
        )
        assert self.score is not None
        logged = {
            "_at": at,
            "_output": matured["output"],
            "_anomaly": pl.Series(self.score.scores(_arrays(requests))),
            "_id": pl.Series([f"req-{self.day}#{row}" for row in range(rows)], dtype=pl.String),
        }
        return View(
            spec=self.spec,
            requests=requests.with_columns(**logged),
            matured=matured,
            classes=[0, 1],
            reference=self.reference,
            expected_loss=self.expected_loss,
            segments=self.segments,
            protected=self.segments,
            joint=self.joint,
            score=self.score,
            usual=self.usual,
            outputs=self.outputs,
            untouched=self.untouched,
        )

    def _features(self, rows: int, shift: float, shares: np.ndarray[Any, Any]) -> pl.DataFrame:
        harbours = self.random.choice(["north", "south", "west"], rows, p=shares)
        return pl.DataFrame({"wind": self.random.normal(shift, 1.0, rows), "harbour": harbours})


def _changed(requests: pl.DataFrame, change: str) -> pl.DataFrame:
    place = pl.int_range(len(requests))
    if change == "together":
        return requests.select(pl.col("wind", "harbour").sort())  # each by itself
    if change == "strange":
        unseen = pl.when(place % 10 == 0).then(pl.lit("Atlantis"))
        return requests.with_columns(harbour=unseen.otherwise("harbour"))
    if change == "probed":
        swept = pl.when(place % 2 == 0)
        wind, harbour = swept.then(0.7 + 1e-5 * place), swept.then(pl.lit("west"))
        return requests.with_columns(wind=wind.otherwise("wind"), harbour=harbour.otherwise("harbour"))
    return requests


def _arrays(rows: pl.DataFrame) -> dict[str, np.ndarray[Any, Any]]:
    return columns_of(rows, ("wind", "harbour"))


def _chance(rows: pl.DataFrame) -> np.ndarray[Any, Any]:
    return np.asarray(1 / (1 + np.exp(1.4 - 0.8 * rows["wind"].to_numpy())))


def check_monitor(kind: type[Monitor]) -> None:
    """Check one monitor; takes about a second.

    Raises
    ------
    AssertionError
        If it breaks an obligation; the message says which.
    """
    _goes_on_from_its_state(kind)
    _says_when_there_is_too_little(kind)
    _keeps_its_promise(kind)
    _finds_what_it_is_for(kind)


def check_finding(finding: Finding) -> None:
    """Check that a finding is a sentence with finite numbers that JSON can carry.

    Raises
    ------
    AssertionError
        If it is not.
    """
    first = finding.why[:1]
    named = finding.why.split(" ")[0] in specs.METRICS["binary"]  # a sentence may begin with the name of a metric
    assert (first.isupper() or first.isdigit() or named) and finding.why.endswith("."), f"no sentence: {finding.why!r}"
    assert math.isfinite(finding.statistic) and finding.statistic >= 0, "the statistic is no finite number"
    assert finding.promise > 1 and finding.reason in ("drift", "decay") and finding.answer in ("repair", "refresh")
    assert not (finding.alarm and (finding.insufficient or finding.calm)), "an alarm is neither calm nor a guess"
    json.dumps(msgspec.to_builtins(finding), allow_nan=False)


def _goes_on_from_its_state(kind: type[Monitor]) -> None:
    world = Simulated(1)
    days = [world.view("" if day < 8 else CHANGES[day % len(CHANGES)], 7 if day == 4 else None) for day in range(16)]
    assert kind.applies(days[0]), "it must watch a binary model with features, labels and a promised loss"
    lived = kind.resume(days[0], {})
    state: dict[str, Any] = {}
    for view in days:
        woken = kind.resume(view, json.loads(json.dumps(state, allow_nan=False)))
        finding, same = lived.look(view), woken.look(view)
        assert finding == same, "resumed from its state it finds something else"
        check_finding(finding)
        assert finding.trains == kind.trains, "it does not say whether its alarm pulls a trigger"
        state = woken.to_state()
        size = len(json.dumps(state))
        assert size <= LARGEST_STATE, f"a state of {size} bytes"


def _says_when_there_is_too_little(kind: type[Monitor]) -> None:
    world = Simulated(2)
    monitor = kind.resume(world.view(), {})
    monitor.look(world.view())
    before = monitor.to_state()
    for rows in (0, 1, 5):
        for change in ("", *CHANGES):
            finding = monitor.look(world.view(change, rows))
            assert finding.insufficient and not finding.alarm, f"{rows} rows are too few to say: {finding.why}"
            check_finding(finding)
    assert monitor.to_state() == before, "what says nothing must not change the state"


def _keeps_its_promise(kind: type[Monitor], runs: int = 6, days: int = 60) -> None:
    """Of `runs * days` looks at most one in `ARL` may alarm; three standard errors are granted."""
    alarms = 0
    for seed in range(runs):
        world = Simulated(100 + seed)
        monitor = kind.resume(world.view(), {})
        alarms += sum(monitor.look(world.view()).alarm for _ in range(days))
    mean = runs * days / ARL
    assert alarms <= mean + 3 * math.sqrt(mean), f"{alarms} alarms in {runs * days} quiet looks, promised {mean:.0f}"


def _finds_what_it_is_for(kind: type[Monitor], runs: int = 2, days: int = 40) -> None:
    for change in CHANGES:
        alarmed = 0
        for seed in range(runs):
            world = Simulated(200 + seed)
            monitor = kind.resume(world.view(), {})
            for _ in range(10):
                monitor.look(world.view())
            alarmed += any(monitor.look(world.view(change)).alarm for _ in range(days))
        if alarmed == runs:
            return
    raise AssertionError(f"it finds none of the changes {', '.join(CHANGES)} in {days} looks")
