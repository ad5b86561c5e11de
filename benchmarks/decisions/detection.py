"""Delay until a rise of the error rate is found, at equal false alarms: the e-detector against river's detectors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from harness import PEERS, Outcome, kept, table

from orrery.stats import MeanDetector, wilson

AT, ROWS, RUNS = 5000, 10_000, 100
POOL, HOLDOUT = 40_000, 10_000
TARGET = 2.0
"""False alarms in 100 000 rows that everybody is tuned to."""
PARTIAL = 0.2
RATES = (0.12, 0.15, 0.20)
GENERATORS = ("SEA", "Agrawal", "Sine", "Mixed", "LED")
Rows, Words = list[list[str]], list[str]
# A look is a row. Ordered from nervous to calm, in steps of a quarter.
LENGTHS = [float(length) for length in np.geomspace(1e3, 1e8, 53)]
PROMISES = (1e3, 1e4, 1e5)
PROMISE_ROWS = 4_000_000


def streams(cache: Path, seed: int) -> tuple[dict[str, np.ndarray], dict[str, float], list[str]]:
    """Runs of errors by ``stream/change``, the limit of each stream as orrery sets it, and error rates in words.

    Rows of a generator's concept are independent, so a run draws them with replacement from a pool.
    """
    runs: dict[str, np.ndarray] = {}
    limits, words = {"Bernoulli": 0.10}, []
    rng = np.random.default_rng([seed, 0])
    runs["Bernoulli/null"] = rng.random((RUNS, ROWS)) < 0.10
    for rate in RATES:
        before = rng.random((RUNS, AT)) < 0.10
        runs[f"Bernoulli/.10 to {rate:.2f}".replace(" 0.", " .")] = np.hstack(
            [before, rng.random((RUNS, ROWS - AT)) < rate]
        )
    pools = np.load(kept(cache, "river", "river_streams.py", [POOL + HOLDOUT, seed], ".npz"))
    for number, name in enumerate(GENERATORS):
        rng = np.random.default_rng([seed, number + 1])
        before, after = pools[f"{name} before"], pools[f"{name} after"]
        holdout, before = before[:HOLDOUT], before[HOLDOUT:]
        limits[name] = wilson(int(holdout.sum()), HOLDOUT).high
        quiet = rng.choice(before, (3, RUNS, ROWS))
        moved = rng.choice(after, (2, RUNS, ROWS - AT))
        runs[f"{name}/null"] = quiet[0]
        runs[f"{name}/all rows"] = np.hstack([quiet[1, :, :AT], moved[0]])
        some = np.where(rng.random(moved[1].shape) < PARTIAL, moved[1], quiet[2, :, AT:])
        runs[f"{name}/every fifth row"] = np.hstack([quiet[2, :, :AT], some])
        words.append(f"{name} {before.mean():.3f} to {after.mean():.3f}")
    return {name: one.astype(np.uint8) for name, one in runs.items()}, limits, words


class Ours:
    """The e-detector on the runs of one stream, at any run length, each looked at once."""

    def __init__(self, null: np.ndarray, changed: dict[str, np.ndarray], limit: float) -> None:
        self._null, self._changed, self._limit = null, changed, limit
        self._false: dict[float, np.ndarray] = {}

    def false_alarms(self, arl: float, runs: int) -> int:
        if arl not in self._false:
            self._false[arl] = np.array([len(MeanDetector(self._limit, arl=arl).update(run)) for run in self._null])
        return int(self._false[arl][:runs].sum())

    def tuned(self, false: float, runs: int) -> float:
        """The shortest run length with at most so many false alarms in 100,000 rows of so many runs, by halving."""
        low, high = 0, len(LENGTHS) - 1
        most = false * runs * self._null.shape[1] / 1e5 + 1e-9
        while low < high:
            middle = (low + high) // 2
            fits = self.false_alarms(LENGTHS[middle], runs) <= most
            low, high = (low, middle) if fits else (middle + 1, high)
        return LENGTHS[low]

    def at(self, change: str, arl: float, runs: int) -> dict[str, Any]:
        """What it does at a run length: delay, missed share, false alarms in 100,000 rows."""
        found = []
        for run in self._changed[change][:runs]:
            after = [at - AT for at in MeanDetector(self._limit, arl=arl).update(run) if at >= AT]
            found.append(after[0] + 1 if after else math.inf)
        false = self.false_alarms(arl, runs) / (runs * self._null.shape[1]) * 1e5
        middle, missed = float(np.median(found)), float(np.mean(np.isinf(found)))
        return {"setting": f"ARL={arl:.2g}", "false": false, "delay": middle, "missed": missed}


def promises(cache: Path, limits: dict[str, float], seed: int) -> list[list[str]]:
    """For streams on the very edge of the null: mean rows between two false alarms, for several promises."""
    rows = []
    pools = np.load(kept(cache, "river", "river_streams.py", [POOL + HOLDOUT, seed], ".npz"))
    for number, stream in enumerate(limits):
        rng = np.random.default_rng([seed, 100 + number])
        rate = 0.10 if stream == "Bernoulli" else float(pools[f"{stream} before"][HOLDOUT:].mean())
        x = rng.random(PROMISE_ROWS) < rate
        line = [f"{stream} ({rate:.3f})"]
        for arl in PROMISES:
            found = len(MeanDetector(rate, arl=arl).update(x))
            held = found <= PROMISE_ROWS / arl + 3 * math.sqrt(PROMISE_ROWS / arl)
            line.append(f"{PROMISE_ROWS / found if found else math.inf:,.0f}" + ("" if held else " **missed**"))
        rows.append(line)
    return rows


def compared(
    runs: dict[str, np.ndarray], limits: dict[str, float], theirs: dict[str, Any]
) -> tuple[Rows, Rows, Rows, Words]:
    """Rows of delays, of settings, and of defaults on Bernoulli errors; and where a peer was sooner."""
    lines, settings, shipped, missed = [], [], [], []
    for stream, limit in limits.items():
        changed = {key.split("/")[1]: runs[key] for key in runs if key.startswith(f"{stream}/") and "/null" not in key}
        ours = Ours(runs[f"{stream}/null"], changed, limit)
        for change in changed:
            line, setting, sooner = [f"{stream}, {change}"], [f"{stream}, {change}"], []
            one = ours.at(change, ours.tuned(TARGET, RUNS), RUNS)
            line.append(_cell(one))
            setting.append(f"{one['setting']}: {one['false']:.1f}")
            for name, found in theirs[stream]["tuned"].items():
                other = found.get(change)
                if other is None:
                    line.append("none keeps to it")
                    setting.append("-")
                    continue
                same = ours.at(change, ours.tuned(other["false"], other["runs"]), other["runs"])
                line.append(f"{_cell(other)}; {_cell(same)}")
                setting.append(f"{other['setting']}: {other['false']:.1f}; {same['setting']}: {same['false']:.1f}")
                if other["delay"] < same["delay"]:
                    sooner.append(f"{name} {_cell(other)} against {_cell(same)}")
            lines.append([*line, "no" if sooner else "yes"])
            settings.append(setting)
            if sooner:
                missed.append(f"{stream}, {change}: {', '.join(sooner)}")
            if "shipped" in theirs[stream]:
                as_promised = ours.at(change, 1e5, RUNS)
                shipped.append([f"e-detector, ARL 1e5, {change}", f"{as_promised['false']:.1f}", _cell(as_promised)])
                for name, found in theirs[stream]["shipped"].items():
                    other = found[change]
                    shipped.append([f"{name}, defaults, {change}", f"{other['false']:.1f}", _cell(other)])
    return lines, settings, shipped, missed


def run(cache: Path, seed: int) -> Outcome:
    """Measure all of it."""
    runs, limits, rates = streams(cache, seed)
    file = cache / "decisions" / "streams.npz"
    np.savez(file, **runs)
    theirs = {}
    for stream in limits:
        words = [str(file), TARGET, stream]
        theirs[stream] = json.loads(kept(cache, "river", "river_detect.py", words, ".json", given=file).read_text())
    lines, settings, shipped, missed = compared(runs, limits, theirs)
    peers = list(next(iter(theirs.values()))["tuned"])
    parts = [
        f"## Median delay in rows, at most {TARGET:g} false alarms in 100,000 (share missed)\n\n"
        "The e-detector tuned to the target; then each peer, and after it the e-detector at that peer's own false "
        "alarms or fewer, on the same runs.\n\n" + table(["stream, change", "e-detector", *peers, "shortest"], lines),
        "## Settings found, and their false alarms in 100,000 rows\n\n"
        + table(["stream, change", "e-detector", *peers], settings),
    ]
    parts.append(
        "## As they come, Bernoulli errors\n\n"
        + table(["detector, change", "false alarms / 100k", "median delay (missed)"], shipped)
    )
    parts.append(
        f"## The promise: rows between two false alarms, on the edge of the null, {PROMISE_ROWS:,} rows each\n\n"
        + table(["stream (error rate)", *(f"promised {arl:,.0f}" for arl in PROMISES)], promises(cache, limits, seed))
    )
    broken = "**missed**" in parts[-1]
    goals = [
        ("promised run length kept everywhere", not broken, "see the last table"),
        ("shortest delay at equal false alarms on every stream", not missed, "; ".join(missed)),
    ]
    notes = (
        f"{RUNS} runs of {ROWS:,} rows for each line (HDDM_A 40, KSWIN 20), change at row {AT:,}; a change "
        f"not found in the {ROWS - AT:,} rows after it is missed. False alarms are counted on as many runs without a "
        "change. Everybody is tuned to the most nervous setting of a grid that keeps to the target; of Page-Hinkley's "
        "two values of delta the one with the shorter delay in hindsight counts. The e-detector gets its limit as the "
        "decay monitor does: .10 where that is known, else the upper end of the interval of "
        f"{HOLDOUT:,} rows kept out. Generators: a classifier that learned from 10,000 rows, left alone; after the "
        "change all rows, or one in five, are of the new concept. Error rates before and after: "
        f"{'; '.join(rates)}. KSWIN's test is remembered by its counts, which changes nothing but its speed."
    )
    return Outcome("Detection: delay at equal false alarms", notes, goals, parts, [PEERS / "river.txt"])


def _cell(one: dict[str, Any] | None) -> str:
    if one is None:
        return "none keeps to it"
    delay = "not found" if math.isinf(one["delay"]) else f"{one['delay']:.0f}"
    return delay + (f" ({one['missed']:.0%})" if one["missed"] else "")
