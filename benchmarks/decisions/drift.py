"""Feature drift on 30 features: how many quiet days alarm, and after how many looks a change is found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import drift_days
import numpy as np
from drift_days import CHANGES, Columns
from harness import PEERS, Outcome, kept, table
from scipy import special

from orrery.stats import FeatureDrift, TableSketch

ARL, LOOKS, RUNS, BEFORE, AFTER = 1000, 300, 10, 5, 12
EVIDENTLY_LOOKS, EVIDENTLY_CHANGED = 5, 2
PSI, P = 0.2, 0.05


class Customary:
    """What is customary: a Kolmogorov-Smirnov test (chi-squared for words) a feature and look, two-sided, and PSI."""

    def __init__(self, reference: Columns) -> None:
        self._numbers, self._words = {}, {}
        for name, values in reference.items():
            if values.dtype == object:
                self._words[name] = np.array([(values == level).sum() for level in drift_days.LEVELS])
            else:
                self._numbers[name] = np.sort(values)

    def p_values(self, day: Columns) -> np.ndarray:
        found = []
        for name, before in self._numbers.items():
            now = np.sort(day[name][~np.isnan(day[name])])
            n, m = len(now), len(before)
            below = np.searchsorted(before, now, side="right") / m
            gap = max((np.arange(1, n + 1) / n - below).max(), (below - np.arange(n) / n).max())
            found.append(special.kolmogorov(gap * math.sqrt(n * m / (n + m))))
        for name, before in self._words.items():
            both = np.array([before, [(day[name] == level).sum() for level in drift_days.LEVELS]], dtype=float)
            expected = both.sum(axis=1, keepdims=True) * both.sum(axis=0) / both.sum()
            found.append(special.chdtrc(both.shape[1] - 1, ((both - expected) ** 2 / expected).sum()))
        return np.array(found)

    def alarms(self, day: Columns) -> dict[str, bool]:
        p = np.sort(self.p_values(day))
        adjusted = p <= P * np.arange(1, len(p) + 1) / len(p)
        return {"KS, p < .05": bool(p[0] < P), "KS + Benjamini-Hochberg": bool(adjusted.any())}


def look(drift: FeatureDrift, customary: Customary, day: Columns) -> dict[str, bool]:
    found = drift.update(drift.reference.empty_like().add(day))
    psi = max(one.psi for one in found.severity.values())
    return {"orrery": found.alarm, **customary.alarms(day), f"PSI > {PSI}": psi > PSI}


def alarms_on(seed: int, kind: str, looks: int, reference: TableSketch, customary: Customary) -> dict[str, float]:
    """Share of looks that alarm on days without a change: ``quiet`` or ``wobble``."""
    drift = FeatureDrift(reference, arl=ARL)
    found = [look(drift, customary, drift_days.days(seed, kind, 0, number)) for number in range(looks)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def looks_until(
    seed: int, change: str, runs: int, reference: TableSketch, customary: Customary
) -> dict[str, list[float]]:
    """Looks until a change is found, for each run: after days that wobble only."""
    first: dict[str, list[float]] = {}
    for number in range(runs):
        drift, when = FeatureDrift(reference, arl=ARL), dict[str, float]()
        for at in range(BEFORE):
            look(drift, customary, drift_days.days(seed, "wobble", 1 + number, at))
        for at in range(AFTER):
            for name, alarm in look(drift, customary, drift_days.days(seed, change, number, at)).items():
                when[name] = min(when.get(name, math.inf), at + 1 if alarm else math.inf)
        for name, one in when.items():
            first.setdefault(name, []).append(one)
    return first


def run(cache: Path, seed: int) -> Outcome:
    """Measure all of it."""
    words = [seed, EVIDENTLY_LOOKS, EVIDENTLY_CHANGED]
    theirs = json.loads(kept(cache, "evidently", "evidently_drift.py", words, ".json").read_text())
    rows = drift_days.reference(seed)
    reference, customary = TableSketch.fit(rows), Customary(rows)
    alarms = {kind: alarms_on(seed, kind, LOOKS, reference, customary) for kind in ("quiet", "wobble")}
    first = {change: looks_until(seed, change, RUNS, reference, customary) for change in CHANGES}
    lines = []
    for name in alarms["quiet"]:
        shares = [f"{alarms[kind][name]:.1%}" for kind in ("quiet", "wobble")]
        lines.append([name, *shares, *(_looks(first[change][name]) for change in CHANGES)])
    for name, field in (("evidently, any column", "columns"), ("evidently, data set", "dataset")):
        shares = [f"{np.mean([one[field] > 0 for one in theirs[kind]]):.1%}" for kind in ("quiet", "wobble")]
        when = [[at + 1 for at, one in enumerate(theirs[change]) if one[field]][:1] or [math.inf] for change in CHANGES]
        lines.append([name, *shares, *(_looks(one) for one in when)])
    late = {change: max(first[change]["orrery"]) for change in CHANGES if change != "0.1 sd shift"}
    slow = [f"{change}: {_looks(first[change]['orrery'])}" for change, worst in late.items() if worst > 5]
    most = LOOKS / ARL + 3 * math.sqrt(LOOKS / ARL)
    goals = [
        ("promised run length kept, quiet", alarms["quiet"]["orrery"] * LOOKS <= most, ""),
        ("promised run length kept with the wobble", alarms["wobble"]["orrery"] * LOOKS <= most, ""),
        ("every shift of 0.2 sd and more, swap and burst found within 5 looks, in all runs", not slow, "; ".join(slow)),
    ]
    notes = f"""{drift_days.NUMBERS} numbers and {drift_days.WORDS} categories, reference {drift_days.REFERENCE:,} rows,
    a look {drift_days.ROWS:,}. Share of {LOOKS} looks that alarm on quiet days, and on days whose means wobble by
    {drift_days.WOBBLE} sd, which nobody wants to hear of. Then looks until one changed feature is found: median [least,
    most] of {RUNS} runs of {BEFORE} wobbling days and {AFTER} changed ones. orrery: as it comes, tolerance .05, a
    promise of {ARL} looks. A shift of 0.1 sd moves 4 % of the rows, which is within the tolerance: to be silent is
    right. What alarms on most wobbling days has found nothing when it alarms on a changed one. Evidently: its preset,
    on {EVIDENTLY_LOOKS} looks without a change and one run of {EVIDENTLY_CHANGED} with one; any column, and its own
    verdict on the data set (half of the columns)."""
    head = ["monitor", "quiet", "wobble", *CHANGES]
    return Outcome("Feature drift", notes, goals, [table(head, lines)], [PEERS / "evidently.txt"])


def _looks(found: list[float]) -> str:
    def word(one: float) -> str:
        return "never" if math.isinf(one) else f"{one:g}"

    middle = float(np.median(found))
    return word(middle) if len(found) == 1 else f"{word(middle)} [{word(min(found))}, {word(max(found))}]"
