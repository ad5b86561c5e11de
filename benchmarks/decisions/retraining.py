"""When to train again: errors plus what the trainings cost, against never, a calendar, ADWIN and an oracle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import PEERS, Outcome, kept, peer, table
from sklearn.naive_bayes import GaussianNB

from orrery.stats import MeanDetector, paired_interval, wilson
from orrery.triggers.worth import Worth

ROWS, LOOK, DELAY, FIRST = 40_000, 250, 500, 2000
WINDOWS = (500, 2000, ROWS)
"""Rows that a model learns from; the last are all there are."""
COSTS = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Of a training, in errors."""
SHARE = 8
"""A probe learns from every eighth row of its window, and costs as much less."""
BACK = 500 // LOOK
"""Looks that a probe must not have learned from: it is judged on them."""
ARL, TOLERANCE = 1000, 0.02


@dataclass(frozen=True)
class Policy:
    """How orrery is set; in looks. The last two are no settings of it: what they would bring is measured here."""

    unit: str
    cooldown: int
    wait: int = 0
    """From an alarm to its first probe."""
    ahead: int = 0
    """For which the gain is counted on; 0 is the cooldown."""

    def words(self) -> str:
        words = f"a {self.unit} is a unit, cooldown {self.cooldown * LOOK:,}"
        wait, ahead = self.wait * LOOK, self.ahead * LOOK
        if wait:
            words += f"; *what if* it waited {wait:,} rows after an alarm, counting on {ahead:,}"
        return words


POLICIES = (Policy("look", 16), Policy("row", 16), Policy("row", 4, wait=4, ahead=40))
"""The goals ask about the first, which is the default."""
WANDER = 0.002
"""Standard deviation of what the slow turn adds in a row, in radians."""
Rows = tuple[np.ndarray, np.ndarray]


def slow(seed: int) -> Rows:
    """A boundary that never stands still, like a market's: two of its weights turn, by a degree in 100 rows."""
    rng = np.random.default_rng([seed, 9])
    x = rng.normal(size=(ROWS, 5))
    turn = np.cumsum(rng.normal(0, WANDER, ROWS)) + np.arange(ROWS) * math.pi / 18_000
    score = np.cos(turn) * x[:, 0] + np.sin(turn) * x[:, 1] + 0.5 * x[:, 2]
    return x, (score + rng.logistic(0, 0.25, ROWS) > 0).astype(int)


@dataclass(frozen=True)
class World:
    """What every model that could have been trained gets wrong: shape (looks, windows, rows), and the probes."""

    wrong: np.ndarray
    probes: np.ndarray

    @property
    def by_look(self) -> np.ndarray:
        """Errors so far before each look: shape (looks, windows, looks + 1)."""
        looks, windows, _ = self.wrong.shape
        per = self.wrong.reshape(looks, windows, looks, LOOK).sum(axis=3, dtype=np.int64)
        return np.concatenate([np.zeros((looks, windows, 1), dtype=np.int64), per.cumsum(axis=2)], axis=2)


