"""An A/B that is looked at all day promotes falsely at most as often as it says, and finds a gain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import NotUnderstood
from orrery.stats import PairedTest, randomised_differences

RUNS, LOOKS, EACH = 400, 40, 100


def experiment(gain: float, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return losses and lots of one experiment: storms make the units of a look alike, in both arms."""
    rng = np.random.default_rng(seed)
    storm = np.repeat(rng.normal(0, 0.1, LOOKS), EACH)
    either = np.clip(0.25 + storm + rng.normal(0, 0.1, LOOKS * EACH), 0, 1)
    drawn = rng.random(LOOKS * EACH) < share
    return np.clip(either - gain * drawn, 0, 1), drawn


def ever(gain: float, share: float, seeds: range, decision: str, **about: Any) -> float:
    """Return the share of experiments in which the test ever says so, looked at after every 100 units."""
    count = 0
    for seed in seeds:
        losses, drawn = experiment(gain, share, seed)
        test = PairedTest("loss", alpha=0.05, bound=1 / min(share, 1 - share))
        for look in range(LOOKS):
            part = slice(look * EACH, (look + 1) * EACH)
            test.update(randomised_differences(losses[part], drawn[part], share, about.get("centre", 0.25)))
            if test.decision == decision:
                count += 1
                break
    return count / len(seeds)


def peeked(seeds: range) -> float:
    """The negative control: a z-test on the two means, looked at as often."""
    count = 0
    for seed in seeds:
        losses, drawn = experiment(0.0, 0.5, seed)
        for end in range(EACH, LOOKS * EACH + 1, EACH):
            arm, rest = losses[:end][drawn[:end]], losses[:end][~drawn[:end]]
            error = math.sqrt(arm.var() / len(arm) + rest.var() / len(rest))
            if (rest.mean() - arm.mean()) / error > 1.645:
                count += 1
                break
    return count / len(seeds)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_chance_promotes_rarely_however_often_one_looks(share: float) -> None:
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
    assert ever(0.0, share, range(RUNS), "promote") <= limit
    assert ever(0.0, share, range(RUNS), "abort") <= limit
    assert peeked(range(RUNS)) > 0.2


def test_a_gain_is_found_and_a_loss_too() -> None:
    assert ever(0.05, 0.5, range(60), "promote") >= 0.9
    assert ever(-0.05, 0.5, range(60), "abort") >= 0.9


@given(st.floats(0.05, 0.95), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_lot_leaves_no_bias_and_the_bound_holds(share: float, centre: float, losses: list[float]) -> None:
    as_arm = randomised_differences(losses, [True] * len(losses), share, centre)
    as_champion = randomised_differences(losses, [False] * len(losses), share, centre)
    assert np.allclose(share * as_arm + (1 - share) * as_champion, 0, atol=1e-9)
    largest = 1 / min(share, 1 - share) + 1e-9
    assert (np.abs(as_arm) <= largest).all() and (np.abs(as_champion) <= largest).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_a_lot_there_is_nothing_to_compare(share: float) -> None:
    with pytest.raises(NotUnderstood, match="nothing to compare"):
        randomised_differences([0.1], [True], share)
