"""Groups beside each other: the promise kept on the edge of what is fair, and outcomes that may be read at any time."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from orrery.errors import NotUnderstood
from orrery.stats.gaps import FALSE, FOUND, SELECTED, GroupGaps, _blocks

ARL, LOOKS = 20, 700


def alarms(rate: int, mine: float, others: float, arl: float = ARL, looks: int = LOOKS, seed: int = 1) -> int:
    """Alarms where a group of 40 rows a look has one rate and 160 others have another, both wobbling together."""
    rng = np.random.default_rng(seed)
    gaps = GroupGaps(groups=1, arl=arl)
    found = 0
    for _ in range(looks):
        day = 1 + rng.uniform(-0.1, 0.1)
        gaps.compare(0, rate, rng.random(40) < mine * day, rng.random(160) < others * day)
        found += gaps.settle()
    return found


@pytest.mark.parametrize(
    ("rate", "edge", "beyond"),
    [
        (SELECTED, (0.4, 0.5), (0.1, 0.5)),
        (SELECTED, (0.5, 0.4), (0.5, 0.1)),
        (FOUND, (0.5, 0.6), (0.15, 0.6)),
        (FALSE, (0.3, 0.2), (0.7, 0.2)),
    ],
)
def test_the_promise_holds_on_the_edge_of_what_is_fair(
    rate: int, edge: tuple[float, float], beyond: tuple[float, float]
) -> None:
    promised = LOOKS / ARL
    assert alarms(rate, *edge) <= promised + 3 * math.sqrt(promised)
    assert alarms(rate, *beyond) > 2 * promised  # the control: beyond it, it alarms


def test_days_that_move_as_a_whole_keep_the_promise_only_as_one_unit() -> None:
    """A day's group is selected as one (a campaign): with rows as units it alarms falsely, with the day as unit not."""
    rng = np.random.default_rng(2)
    found = {1.0: 0, 0.0: 0}
    watched = {units: GroupGaps(groups=1, arl=100) for units in found}
    for _ in range(300):
        inside, outside = rng.random(200) < rng.choice([0.1, 0.9]), rng.random(400) < 0.5
        for units, gaps in watched.items():
            gaps.compare(0, SELECTED, inside, outside, units)
            found[units] += gaps.settle()
    assert found[0.0] <= 3 + 3 * math.sqrt(3) and found[1.0] > 30


def test_an_outcome_may_be_read_at_every_look_and_is_hardly_ever_wrong() -> None:
    """Forty fair worlds, a look each day: never a fail, and all pass in the end; on the edge of fair, never a pass."""
    wrong = passed = edge = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        fair, just = GroupGaps(groups=1), GroupGaps(groups=1)
        seen: set[str] = set()
        for _ in range(40):
            fair.compare(0, SELECTED, rng.random(100) < 0.5, rng.random(300) < 0.5)
            just.compare(0, SELECTED, rng.random(100) < 0.395, rng.random(300) < 0.5)
            seen.add(fair.outcome(0, SELECTED))
            edge += just.outcome(0, SELECTED) == "pass"
        wrong += "fail" in seen
        passed += fair.outcome(0, SELECTED) == "pass"
    assert (wrong, passed, edge) == (0, 40, 0)


def test_an_unfair_group_fails_and_a_small_one_is_not_judged() -> None:
    rng = np.random.default_rng(3)
    gaps = GroupGaps(groups=2)
    for _ in range(60):
        gaps.compare(0, FOUND, rng.random(50) < 0.3, rng.random(200) < 0.7)
        gaps.compare(1, FOUND, rng.random(1) < 0.3, rng.random(200) < 0.7)
        gaps.settle()
    assert gaps.outcome(0, FOUND) == "fail"
    assert gaps.outcome(1, FOUND) == gaps.outcome(0, FALSE) == "insufficient data"


def test_what_never_happened_yet_is_not_certain() -> None:
    """Nobody was selected in a hundred rows: that is not proof that nobody ever will be."""
    gaps = GroupGaps(groups=1)
    for _ in range(10):
        gaps.compare(0, SELECTED, np.zeros(10), np.zeros(50))
        gaps.settle()
    assert gaps.outcome(0, SELECTED) == "insufficient data"


def test_the_group_and_the_rate_are_blamed() -> None:
    rng = np.random.default_rng(4)
    gaps = GroupGaps(groups=3, arl=1e9)
    for _ in range(10):
        for group in range(3):
            gaps.compare(group, FALSE, rng.random(50) < (0.6 if group == 2 else 0.2), rng.random(200) < 0.2)
        gaps.settle()
    group, criterion, share = gaps.blame()[0]
    assert (group, criterion) == (2, 2 * FALSE + 1) and share > 0.9  # falsely selected more


def test_it_goes_on_from_its_state() -> None:
    rng = np.random.default_rng(5)
    lived, woken = GroupGaps(groups=2, arl=30), GroupGaps(groups=2, arl=30)
    for _ in range(30):
        inside, outside = rng.random(30) < 0.2, rng.random(60) < 0.5
        for gaps in (lived, woken):
            gaps.compare(1, SELECTED, inside, outside)
        assert lived.settle() == woken.settle() and lived.to_state() == woken.to_state()
        woken = GroupGaps.from_state(json.loads(json.dumps(woken.to_state(), allow_nan=False)))
    assert len(json.dumps(GroupGaps(groups=16).to_state())) < 10_000


def test_blocks_are_even_and_lose_no_row() -> None:
    values = np.arange(10.0)
    assert _blocks(values, 3).tolist() == [1.0, 4.0, 7.5] and _blocks(values, 1).tolist() == [4.5]
    assert _blocks(values, 10).tolist() == values.tolist()


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="groups"):
        GroupGaps(groups=0)
    with pytest.raises(NotUnderstood, match="ratio"):
        GroupGaps(groups=1, ratio=1.5)
    gaps = GroupGaps(groups=1)
    with pytest.raises(NotUnderstood, match="selection"):
        gaps.compare(0, SELECTED, [2.0], [0.0])
    gaps.compare(0, SELECTED, [], [1.0])  # nobody of the group asked: no bet
    assert not gaps.settle() and gaps.statistic == pytest.approx(0, abs=1e-9)
