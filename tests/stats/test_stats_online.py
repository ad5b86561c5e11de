"""Challengers that come one after the other: the share of false proofs is held, and is not without it."""

from __future__ import annotations

import numpy as np
import pytest

from orrery.errors import NotUnderstood
from orrery.stats import PairedTest, level

CHALLENGERS, PAIRS, LOOKS, ALPHA = 50, 400, 4, 0.1


def test_the_levels_of_a_sequence_without_a_proof_add_up_to_alpha() -> None:
    assert sum(level(0.05, trial, 0) for trial in range(1, 2000)) == pytest.approx(0.05, rel=1e-3)
    assert all(level(0.05, trial, trial - 1) <= 0.05 for trial in range(1, 50))


@pytest.mark.parametrize(("trial", "proven"), [(0, 0), (1, 1), (3, -1)])
def test_what_cannot_have_been_is_refused(trial: int, proven: int) -> None:
    with pytest.raises(NotUnderstood):
        level(0.05, trial, proven)


def project(rng: np.random.Generator, good: int, *, controlled: bool) -> tuple[int, int]:
    """Try challengers in turn, of whom the first so many are better; return the proofs, and those that were false."""
    proven = false = 0
    for trial in range(1, CHALLENGERS + 1):
        chance = 0.75 if trial <= good else 0.5  # of winning where the two differ; half: the null at its edge
        test = PairedTest("zero_one", alpha=level(ALPHA, trial, proven) if controlled else ALPHA)
        for _ in range(LOOKS):
            wins = rng.binomial(PAIRS // LOOKS, chance)
            test.update([1] * wins + [-1] * (PAIRS // LOOKS - wins))
            if test.decision == "promote":
                proven += 1
                false += trial > good
                break
    return proven, false


@pytest.mark.parametrize("good", [0, 3])
def test_the_share_of_false_proofs_is_held(good: int) -> None:
    shares = {}
    for controlled in (True, False):
        rng = np.random.default_rng(5)
        runs = [project(rng, good, controlled=controlled) for _ in range(40)]
        shares[controlled] = float(np.mean([false / max(proven, 1) for proven, false in runs]))
        if good:
            assert np.mean([proven - false for proven, false in runs]) > 0.95 * good
    assert shares[True] <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / 40)
    # the negative control: each test at alpha for itself
    assert shares[False] > (0.4 if good == 0 else 0.12)


def test_a_challenger_is_aborted_at_the_same_evidence_as_ever() -> None:
    strict = PairedTest("zero_one", alpha=0.001, abort_alpha=0.05)
    strict.update([-1] * 14)
    assert 20 < strict.counter_evidence < 1000 and strict.decision == "abort"
    again = PairedTest.from_state(strict.to_state())
    assert again.decision == "abort" and again.alpha == 0.001
    old = {name: value for name, value in strict.to_state().items() if name != "abort_alpha"}
    assert PairedTest.from_state(old).decision == "undecided"  # written when there was one level for both
