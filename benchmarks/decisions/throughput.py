"""What a full drift update costs: a million rows of 20 numbers and 10 categories, and 1000 more after them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import drift_rows
from harness import PEERS, NotRun, Outcome, peer, table

ROWS = 1_000_000
OTHERS = {
    "Evidently, drift preset": ("evidently", "evidently_rows.py", ()),
    "NannyML, Kolmogorov-Smirnov and chi-squared": ("nannyml", "nannyml_rows.py", ("kolmogorov_smirnov", "chi2")),
    "whylogs, profiles and drift scores": ("whylogs", "whylogs_rows.py", ()),
}
Found = dict[str, Any]


def ours(out: Path, seed: int, rows: int) -> Found:
    """Measure orrery in a process of its own, as its peers are."""
    script = PEERS / "orrery_rows.py"
    subprocess.run([sys.executable, str(script), str(out), str(seed), str(rows)], check=True)
    return dict(json.loads(out.read_text()))


def run(cache: Path, seed: int, rows: int = ROWS) -> Outcome:
    """Measure all of it; orrery before, between and after its peers, and the median of that."""
    folder = cache / "decisions"
    folder.mkdir(parents=True, exist_ok=True)
    mine, theirs, missing = [ours(folder / "rows.json", seed, rows)], {}, []
    for name, (venv, script, words) in OTHERS.items():
        out = folder / "rows.json"
        try:
            peer(venv, script, out, seed, rows, *words)
        except NotRun as error:
            missing.append(f"{name} is not measured: {error}.")
            continue
        theirs[name] = json.loads(out.read_text())
        mine.append(ours(out, seed, rows))
    us = {key: sorted(one[key] for one in mine)[len(mine) // 2] for key in mine[0] if not key.startswith("found")}
    us |= {"found": mine[0]["found"], "found_more": mine[0]["found_more"]}
    lines = [_line("orrery", us, us)] + [_line(name, found, us) for name, found in theirs.items()]
    return Outcome(
        "What a drift update costs",
        _notes(rows, missing),
        _goals(us, theirs),
        [table(["monitor", *HEAD], lines)],
        [PEERS / f"{name}.txt" for name in ("evidently", "nannyml", "whylogs")],
    )


HEAD = (
    "import",
    "reference",
    "a million rows",
    "times orrery",
    "rows per second",
    "1000 rows after them",
    "times orrery",
    "memory",
    "of 2 changed",
)


def _line(name: str, found: Found, us: Found) -> list[str]:
    named = set(found["found"]) | set(found["found_more"])
    wrong = len(named - set(drift_rows.CHANGED))
    return [
        name,
        f"{found['import']:.1f} s",
        f"{found['begin']:.2f} s",
        f"{found['look']:.2f} s",
        f"{found['look'] / us['look']:.0f}",
        f"{ROWS / found['look']:,.0f}",
        f"{1000 * found['more']:.1f} ms",
        f"{found['more'] / us['more']:.0f}",
        f"{found['peak']:.2f} GB ({found['peak'] - found['before']:.2f} more than the rows)",
        f"{len(named & set(drift_rows.CHANGED))}" + (f" and {wrong} others" if wrong else ""),
    ]


def _goals(us: Found, theirs: dict[str, Found]) -> list[tuple[str, bool, str]]:
    goals = []
    for name, least in (("Evidently", 300), ("NannyML, Kolmogorov", 10)):
        for words, parts in (("reference and a million rows", ("begin", "look")), ("a million rows", ("look",))):
            found = next((one for key, one in theirs.items() if key.startswith(name)), None)
            if found is not None:
                times = sum(found[part] for part in parts) / sum(us[part] for part in parts)
                goals.append((f"{words}: {least} times as fast as {name}", times >= least, f"{times:.0f} times"))
    goals.append(
        ("1000 new rows after a million cost at most 5 ms", us["more"] <= 0.005, f"{1000 * us['more']:.1f} ms")
    )
    goals.append(("state at most 150 kB", us["state"] <= 150_000, f"{us['state'] / 1000:.0f} kB"))
    return goals


def _notes(rows: int, missing: list[str]) -> str:
    return f"""{rows:,} rows of {drift_rows.NUMBERS} numbers and {drift_rows.WORDS} categories against a reference of as
    many; in them one number moved by .5 sd and one category lost its most frequent word. Everybody in a
    process of its own, with the same rows in the frame that it reads (polars for orrery, pandas for the
    others), in one run: processor seconds of all threads, orrery's the median of several runs before, between
    and after theirs. The reference is taken in once, then a million rows, then {drift_rows.MORE} rows,
    {drift_rows.TIMES} times (Evidently: once). Evidently keeps nothing and takes the reference in again at
    every look; it also computes statistics and draws plots. NannyML scores the 1000 rows by themselves, in
    ten chunks, as it comes; whylogs merges their profile with that of the million, as orrery does with its
    sketch. The last column says whether the work was done: which of the two changes were named, at either
    look. orrery's first look never alarms, for it bets on what it saw before; at the later ones it names what
    carries its evidence, which is nearly all in the category here. {" ".join(missing)}"""
