"""When to train again: losses plus what the trainings cost, against never, a calendar, ADWIN and an oracle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from harness import PEERS, Outcome, peer, table
from policies import AHEAD, ARL, EACH, NOW, PROBED, SELDOM, TOLERANCE, calendar, oracle, orrery
from worlds import SHARE, World, worlds

COSTS = (10.0, 30.0, 100.0, 300.0, 1000.0)
"""Of a training, in errors, or in the sum of squared errors."""
ABRUPT = ("MIXED", "SEA")


def run(cache: Path, seed: int) -> Outcome:
    """Measure all of it."""
    lines, worse, better = [], [], []
    for name, make in worlds(cache, seed).items():
        world = make()
        so_far, adwin = world.so_far, _adwin(cache, world)
        for cost in COSTS:
            theirs = min((one["lost"] + cost * one["trainings"], str(one["trainings"])) for one in adwin)
            seldom, each, (total, paid, words), probed = (
                orrery(world, cost, rule) for rule in (SELDOM, EACH, NOW, PROBED)
            )
            same = calendar(world, so_far, cost, most=paid)
            found = [
                calendar(world, so_far, cost),
                same,
                theirs,
                (seldom[0], seldom[2]),
                (each[0], each[2]),
                (total, words),
                (probed[0], probed[2]),
                oracle(world, so_far, cost),
            ]
            lines.append([f"{name}, {cost:g}", f"{world.never:.0f}", *(f"{sum_:.0f} ({did})" for sum_, did in found)])
            apart = f"{name} at {cost:g}: {total / same[0] - 1:+.0%}"
            if total > 1.02 * same[0]:
                worse.append(apart)
            if name in ABRUPT and total > 0.9 * same[0]:
                better.append(apart)
    goals = [
        ("at most 2 % worse than the best calendar that costs no more trainings", not worse, "; ".join(worse)),
        ("10 % better than it where changes are abrupt (MIXED, SEA)", not better, "; ".join(better)),
    ]
    head = ["world, cost of a training", "never", "best calendar", "best calendar of no more trainings", "ADWIN"]
    head += ["each alarm, long cooldown", "each alarm", "**orrery: weighed**", "weighed and probed", "oracle"]
    return Outcome("When to train again", " ".join(NOTES.split()), goals, [table(head, lines)], [PEERS / "river.txt"])


def _adwin(cache: Path, world: World) -> list[dict[str, float]]:
    path, out = cache / "decisions" / "world.npz", cache / "decisions" / "adwin.json"
    np.savez(path, lost=world.lost, edges=world.edges, known=world.known, first=world.first)
    peer("river", "river_adwin.py", path, out)
    path.unlink()
    found: list[dict[str, float]] = json.loads(out.read_text())
    return found


NOTES = f"""Losses of all rows that are answered, plus the cost of the trainings in losses; in brackets how many
trainings there were. MIXED and SEA are 40,000 rows that change at 8, 15, 26 and 33 thousand; "slow turn"
never stands still. "market" is made, with what is documented of Elec2, which no package registry has: a
label that says as the last one in 85 % of the rows, two and a half years of half hours, seasons, and
another market joining after 17,760 rows. In these a model is Gaussian naive Bayes on the newest 500,
2,000 or all rows, a look is 250 rows (market: five days), a label is known 500 rows later (market: a
day), and a loss is an error. "flights" are three in ten of the flights of 2013, drawn by lot: gradient
boosting on the newest 31 or 90 days or all, a look is two days, labels are known the day after, and a
loss is the squared error of the probability. Everybody begins with the same model. The calendar has the
best period and window in hindsight, for each cost; once free, and once with no more trainings than
orrery paid for, which the goals ask about; ADWIN (as it comes) the best window and wait after an alarm
in hindsight; the oracle knows every row. orrery chooses nothing in hindsight: the decay monitor's
detector (tolerance {TOLERANCE:g}, a promise of {ARL:,} looks; rows are units, or days where rows of one
depend on each other); a refresh, for which a probe of every window on one row in {SHARE} chooses the rows,
as in the product, and is paid for; a gate that refuses what is known to be worse; and the former model,
which is asked, too, for 16 looks, and takes its place again where it is known to be better. "Each alarm"
trains without a question, once in 16 looks (long cooldown) or once in as many as bring labels that are
all newer; so do all that follow. "Weighed" is what orrery does: it trains where the loss above what was
promised, on average since the alarm, would cost more in {AHEAD} looks than a training. "Weighed and probed"
asks, too, that the probe is known to be better, by so much that it pays in {AHEAD} looks."""
