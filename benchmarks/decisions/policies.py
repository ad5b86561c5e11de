"""Who trains when: calendars, an oracle, and orrery's rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from worlds import SHARE, World

from orrery.stats import MeanDetector, paired_interval
from orrery.stats.intervals import Interval
from orrery.triggers.windows import ALPHA, pick
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
    cooldown : looks until the next training or probe; 0 is until all labels that it is judged on are newer.
    weigh : whether what the decay costs in :data:`AHEAD` looks must be more than a training, and a probe if there is
        one, as ``[triggers] weigh`` asks.
    probe : whether a probe on an eighth of the rows must show that a training pays, as for new data.
    """

    cooldown: int = 0
    weigh: bool = False
    probe: bool = False


SELDOM, EACH, NOW, PROBED = Rule(cooldown=16), Rule(), Rule(weigh=True), Rule(weigh=True, probe=True)
AHEAD = 16
"""Looks that a decay is expected to last if nothing is done, and that a probe's gain is counted on for."""
GUARD = 16
"""Looks in which the former model is asked, too, and takes its place again where it is known to be better."""


def orrery(world: World, cost: float, rule: Rule) -> tuple[float, float, str]:
    """Decay alarms, a rule weighs them, probes choose the window, and the gate compares with the champion.

    The detector is set and asked as the decay monitor does (a day's rows are one unit where they depend on each other),
    the arithmetic is the triggers'. Returns what it cost, trainings that were paid for, and both in words.
    """
    edges, known, rows = world.edges, world.known, int(world.edges[-1])
    ahead = AHEAD * (rows - int(edges[world.first])) / (world.looks - world.first)
    probing = cost * len(world.windows) / SHARE
    champion, born = world.lost[world.first, -1].astype(float), world.first
    cooldown, former = rule.cooldown or world.back, champion
    detector, promised = _detector(world, born, len(world.windows) - 1)
    said, trained, probed, held, alarm, since = np.zeros(rows), 0, 0, world.first, False, 0
    for at in range(world.first, world.looks):
        fresh = slice(max(int(known[at - 1]), int(edges[born])), int(known[at]))  # answers of this champion
        if at > born and fresh.stop > fresh.start:
            news = said[fresh]
            if detector.look(news if world.blocks is None else [news.mean()]):
                alarm, since = True, since if alarm else fresh.start
            alarm = alarm and bool(said[since : fresh.stop].mean() > detector.limit)
            if former is not champion and at <= born + GUARD and _worse(world, champion, former, born, at):
                champion, alarm, promised = former, False, float(former[fresh].mean())
                detector = MeanDetector(min(max(promised, 0.001), 0.95), tolerance=TOLERANCE, arl=ARL)
        if alarm and at >= held:
            excess = float(said[since : int(known[at])].mean()) - promised
            if not rule.weigh or excess * ahead > cost + probing * rule.probe:
                probed, held = probed + 1, at + cooldown
                number, gain = _compared(world, champion, at)
                if not rule.probe or _worth(gain, ahead, cost).pays:
                    trained += 1
                    if gain.high >= 0:  # the gate refuses what is known to be worse
                        former = champion
                        champion, born, alarm = world.lost[at, number].astype(float), at, False
                        detector, promised = _detector(world, at, number)
        now = slice(int(edges[at]), int(edges[at + 1]))
        said[now] = champion[now]
    paid = trained + probed * len(world.windows) / SHARE
    return float(said.sum()) + cost * paid, paid, f"{trained}, {probed} probes" if rule.probe else f"{trained}"


def _compared(world: World, champion: np.ndarray, at: int) -> tuple[int, Interval]:
    """Choose the window as a refresh does, and compare its probe with the champion on the newest labels."""
    judged = world.judged(at)
    blocks = None if world.blocks is None else world.blocks[judged]
    names = [f"{len(world.windows) - place}d" for place in range(len(world.windows))]  # from the shortest, as lengths
    places = dict(zip(sorted(names, reverse=True), range(len(names) - 1, -1, -1), strict=True))
    losses = {name: world.probes[at - world.back, place, judged].astype(float) for name, place in places.items()}
    chosen = pick(losses, dict.fromkeys(losses, 0), "loss", blocks).window
    alpha = ALPHA / len(losses)
    return places[chosen], paired_interval(champion[judged] - losses[chosen], alpha, blocks)


def _worth(gain: Interval, ahead: float, cost: float) -> Worth:
    low = gain.low if math.isfinite(gain.low) else -1.0
    about = {"metric": "loss", "gain": gain.estimate, "low": low, "requests": ahead}
    return Worth(**about, error=1.0, hours=cost, hour=1.0, currency="losses")


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
