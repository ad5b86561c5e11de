"""Who trains when: calendars, an oracle, and orrery's rule as it is and as it was."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from worlds import SHARE, World

from orrery.stats import MeanDetector, paired_interval
from orrery.triggers.worth import Worth

ARL, TOLERANCE = 1000, 0.02


def calendar(world: World, so_far: np.ndarray, cost: float, most: float = math.inf) -> tuple[float, str]:
    """The best period and window in hindsight, of at most so many trainings."""
    best = (math.inf, "")
    for period in range(1, world.looks - world.first + 1):
        dates = list(range(world.first + period, world.looks, period))
        if len(dates) > most:
            continue
        for number, window in enumerate(world.windows):
            models = [(world.first, len(world.windows) - 1), *((at, number) for at in dates)]
            ends = [*dates, world.looks]
            lost = sum(so_far[at, one, end] - so_far[at, one, at] for (at, one), end in zip(models, ends, strict=True))
            total = float(lost + cost * len(dates))
            best = min(best, (total, f"{len(dates)}, every {period} looks on {window}" if dates else "0"))
    return best


def oracle(world: World, so_far: np.ndarray, cost: float) -> tuple[float, str]:
    """The best moments and windows for these very rows, by dynamic programming from the end."""
    looks = world.looks
    after = np.zeros(looks + 1)
    count = np.zeros(looks + 1, dtype=int)
    for at in range(looks - 1, world.first - 1, -1):
        ends = np.arange(at + 1, looks + 1)
        further = np.where(ends < looks, cost, 0.0) + after[ends]
        windows = range(len(world.windows)) if at > world.first else [len(world.windows) - 1]
        totals = np.array([so_far[at, one, ends] - so_far[at, one, at] + further for one in windows])
        end = int(ends[totals.min(axis=0).argmin()])
        after[at], count[at] = totals.min(), count[end] + (end < looks)
    return float(after[world.first]), str(count[world.first])


@dataclass(frozen=True)
class Rule:
    """When a decay alarm leads to a training.

    Parameters
    ----------
    cooldown : looks until the next probe; 0 is until all labels that it is judged on are newer than the last one.
    lives : whether a gain is counted on for as long as models have lasted so far, on average, and a probe is made only
        where the loss above what was promised would pay for it and the training, and has paid for the probe since the
        last one; else it is counted on until the cooldown is over, and every alarm is probed.
    """

    cooldown: int
    lives: bool


BEFORE, NOW = Rule(16, lives=False), Rule(0, lives=True)
GUARD = 16
"""Looks in which the former model is asked, too, and takes its place again where it is known to be better."""


def orrery(world: World, cost: float, rule: Rule) -> tuple[float, float, str]:
    """Decay alarms, then a probe of each window on an eighth of its rows says whether to train, and on which.

    The detector is set and asked as the decay monitor does (a day's rows are one unit where they depend on each other),
    the arithmetic is the data trigger's. Returns what it cost, trainings that were paid for, and both in words.
    """
    edges, known, rows = world.edges, world.known, int(world.edges[-1])
    per_look = (rows - int(edges[world.first])) / (world.looks - world.first)
    probing = cost * len(world.windows) / SHARE
    champion, born = world.lost[world.first, -1].astype(float), world.first
    cooldown, former = rule.cooldown or world.back, champion
    detector, promised = _detector(world, born, len(world.windows) - 1)
    said, trained, probed, alarms, held, owed, alarm = np.zeros(rows), 0, 0, 0, world.first, 0.0, False
    for at in range(world.first, world.looks):
        fresh = slice(max(int(known[at - 1]), int(edges[born])), int(known[at]))  # answers of this champion
        if at > born and fresh.stop > fresh.start:
            news = said[fresh]
            found = detector.look(news if world.blocks is None else [news.mean()])
            alarms += found and not alarm
            alarm = bool(found or (alarm and news.mean() > detector.limit + TOLERANCE))
            owed += max(0.0, float((news - promised).sum()))
            if former is not champion and at <= born + GUARD and _worse(world, champion, former, born, at):
                champion, alarm, promised = former, False, float(former[fresh].mean())
                detector = MeanDetector(min(max(promised, 0.001), 0.95), tolerance=TOLERANCE, arl=ARL)
        if alarm and at >= held:
            ahead = cooldown * per_look
            ask = True
            if rule.lives:
                ahead = max(ahead, float(edges[at] - edges[world.first]) / alarms)
                recent = said[max(int(edges[born]), int(known[at - world.back])) : int(known[at])]
                ask = (recent.mean() - promised) * ahead > cost + probing and owed >= probing
            if ask:
                probed, owed, held = probed + 1, 0.0, at + cooldown
                number, worth = _weighed(world, champion, at, cost, ahead)
                if worth.pays:
                    former = champion
                    champion, born, trained, alarm = world.lost[at, number].astype(float), at, trained + 1, False
                    detector, promised = _detector(world, at, number)
        now = slice(int(edges[at]), int(edges[at + 1]))
        said[now] = champion[now]
    paid = trained + probed * len(world.windows) / SHARE
    return float(said.sum()) + cost * paid, paid, f"{trained}, {probed} probes"


def _weighed(world: World, champion: np.ndarray, at: int, cost: float, ahead: float) -> tuple[int, Worth]:
    judged = world.judged(at)
    mine = world.probes[at - world.back, :, judged].astype(float)
    number = int(mine.mean(axis=1).argmin())
    blocks = None if world.blocks is None else world.blocks[judged]
    better = paired_interval(champion[judged] - mine[number], blocks=blocks)
    return number, Worth(
        metric="loss",
        gain=better.estimate,
        low=better.low,
        requests=ahead,
        error=1.0,
        hours=cost,
        hour=1.0,
        currency="losses",
    )


def _worse(world: World, champion: np.ndarray, former: np.ndarray, born: int, at: int) -> bool:
    """Say whether the former model is known to be better on all that was answered since; a look each, so at 1 %."""
    since = slice(int(world.edges[born]), int(world.known[at]))
    blocks = None if world.blocks is None else world.blocks[since]
    return bool(paired_interval(champion[since] - former[since], 0.01, blocks).low > 0)


def _detector(world: World, at: int, number: int) -> tuple[MeanDetector, float]:
    """Watch a model trained at a look: its limit is what its recipe did on rows that it had not learned from."""
    judged = world.judged(at)
    seen = world.probes[at - world.back, number, judged].astype(float)
    limit = paired_interval(seen, blocks=None if world.blocks is None else world.blocks[judged]).high
    grid = {} if world.blocks is None else {"n_bets": 4, "smallest_bet": 0.3}
    return MeanDetector(min(max(limit, 0.001), 0.95), tolerance=TOLERANCE, arl=ARL, **grid), float(seen.mean())
