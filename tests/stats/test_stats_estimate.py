"""The loss that is estimated without labels is the loss that labels then show, where only the inputs moved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from orrery.stats.estimate import LEAST_OF_A_CLASS, LEAST_ROWS, calibration_of, expected_losses
from orrery.stats.measure import row_losses

LOSSES = ("log_loss", "brier", "zero_one")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_it_is_the_loss_that_labels_show_when_only_inputs_moved(name: str, shift: float) -> None:
    rng = np.random.default_rng(1)

    def rows(count: int, moved: float, overconfident: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
        logits = rng.normal(-1.5 + moved, 1.0, count)
        return expit(overconfident * logits)[:, None], (rng.random(count) < expit(logits)).astype(float)

    calibration = calibration_of(*rows(20_000, 0.0))
    assert calibration is not None and calibration[0][0] == pytest.approx(0.5, abs=0.03)
    outputs, labels = rows(100_000, shift)
    real = row_losses(name, outputs, labels).mean()
    assert expected_losses(name, outputs, calibration).mean() == pytest.approx(real, rel=0.03)
    naive = expected_losses(name, outputs, ((1.0, 0.0),)).mean()
    assert naive < 0.9 * real  # the control: an overconfident model that is believed promises too much


def test_it_cannot_see_that_the_world_changed() -> None:
    """What it says of itself: where the labels no longer follow the inputs as they did, the estimate is wrong."""
    rng = np.random.default_rng(2)
    said = expit(rng.normal(-1.5, 1.0, 20_000))[:, None]
    labels = (rng.random(20_000) < said[:, 0]).astype(float)
    calibration = calibration_of(said, labels)
    assert calibration is not None
    estimate = expected_losses("brier", said, calibration).mean()
    assert row_losses("brier", said, 1 - labels).mean() > 2 * estimate


@pytest.mark.parametrize("name", LOSSES)
def test_several_classes(name: str) -> None:
    rng = np.random.default_rng(3)

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        said = softmax(rng.normal(0, 1.2, (count, 4)), axis=1)
        return said, np.array([rng.choice(4, p=one) for one in said], dtype=float)

    calibration = calibration_of(*rows(10_000))
    assert calibration is not None and len(calibration) == 4
    outputs, labels = rows(20_000)
    real = row_losses(name, outputs, labels).mean()
    assert expected_losses(name, outputs, calibration).mean() == pytest.approx(real, rel=0.03)


def test_it_says_when_it_cannot_tell() -> None:
    rng = np.random.default_rng(4)
    said = rng.random((1000, 1))
    labels = (rng.random(1000) < said[:, 0]).astype(float)
    assert calibration_of(said, labels) is not None
    assert calibration_of(said[: LEAST_ROWS - 1], labels[: LEAST_ROWS - 1]) is None
    rare = np.zeros(1000)
    rare[: LEAST_OF_A_CLASS - 1] = 1
    assert calibration_of(said, rare) is None


def test_a_cap_bounds_what_a_row_can_cost() -> None:
    sure = np.array([[1e-9]])
    assert expected_losses("log_loss", sure, ((0.1, 0.0),), cap=2.0)[0] <= 2.0
    assert expected_losses("log_loss", sure, ((0.1, 0.0),))[0] > 3.0
