"""Decisions that hold, measured: ``python benchmarks/decisions`` (``make bench-decisions``).

Every part is a simulation with a seed, its peers in the same run in venvs of their own, and says which goals it meets.
With ``--write`` a part's tables go to ``benchmarks/results/decisions-PART.md``. What a peer found is kept in the cache
folder by its script, its versions and the data it was given, and is not measured again.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from harness import HERE, NotRun, Outcome
from venvs import CACHE

PARTS = ("detection", "challenger", "drift", "throughput", "retraining", "windows")
RESULTS = HERE.parent / "results"


def text(outcome: Outcome, part: str, seed: int) -> str:
    """The report of a part."""
    pinned = [line for path in outcome.peers for line in path.read_text().split() if "==" in line]
    versions = [f"{name} {version(name)}" for name in ("numpy", "scipy")] + [line.replace("==", " ") for line in pinned]
    lines = [
        f"# {outcome.title}",
        "",
        f"`python benchmarks/decisions --part {part} --seed {seed} --write`; Python {platform.python_version()}, "
        + ", ".join(versions)
        + ".",
        "",
        " ".join(outcome.notes.split()),
        "",
        "| goal | met | |",
        "|---|---|---|",
    ]
    lines += [f"| {goal} | {'yes' if met else '**no**'} | {where} |" for goal, met, where in outcome.goals]
    for one in outcome.parts:
        lines += ["", one]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Decisions that hold, measured.")
    parser.add_argument("--part", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=CACHE, help="venvs of the peers, and what they found")
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results")
    chosen = parser.parse_args()
    parts = [part for part in PARTS if part in chosen.part.split(",")]
    if not parts:
        parser.error(f"no such part; there are {', '.join(PARTS)}")
    failed = False
    for part in parts:
        started = time.process_time()
        try:
            outcome = importlib.import_module(part).run(chosen.cache, chosen.seed)
        except NotRun as error:
            print(f"{part}: not run: {error}", file=sys.stderr)
            failed = True
            continue
        report = text(outcome, part, chosen.seed)
        print(report)
        print(f"{part}: {time.process_time() - started:.0f} CPU s", file=sys.stderr)
        if chosen.write:
            (RESULTS / f"decisions-{part}.md").write_text(report)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
