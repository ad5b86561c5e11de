"""A small table to begin with: half a year of four bakeries, the same at every call."""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

SHOPS = {"harbour": 140.0, "market": 120.0, "station": 160.0, "village": 80.0}
DAYS = 180
BAKED = 1.1  # loaves baked for each that is expected


def write_sample(path: Path, task: str) -> None:
    """Write the sample of a task as CSV: one row a shop and day, with the target in the last column."""
    chance = random.Random(20130101)
    start = datetime(2024, 1, 1, 6, tzinfo=UTC)
    target = {"binary": "sold_out", "multiclass": "demand", "regression": "loaves"}[task]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "day", "shop", "temperature", "rain", "holiday", target])
        for number in range(DAYS):
            day = start + timedelta(days=number)
            warm = round(8 + 10 * number / DAYS + chance.gauss(0, 4), 1)
            rain = round(max(0.0, chance.gauss(0, 3)), 1)
            holiday = int(chance.random() < 0.05)
            for shop, usual in SHOPS.items():
                weekend = 1.3 if day.weekday() >= 5 else 1.0
                expected = usual * weekend * (1 - 0.03 * rain) * (1.25 if holiday else 1.0) * (1 + 0.01 * (warm - 12))
                loaves = max(0, round(expected + chance.gauss(0, 0.08 * usual)))
                value = {
                    "binary": int(loaves > BAKED * usual),
                    "multiclass": "high" if loaves > BAKED * usual else "low" if loaves < 0.95 * usual else "usual",
                    "regression": loaves,
                }[task]
                rows.writerow([f"{shop}-{day:%Y%m%d}", f"{day:%Y-%m-%dT%H:%M:%SZ}", shop, warm, rain, holiday, value])
