"""The promises of the paired tests: few false promotions at any number of looks, and power where there is a gain."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from orrery.errors import NotUnderstood
from orrery.stats import BettingE, McNemarE, PairedTest
from orrery.stats.confidence import MeanSequence
from orrery.stats.eprocess import mcnemar_log_e

ALPHA = 0.05
NEEDED = -math.log(ALPHA)


def crossing(log_e: np.ndarray) -> float:
    """Share of runs (rows) that ever reach 1 / alpha."""
    return float((log_e >= NEEDED).any(axis=1).mean())


def at_most_alpha(share: float, runs: int) -> bool:
    return share <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


def discordant(gain: float, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Wins and losses at 200 looks, one each 100 pairs, of which 10 % are discordant."""
    rng = np.random.default_rng(seed)
    pairs = rng.binomial(100, 0.1, size=(runs, 200))
    wins = rng.binomial(pairs, 0.5 + gain / 0.2)
    return np.cumsum(wins, axis=1), np.cumsum(pairs - wins, axis=1)


def z_with_peeking(total: np.ndarray, squares: np.ndarray, n: np.ndarray) -> float:
    """Negative control: share of runs where a one-sided z-test on the mean is ever significant at 5 %."""
    mean = total / n
    error = np.sqrt(np.maximum(squares / n - mean**2, 1e-12) / n)
    return float((mean / error > special.ndtri(1 - ALPHA)).any(axis=1).mean())


def test_mcnemar_rarely_promotes_on_the_null_where_a_peeking_z_test_often_does() -> None:
    wins, losses = discordant(0.0, runs=2000, seed=1)
    assert at_most_alpha(crossing(mcnemar_log_e(wins, losses)), 2000)
    n = np.arange(100, 20_001, 100)
    assert z_with_peeking((wins - losses).astype(float), (wins + losses).astype(float), n) > 0.25


def test_a_look_at_every_pair_promotes_no_more_often_than_it_says() -> None:
    """Paths of 1000 discordant pairs (only these change the evidence), looked at after each of them."""
    runs, pairs = 400, 1000
    wins = np.cumsum(np.random.default_rng(11).random((runs, pairs)) < 0.5, axis=1)
    n = np.arange(1, pairs + 1)
    assert at_most_alpha(crossing(mcnemar_log_e(wins, n - wins)), runs)
    after = slice(19, None)  # the control is at least spared the first few pairs, where z is no z
    assert z_with_peeking((2.0 * wins - n)[:, after], np.broadcast_to(n, wins.shape)[:, after], n[after]) > 0.25
    # a second control: the same evidence on pairs that are won a little more often than the null allows
    better = np.cumsum(np.random.default_rng(12).random((runs, pairs)) < 0.55, axis=1)
    assert not at_most_alpha(crossing(mcnemar_log_e(better, n - better)), runs)


@pytest.mark.parametrize(("gain", "power", "median_stop"), [(0.01, 0.93, 8000), (0.02, 0.999, 2000)])
def test_mcnemar_finds_a_gain(gain: float, power: float, median_stop: int) -> None:
    log_e = mcnemar_log_e(*discordant(gain, runs=1000, seed=2))
    assert crossing(log_e) >= power
    assert np.median((log_e >= NEEDED).argmax(axis=1) + 1) * 100 <= median_stop


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 3), (80, 20), (0, 40), (3, 900), (500, 5000)])
def test_mcnemar_is_the_integral_over_win_probabilities(wins: int, losses: int) -> None:
    def weighted(p: float) -> float:
        ratio = wins * math.log(2 * p) + losses * math.log(2 * (1 - p))
        return math.exp(ratio + 9 * math.log(p * (1 - p)) - special.betaln(10, 10) + math.log(2))

    peak = max(0.5, (wins + 9) / (wins + losses + 18))
    inside = integrate.quad(weighted, 0.5, 1 - 1e-12, epsabs=0, limit=500, points=[peak])[0]
    assert mcnemar_log_e(wins, losses) == pytest.approx(math.log(inside), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("counts", [(10**9, 0), (0, 10**9), (10**9, 10**9), (10**6, 10**9)])
def test_mcnemar_stays_finite_and_falls_with_losses_for_huge_counts(counts: tuple[int, int]) -> None:
    here, worse = mcnemar_log_e(*counts), mcnemar_log_e(counts[0], counts[1] + 10**6)
    assert np.isfinite(here) and worse < here


def test_mcnemar_tail_meets_the_direct_formula() -> None:
    """The continued fraction takes over where the incomplete beta function underflows; there must be no step."""
    losses = np.arange(1300.0, 1700.0)
    log_e = mcnemar_log_e(np.full_like(losses, 200.0), losses)
    steps = np.diff(log_e)
    assert (steps < 0).all() and (np.diff(steps) > 0).all()  # it falls ever more slowly, without a jump


def null_losses(margin: float, runs: int, looks: int, per_look: int, seed: int) -> np.ndarray:
    """Differences within [-1, 1] with mean exactly -margin, skewed so that the test is not helped by symmetry."""
    rng = np.random.default_rng(seed)
    return rng.beta(0.5, 4.5, size=(runs, looks, per_look)) - 0.1 - margin


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_betting_rarely_promotes_on_the_null_where_a_peeking_z_test_often_does(margin: float) -> None:
    runs, looks, per_look = 400, 80, 25
    d = null_losses(margin, runs, looks, per_look, seed=3)
    log_e = np.empty((runs, looks))
    for run in range(runs):
        test = BettingE(margin)
        for look in range(looks):
            test.update(d[run, look])
            log_e[run, look] = test.log_e
    assert at_most_alpha(crossing(log_e), runs)
    n = np.arange(1, looks + 1) * per_look
    shifted = d + margin
    total, squares = np.cumsum(shifted.sum(axis=2), axis=1), np.cumsum((shifted**2).sum(axis=2), axis=1)
    assert z_with_peeking(total, squares, n) > 0.2


def test_betting_finds_a_gain_and_ignores_a_loss() -> None:
    rng = np.random.default_rng(4)
    better, worse = BettingE(), BettingE()
    better.update(rng.normal(0.02, 0.15, 5000).clip(-1, 1))
    worse.update(rng.normal(-0.02, 0.15, 5000).clip(-1, 1))
    assert better.log_e > NEEDED and worse.log_e < 0


differences = st.lists(st.floats(-1, 1), max_size=60)


@settings(max_examples=60, deadline=None)
@given(differences, st.integers(1, 7), st.sampled_from([0.0, 0.05, -0.05]))
def test_batches_and_a_restart_do_not_change_the_evidence(d: list[float], size: int, margin: float) -> None:
    whole, parts = PairedTest("loss", margin), PairedTest("loss", margin)
    whole.update(d)
    for start in range(0, len(d), size):
        parts.update(d[start : start + size])
        parts = PairedTest.from_state(json.loads(json.dumps(parts.to_state(), allow_nan=False)))
    assert parts.n == whole.n
    assert parts.log_evidence == pytest.approx(whole.log_evidence, abs=1e-9)
    assert parts.log_counter_evidence == pytest.approx(whole.log_counter_evidence, abs=1e-9)
    assert parts.interval() == pytest.approx(whole.interval(), abs=1e-9, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=200), st.floats(-0.1, 0.1))