def world(rows: Rows) -> World:
    """Train on every window at every look, with the labels that are known by then."""
    x, y = rows
    looks = ROWS // LOOK
    wrong = np.zeros((2, looks, len(WINDOWS), ROWS), dtype=bool)
    for at in range(FIRST // LOOK - BACK, looks):
        known = at * LOOK - DELAY
        begin = max(0, known - BACK * LOOK - DELAY)
        for number, window in enumerate(WINDOWS):
            part = slice(max(0, known - window), known)
            for kind, step in enumerate((1, SHARE)):
                model = GaussianNB().fit(x[part][::step], y[part][::step])
                wrong[kind, at, number, begin:] = model.predict(x[begin:]) != y[begin:]
    return World(wrong[0], wrong[1])


def calendar(so_far: np.ndarray, cost: float, most: float = math.inf) -> tuple[float, str]:
    """The best period and window in hindsight, of at most so many trainings."""
    best = (math.inf, "")
    looks, begin = so_far.shape[0], FIRST // LOOK
    for period in range(1, looks - begin + 1):
        dates = list(range(begin + period, looks, period))
        if len(dates) > most:
            continue
        for number, window in enumerate(WINDOWS):
            models = [(begin, len(WINDOWS) - 1), *((at, number) for at in dates)]
            ends = [*dates, looks]
            errors = sum(
                so_far[at, one, end] - so_far[at, one, at] for (at, one), end in zip(models, ends, strict=True)
            )
            total = float(errors + cost * len(dates))
            best = min(best, (total, f"{len(dates)}, every {period * LOOK} on {_rows(window)}" if dates else "0"))
    return best


def oracle(so_far: np.ndarray, cost: float) -> tuple[float, str]:
    """The best moments and windows for these very rows, by dynamic programming from the end."""
    looks, begin = so_far.shape[0], FIRST // LOOK
    after = np.zeros(looks + 1)
    count = np.zeros(looks + 1, dtype=int)
    for at in range(looks - 1, begin - 1, -1):
        ends = np.arange(at + 1, looks + 1)
        further = np.where(ends < looks, cost, 0.0) + after[ends]
        windows = range(len(WINDOWS)) if at > begin else [len(WINDOWS) - 1]
        totals = np.array([so_far[at, one, ends] - so_far[at, one, at] + further for one in windows])
        end = int(ends[totals.min(axis=0).argmin()])
        after[at], count[at] = totals.min(), count[end] + (end < looks)
    return float(after[begin]), str(count[begin])


def orrery(one: World, cost: float, policy: Policy) -> tuple[float, float, str]:
    """Decay alarms, then a probe on an eighth of the rows says whether a training is worth it and on which window.

    The detector is set and asked as the decay monitor does, the arithmetic is the data trigger's.
    """
    looks, begin, last = ROWS // LOOK, FIRST // LOOK, len(WINDOWS) - 1
    champion, born = one.wrong[begin, last], begin
    said = np.zeros(ROWS, dtype=bool)
    errors, trained, probed, held = 0, 0, 0, begin
    detector, alarm = _detector(one, begin, last, policy.unit), False
    for at in range(begin, looks):
        row = at * LOOK
        if row - DELAY - LOOK >= born * LOOK:  # answers of this champion whose labels are known since the last look
            news = said[row - DELAY - LOOK : row - DELAY].astype(float)
            found = detector.look(news if policy.unit == "row" else [news.mean()])
            held = max(held, at + policy.wait) if found and not alarm else held
            alarm = found or (alarm and news.mean() > detector.limit + TOLERANCE)
        if alarm and at >= held and at - BACK >= begin:
            judged = slice(row - DELAY - BACK * LOOK, row - DELAY)
            probed, held = probed + 1, at + policy.cooldown
            mine = one.probes[at - BACK, :, judged].astype(float)
            number = int(mine.mean(axis=1).argmin())
            better = paired_interval(champion[judged].astype(float) - mine[number])
            worth = Worth(
                metric="error",
                gain=better.estimate,
                low=better.low,
                requests=float((policy.ahead or policy.cooldown) * LOOK),
                error=1.0,
                hours=cost,
                hour=1.0,
                currency="errors",
            )
            if worth.pays:
                champion, born, trained, alarm = one.wrong[at, number], at, trained + 1, False
                detector = _detector(one, at, number, policy.unit)
        said[row : row + LOOK] = champion[row : row + LOOK]
        errors += int(said[row : row + LOOK].sum())
    paid = trained + probed * len(WINDOWS) / SHARE  # trainings
    return errors + cost * paid, paid, f"{trained}, {probed} probes"


def _detector(one: World, at: int, number: int, unit: str) -> MeanDetector:
    """Watch a model trained at a look: its limit is what its recipe did on rows that it had not learned from."""
    row = at * LOOK - DELAY
    judged = slice(row - BACK * LOOK, row)
    seen = one.wrong[at - BACK, number, judged]
    limit = wilson(int(seen.sum()), len(seen)).high
    grid = {} if unit == "row" else {"n_bets": 4, "smallest_bet": 0.3}
    return MeanDetector(min(limit, 0.95), tolerance=TOLERANCE, arl=ARL, **grid)


def run(cache: Path, seed: int) -> Outcome:
    """Measure all of it."""
    kept_rows = np.load(kept(cache, "river", "river_rows.py", [ROWS, seed], ".npz"))
    streams = {name: (kept_rows[f"{name}/x"], kept_rows[f"{name}/y"]) for name in ("MIXED", "SEA")}
    streams["slow turn"] = slow(seed)
    lines, worse, better = [], [], []
    for name, rows in streams.items():
        one = world(rows)
        so_far = one.by_look
        path, out = cache / "decisions" / "wrong.npz", cache / "decisions" / "adwin.json"
        np.savez_compressed(path, wrong=one.wrong)
        peer("river", "river_adwin.py", path, out, LOOK, DELAY, FIRST)
        adwin = json.loads(out.read_text())
        for cost in COSTS:
            theirs = min((each["errors"] + cost * each["trainings"], str(each["trainings"])) for each in adwin)
            mine = [orrery(one, cost, policy) for policy in POLICIES]
            total, paid, _ = mine[0]
            same = calendar(so_far, cost, most=paid)
            found = [
                calendar(so_far, cost),
                same,
                theirs,
                *((sum_, did) for sum_, _, did in mine),
                oracle(so_far, cost),
            ]
            never = so_far[FIRST // LOOK, -1, -1] - so_far[FIRST // LOOK, -1, FIRST // LOOK]
            lines.append([f"{name}, {cost:g}", str(never), *(f"{sum_:.0f} ({words})" for sum_, words in found)])
            if total > 1.02 * same[0]:
                worse.append(f"{name} at {cost:g}: {total / same[0] - 1:+.0%}")
            if name != "slow turn" and total > 0.9 * same[0]:
                better.append(f"{name} at {cost:g}: {total / same[0] - 1:+.0%}")
    goals = [
        ("at most 2 % worse than the best calendar that costs no more trainings", not worse, "; ".join(worse)),
        ("10 % better than it where changes are abrupt (MIXED, SEA)", not better, "; ".join(better)),
    ]
    head = ["stream, cost of a training", "never", "best calendar", "best calendar of no more trainings", "ADWIN"]
    head += [*(f"orrery, {policy.words()}" for policy in POLICIES), "oracle"]
    return Outcome("When to train again", _notes(), goals, [table(head, lines)], [PEERS / "river.txt"])


def _rows(window: int) -> str:
    return "all" if window == ROWS else str(window)


def _notes() -> str:
    return f"""Errors on {ROWS - FIRST:,} rows plus the cost of the trainings, in errors; in brackets how many there
    were. MIXED and SEA change at 8, 15, 26 and 33 thousand rows; "slow turn" never stands still. A label is
    known {DELAY} rows after its row, a look is {LOOK} rows, a model is Gaussian naive Bayes on the newest
    {WINDOWS[0]}, {WINDOWS[1]:,} or all rows, and everybody begins with the same one. The calendar has the
    best period and window in hindsight, for each cost; once free, and once with no more trainings than orrery
    paid for with the default unit, which the goals ask about; ADWIN (as it comes) the best window and wait
    after an alarm in hindsight; the oracle knows every row. orrery chooses nothing in hindsight: the decay
    monitor's detector (tolerance {TOLERANCE:g}, a promise of {ARL:,} looks; `unit` of the project is a day,
    here a look, or a row), then a probe of every window on an eighth of its rows, judged on {BACK * LOOK}
    newest ones, and the data trigger's arithmetic: its lower end times the requests of one cooldown must
    exceed the cost. Probes are paid for. What costs it most where trainings are cheap: after an alarm the
    newest labels are still of both concepts, a probe judged on them is refused, and the next may only come
    after the cooldown; and the arithmetic counts on the requests until the next chance only, not on a gain
    that lasts."""
