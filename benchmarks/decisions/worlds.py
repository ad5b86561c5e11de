"""Worlds in which a model grows old: made streams, and the flights of 2013; what each model would have got wrong."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from harness import kept
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.naive_bayes import GaussianNB

SHARE = 8
"""A probe learns from every eighth row of its window, and costs as much less."""
WANDER = 0.002
"""Standard deviation of what the slow turn adds in a row, in radians."""
HALF_HOURS, DAY = 45_312, 48
"""Rows of Elec2, and of a day of it."""
MARKET = 17_760
"""Row of Elec2 from which on the other state's price is known."""
FLIGHTS = 0.3
"""Share of the flights, drawn by lot."""

Rows = tuple[np.ndarray, np.ndarray]
Learn = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray, np.ndarray], np.ndarray]]
"""From rows and labels to what gives the losses of rows with their labels."""


@dataclass(frozen=True)
class World:
    """What every model that could have been trained gets wrong.

    Parameters
    ----------
    lost, probes : loss of the model trained at each look on each window, and of its probe: (looks, windows, rows).
    edges : row at which each look begins, and where the last one ends.
    known : rows whose labels are known at each look.
    first : look at which everybody begins, with the model of all rows.
    back : looks that a probe must not have learned from: it is judged on them.
    windows : their names; the last has all rows.
    blocks : for each row its day, where rows of one day depend on each other.
    """

    lost: np.ndarray
    probes: np.ndarray
    edges: np.ndarray
    known: np.ndarray
    first: int
    back: int
    windows: tuple[str, ...]
    blocks: np.ndarray | None = None

    @property
    def looks(self) -> int:
        return len(self.edges) - 1

    @property
    def so_far(self) -> np.ndarray:
        """Loss so far before each look: shape (looks, windows, looks + 1)."""
        looks, windows, _ = self.lost.shape
        per = np.add.reduceat(self.lost, self.edges[:-1], axis=2, dtype=np.float64)
        return np.concatenate([np.zeros((looks, windows, 1)), per.cumsum(axis=2)], axis=2)

    @property
    def never(self) -> float:
        return float(self.lost[self.first, -1, self.edges[self.first] :].sum(dtype=np.float64))

    def judged(self, at: int) -> slice:
        """The rows on which a probe of a look is judged."""
        return slice(self.known[at - self.back], self.known[at])


def made(
    rows: Rows,
    edges: np.ndarray,
    known: np.ndarray,
    learn: Learn,
    begin: Callable[[int, int], list[int]],
    **about: object,
) -> World:
    """Train at every look on every window, with the labels that are known by then.

    Parameters
    ----------
    begin : from a look and the rows that are known to the first row of each window.
    """
    x, y = rows
    first, back, looks = about["first"], about["back"], len(edges) - 1
    lost = np.zeros((2, looks, len(about["windows"]), len(y)), dtype=np.float16)
    for at in range(first - back, looks):
        upto = int(known[at])
        before: dict[int, int] = {}  # a window that reaches back to the first row is that of all rows
        for number, start in enumerate(begin(at, upto)):
            if start in before:
                lost[:, at, number] = lost[:, at, before[start]]
                continue
            before[start] = number
            since = int(known[max(at - back, 0)])
            for kind, (step, until) in enumerate(((1, len(y)), (SHARE, known[min(at + back, looks - 1)]))):
                model = learn(x[start:upto:step], y[start:upto:step])
                lost[kind, at, number, since:until] = model(x[since:until], y[since:until])
    return World(lost[0], lost[1], edges, known, **about)