def test_both_sides_are_never_ahead_at_once(d: list[int], margin: float) -> None:
    for test in (PairedTest("zero_one"), PairedTest("loss", margin)):
        test.update(d)
        assert min(test.log_evidence, test.log_counter_evidence) <= 1e-9


def test_zero_one_is_mcnemar_on_the_discordant_pairs() -> None:
    test, expected = PairedTest("zero_one"), McNemarE()
    test.update([1, 1, 0, -1, 1, 0])
    expected.update(wins=[1, 2], losses=1)
    assert test.log_evidence == expected.log_e
    assert McNemarE.from_state(json.loads(json.dumps(expected.to_state()))).e == expected.e


@pytest.mark.parametrize(("gain", "decision"), [(0.05, "promote"), (-0.05, "abort"), (0.0, "undecided")])
@pytest.mark.parametrize("kind", ["zero_one", "loss"])
def test_the_decision_follows_the_truth(kind: str, gain: float, decision: str) -> None:
    rng = np.random.default_rng(5)
    test = PairedTest(kind)  # type: ignore[arg-type]
    test.update(rng.choice([1, 0, -1], p=[0.1 + gain / 2, 0.8, 0.1 - gain / 2], size=4000))
    assert test.decision == decision
    assert test.interval().low <= gain <= test.interval().high


def test_a_margin_accepts_an_equal_challenger_and_still_refuses_a_bad_one() -> None:
    rng = np.random.default_rng(6)
    equal, bad = PairedTest("loss", margin=0.03), PairedTest("loss", margin=0.03)
    equal.update(rng.normal(0.0, 0.2, 8000).clip(-1, 1))
    bad.update(rng.normal(-0.06, 0.2, 8000).clip(-1, 1))
    assert (equal.decision, bad.decision) == ("promote", "abort")


def test_the_running_interval_covers_at_all_looks_together_and_the_fixed_one_does_not() -> None:
    runs, looks = 300, 60
    d = null_losses(0.0, runs, looks, 20, seed=7)
    missed = fixed = 0
    for run in range(runs):
        sequence, away, z_away = MeanSequence(), False, False
        for look in range(looks):
            sequence.update(d[run, look])
            away |= sequence.interval(ALPHA).excludes(0.0)
            seen = d[run, : look + 1]
            z_away |= abs(seen.mean()) > 1.96 * seen.std() / math.sqrt(seen.size)
        missed, fixed = missed + away, fixed + z_away
    assert at_most_alpha(missed / runs, runs)
    assert fixed / runs > 0.2


def test_the_interval_is_exact_before_the_burn_in() -> None:
    """Few equal values must not pass for certainty."""
    sequence = MeanSequence()
    sequence.update([0.1] * 49)
    assert sequence.interval().low < 0 < sequence.interval().high
    sequence.update([0.1] * 51)
    assert sequence.interval() == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize("values", [[0.5, math.nan], [1.5], [-math.inf]])
def test_values_out_of_bounds_are_refused_and_not_counted(values: list[float]) -> None:
    test = PairedTest("loss")
    with pytest.raises(NotUnderstood, match="not within"):
        test.update(values)
    assert test.n == 0 and test.log_evidence == pytest.approx(0.0)


def test_block_means_are_refused_where_rows_are_promised() -> None:
    with pytest.raises(NotUnderstood, match="not -1, 0 or 1"):
        PairedTest("zero_one").update([0.5])


@pytest.mark.parametrize("margin", [1.0, -1.0, 2.0])
def test_a_margin_that_leaves_nothing_to_test_is_refused(margin: float) -> None:
    with pytest.raises(NotUnderstood, match="margin"):
        BettingE(margin)
