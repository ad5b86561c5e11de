"""River's detectors on error streams: ``python river_detect.py STREAMS.npz OUT.json TARGET STREAM``.

For each detector the most nervous setting on a grid is taken that raises at most TARGET false alarms in 100 000 rows of
the runs without a change, and its delays on the runs with one are measured. Where a detector has a second parameter,
the value with the shortest delay in hindsight counts. Nothing of the detectors is changed; KSWIN's test is remembered
(it gives the same p-value for the same counts of zeros and ones), which only makes it faster.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from river import drift
from river.drift import binary, kswin
from scipy import stats as scipy_stats

AT = 5000

# Ordered from nervous to calm.
CONFIDENCE = [3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12]
PAGE_HINKLEY = [3, 5, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 65, 80, 100, 130, 170, 220]
DDM = [1.5, 2, 2.5, 3, 3.25, 3.5, 3.75, 4, 4.5, 5, 6, 8, 10]

Make = Callable[[float, int], Any]


def page_hinkley(delta: float) -> Make:
    return lambda level, seed: drift.PageHinkley(threshold=level, delta=delta, mode="up")


FAMILIES: dict[str, list[tuple[str, list[float], Make]]] = {
    "ADWIN": [("delta", CONFIDENCE, lambda level, seed: drift.ADWIN(delta=level))],
    "Page-Hinkley": [
        (f"delta={delta:g}, threshold", list(map(float, PAGE_HINKLEY)), page_hinkley(delta)) for delta in (0.005, 0.02)
    ],
    "DDM": [("drift_threshold", list(map(float, DDM)), lambda level, seed: binary.DDM(drift_threshold=level))],
    "HDDM_A": [("drift_confidence", CONFIDENCE, lambda level, seed: binary.HDDMA(drift_confidence=level))],
    "KSWIN": [("alpha", CONFIDENCE, lambda level, seed: drift.KSWIN(alpha=level, seed=seed))],
}
SHIPPED: dict[str, Make] = {
    "ADWIN": lambda level, seed: drift.ADWIN(),
    "Page-Hinkley": lambda level, seed: drift.PageHinkley(mode="up"),
    "DDM": lambda level, seed: binary.DDM(),
    "HDDM_A": lambda level, seed: binary.HDDMA(),
    "KSWIN": lambda level, seed: drift.KSWIN(seed=seed),
}
RUNS = {"HDDM_A": 40, "KSWIN": 20}
"""Of the slow ones only so many runs are looked at; the table says so."""


@functools.cache
def _remembered(first: int, second: int, size: int) -> tuple[float, float]:
    a, b = [1.0] * first + [0.0] * (size - first), [1.0] * second + [0.0] * (size - second)
    found = scipy_stats.ks_2samp(a, b, method="auto")
    return float(found.statistic), float(found.pvalue)


def _ks_2samp(a: list[float], b: list[float], method: str) -> tuple[float, float]:
    return _remembered(int(sum(a)), int(sum(b)), len(a))


kswin.stats = SimpleNamespace(ks_2samp=_ks_2samp)


def alarms(detector: Any, run: Iterable[float], most: float = math.inf) -> list[int]:
    found: list[int] = []
    update = detector.update
    for at, value in enumerate(run):
        update(value)
        if detector.drift_detected:
            found.append(at)
            if len(found) > most:
                break
    return found


def false_alarms(make: Make, level: float, runs: list[list[float]], most: float) -> int:
    found = 0
    for seed, run in enumerate(runs):
        found += len(alarms(make(level, seed), run, most - found))
        if found > most:
            break
    return found


def delay(make: Make, level: float, runs: list[list[float]]) -> dict[str, float]:
    """Median delay over runs (missed ones are infinitely late) and the share of missed ones."""
    delays = []
    for seed, run in enumerate(runs):
        detector = make(level, seed)
        alarms(detector, run[:AT])
        after = alarms(detector, run[AT:], 0)
        delays.append(after[0] + 1 if after else math.inf)
    return {"delay": float(np.median(delays)), "missed": float(np.mean(np.isinf(delays)))}


def tuned(levels: list[float], make: Make, runs: list[list[float]], most: float) -> tuple[int, int] | None:
    """Position of the most nervous level that keeps to `most`, by halving, and its false alarms."""
    low, high, counts = 0, len(levels), {}
    while low < high:
        middle = (low + high) // 2
        counts[middle] = false_alarms(make, levels[middle], runs, most)
        low, high = (low, middle) if counts[middle] <= most else (middle + 1, high)
    return (low, counts[low]) if low < len(levels) else None


def measure(null: np.ndarray, changed: dict[str, np.ndarray], target: float) -> dict[str, Any]:
    """For one stream: detector to its setting, false alarms in 100 000 rows, and delays by change."""
    found: dict[str, Any] = {}
    for name, families in FAMILIES.items():
        started = time.process_time()
        count = RUNS.get(name, len(null))
        quiet = null[:count].astype(float).tolist()
        rows = count * null.shape[1]
        found[name] = {}
        for words, levels, make in families:
            place = tuned(levels, make, quiet, target * rows / 1e5)
            if place is None:
                continue
            level = levels[place[0]]
            for change, runs in changed.items():
                one = {
                    "setting": f"{words}={level:g}",
                    "false": place[1] / rows * 1e5,
                    "runs": count,
                    **delay(make, level, runs[:count].astype(float).tolist()),
                }
                best = found[name].get(change)
                if best is None or (one["delay"], one["missed"]) < (best["delay"], best["missed"]):
                    found[name][change] = one
        print(f"  {name}: {time.process_time() - started:.0f} s", flush=True)
    return found


def shipped(null: np.ndarray, changed: dict[str, np.ndarray]) -> dict[str, Any]:
    """The same for every detector as it comes."""
    found: dict[str, Any] = {}
    for name, make in SHIPPED.items():
        count = RUNS.get(name, len(null))
        false = false_alarms(make, 0.0, null[:count].astype(float).tolist(), math.inf)
        found[name] = {
            change: {
                "setting": "default",
                "runs": count,
                "false": false / (count * null.shape[1]) * 1e5,
                **delay(make, 0.0, runs[:count].astype(float).tolist()),
            }
            for change, runs in changed.items()
        }
    return found


def main(streams: str, out: str, target: float, name: str) -> None:
    loaded = np.load(streams)
    print(name, flush=True)
    changed = {
        key.split("/")[1]: loaded[key] for key in loaded if key.startswith(f"{name}/") and not key.endswith("/null")
    }
    null = loaded[f"{name}/null"]
    found = {"tuned": measure(null, changed, target)}
    if name == "Bernoulli":
        found["shipped"] = shipped(null, changed)
    with open(out, "w") as file:
        json.dump(found, file, indent=1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