def bayes(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Gaussian naive Bayes; a loss is an error."""
    model = GaussianNB().fit(x, y)
    return lambda rows, labels: model.predict(rows) != labels


def boosted(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Gradient boosting; a loss is the squared error of the probability (Brier)."""
    model = HistGradientBoostingClassifier(max_iter=40, early_stopping=False, random_state=0).fit(x, y)
    return lambda rows, labels: (model.predict_proba(rows)[:, 1] - labels) ** 2


def stream(rows: Rows, look: int, delay: int, day: int = 0) -> World:
    """A stream of rows: labels are known some rows later, windows are of 500, 2,000 and all rows."""
    edges = np.arange(0, len(rows[1]) // look * look + 1, look)
    windows = (500, 2000, len(rows[1]))
    return made(
        (rows[0][: edges[-1]], rows[1][: edges[-1]]),
        edges,
        np.maximum(edges - delay, 0),
        bayes,
        lambda at, upto: [max(0, upto - window) for window in windows],
        first=2000 // look,
        back=500 // look,
        windows=("500", "2000", "all"),
        blocks=np.arange(edges[-1]) // day if day else None,
    )


def slow(seed: int, rows: int = 40_000) -> Rows:
    """A boundary that never stands still, like a market's: two of its weights turn, by a degree in 100 rows."""
    rng = np.random.default_rng([seed, 9])
    x = rng.normal(size=(rows, 5))
    turn = np.cumsum(rng.normal(0, WANDER, rows)) + np.arange(rows) * math.pi / 18_000
    score = np.cos(turn) * x[:, 0] + np.sin(turn) * x[:, 1] + 0.5 * x[:, 2]
    return x, (score + rng.logistic(0, 0.25, rows) > 0).astype(int)


def market(seed: int) -> Rows:
    """Made, with what is documented of Elec2: half hours of two and a half years of a market for electricity.

    Columns are the day of the week, the half hour, price and demand of this state and of the other one, and what is
    transferred; those of the other state stand still for the first 17,760 rows. The label is whether the price is above
    its mean of the last day. It follows itself: "as the last one" is right in 85 % of the rows, as in Elec2; 38 % are
    above, of Elec2's 42 %.
    """
    rng = np.random.default_rng([seed, 11])
    t = np.arange(-DAY, HALF_HOURS)
    hour, weekday, season = t % DAY / DAY, t // DAY % 7, t / (365.25 * DAY)

    def follows(keep: float, noise: float) -> np.ndarray:
        shocks, found = rng.normal(0, noise, len(t)), np.zeros(len(t))
        for place in range(1, len(t)):
            found[place] = keep * found[place - 1] + shocks[place]
        return found

    daily = -np.cos(2 * math.pi * (hour - 0.08)) + 0.5 * np.sin(4 * math.pi * hour)
    demand = daily - 0.5 * (weekday >= 5) + 0.4 * np.cos(4 * math.pi * season) + follows(0.97, 0.08)
    jumps = np.cumsum(np.where(rng.random(len(t)) < 1 / (30 * DAY), rng.normal(0, 0.6, len(t)), 0.0))
    level = jumps + 0.8 * follows(0.9995, 0.01) + 0.7 * (t >= MARKET)
    steep = 0.35 + 0.2 * np.sin(2 * math.pi * season) + 0.15 * (t >= MARKET)
    spikes = (rng.random(len(t)) < 0.005) * rng.exponential(1.0, len(t))
    price = np.exp(level + steep * demand + follows(0.6, 0.22) + spikes)
    beyond = np.where(t >= MARKET, price * np.exp(rng.normal(0, 0.2, len(t))), 0.003)
    theirs = np.where(t >= MARKET, demand + rng.normal(0, 0.3, len(t)), 0.42)
    transfer = np.where(t >= MARKET, theirs - demand + rng.normal(0, 0.2, len(t)), 0.41)
    mean = np.convolve(price, np.ones(DAY) / DAY)[: len(t)]
    x = np.column_stack([weekday, hour, price, demand, beyond, theirs, transfer])[DAY:]
    return x, (price > mean).astype(int)[DAY:]


def flights() -> World:
    """The flights of 2013, drawn by lot: a look is two days, and labels are known the day after."""
    from orrery.demo.flights import load_flights

    year = load_flights(FLIGHTS).drop_nulls("late")
    days = (year["scheduled"].dt.ordinal_day() - 1).to_numpy().astype(int)
    names = [name for name in year.columns if name not in ("flight_id", "scheduled", "dep_delay", "late")]
    columns = [
        year[name].cast(float).to_numpy() if year[name].dtype.is_numeric() else year[name].rank("dense").to_numpy()
        for name in names
    ]
    at = year["scheduled"]
    x = np.column_stack([*columns, at.dt.hour().to_numpy(), at.dt.weekday().to_numpy(), days]).astype(np.float32)
    starts = np.searchsorted(days, np.arange(366))
    edges = starts[np.append(np.arange(1, 365, 2), 365)]
    first = (date(2013, 2, 2) - date(2013, 1, 2)).days // 2

    def begin(look: int, upto: int) -> list[int]:
        day = 1 + 2 * look
        return [int(starts[max(0, day - window)]) for window in (31, 90, 365)]

    return made(
        (x, year["late"].to_numpy().astype(float)),
        edges,
        edges,
        boosted,
        begin,
        first=first,
        back=4,
        windows=("31d", "90d", "all"),
        blocks=days,
    )


def _kept(cache: Path, make: Callable[[], World]) -> World:
    """A world that takes minutes: as kept from before, where what makes it is the same."""
    recipe = f"{FLIGHTS}" + "".join(inspect.getsource(part) for part in (make, made, boosted))
    path = cache / "decisions" / f"{make.__name__}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        half = path.with_name("half.npz")
        np.savez(half, **vars(make()))
        half.rename(path)
    with np.load(path) as found:
        plain = {name: found[name] for name in found.files}
    numbers = {name: int(plain.pop(name)) for name in ("first", "back")}
    return World(windows=tuple(map(str, plain.pop("windows"))), **numbers, **plain)


def worlds(cache: Path, seed: int) -> dict[str, Callable[[], World]]:
    """The worlds by name, made when they are asked for."""
    found = np.load(kept(cache, "river", "river_rows.py", [40_000, seed], ".npz"))
    of_river = {name: (found[f"{name}/x"], found[f"{name}/y"]) for name in ("MIXED", "SEA")}
    return {
        "MIXED": lambda: stream(of_river["MIXED"], 250, 500),
        "SEA": lambda: stream(of_river["SEA"], 250, 500),
        "slow turn": lambda: stream(slow(seed), 250, 500),
        "market": lambda: stream(market(seed), 5 * DAY, DAY, DAY),
        "flights": lambda: _kept(cache, flights),
    }
