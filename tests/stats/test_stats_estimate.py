"""The loss that is estimated without labels is the loss that labels then show, where only the inputs moved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from orrery.errors import Damaged
from orrery.stats.estimate import LEAST_OF_A_CLASS, LEAST_ROWS, Untouched, calibration_of, expected_losses
from orrery.stats.joint import JointReference
from orrery.stats.measure import row_losses
from orrery.stats.ratio import effective_size

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


def harbours(
    rng: np.random.Generator, rows: int, north: float, wind: float
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows and the true chance of each; in the north what the model says comes true by less than elsewhere."""
    inputs = {
        "wind": rng.normal(wind, 1.0, rows),
        "tide": rng.normal(size=rows),
        "harbour": np.where(rng.random(rows) < north, "north", "south").astype(object),
    }
    logits = 1.5 * inputs["tide"] - 0.5
    return inputs, expit(np.where(inputs["harbour"] == "north", 0.2, 1.2) * logits - 0.3 * inputs["wind"])


def estimates(seed: int, north: float, wind: float, rows: int = 600) -> tuple[float, float, float]:
    """Brier score that comes, and what is expected of it with all untouched rows alike, and weighted."""
    rng = np.random.default_rng(seed)

    def said(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return expit(1.5 * inputs["tide"] - 0.5)[:, None]

    past, _ = harbours(rng, 8000, 0.2, 0.0)
    reference = JointReference.fit(past)
    assert reference is not None
    inputs, chance = harbours(rng, 4000, 0.2, 0.0)
    untouched = Untouched(said(inputs), (rng.random(4000) < chance).astype(float), reference.encode(inputs))
    asked, chance = harbours(rng, rows, north, wind)
    weights = untouched.likeness(reference, reference.encode(asked))
    assert weights is not None and LEAST_ROWS < effective_size(weights) < 4000
    outputs, found = said(asked), []
    for each in (None, weights):
        calibration = calibration_of(untouched.outputs, untouched.labels, each)
        assert calibration is not None
        found.append(float(expected_losses("brier", outputs, calibration).mean()))
    real = chance * (1 - outputs[:, 0]) ** 2 + (1 - chance) * outputs[:, 0] ** 2
    return float(real.mean()), found[0], found[1]


@pytest.mark.parametrize("moved", [(0.8, 0.0), (0.6, 0.8)])
def test_weighted_by_likeness_it_is_nearer_where_the_calibration_differs_over_the_inputs(moved: tuple) -> None:
    found = np.array([estimates(seed, *moved) for seed in range(8)])
    plain, weighted = (np.abs(found[:, kind] - found[:, 0]).mean() for kind in (1, 2))
    assert plain > 0.03, "the case must need the weights"
    assert weighted < plain / 4, (plain, weighted)


def test_where_nothing_moved_both_agree() -> None:
    found = np.array([estimates(seed, 0.2, 0.0) for seed in range(8)])
    assert np.abs(found[:, 1] - found[:, 2]).max() < 0.006
    assert np.abs(found[:, 2] - found[:, 0]).mean() < 0.006


def test_rows_that_are_not_like_the_requests_do_not_calibrate() -> None:
    rng = np.random.default_rng(5)
    past, chance = harbours(rng, 4000, 0.2, 0.0)
    reference = JointReference.fit(past)
    assert reference is not None
    labels = (rng.random(4000) < chance).astype(float)
    untouched = Untouched(chance[:, None], labels, reference.encode(past))
    weights = untouched.likeness(reference, reference.encode(harbours(rng, 500, 0.2, 4.0)[0]))
    assert weights is not None and effective_size(weights) < LEAST_ROWS
    assert weights.mean() == pytest.approx(1)
    assert calibration_of(untouched.outputs, untouched.labels, weights) is None
    assert Untouched(untouched.outputs, labels).likeness(reference, reference.encode(past)) is None


def test_untouched_rows_are_kept_and_read_again() -> None:
    before = Untouched(np.array([[0.2], [0.4]]), np.array([0.0, 1.0]), np.array([[1.0, 0.5], [0.0, -2.0]]))
    after = Untouched.from_bytes(before.to_bytes())
    assert after.encoded is not None and after.encoded.tolist() == [[1.0, 0.5], [0.0, -2.0]]
    assert after.outputs.tolist() == before.outputs.tolist() and after.labels.tolist() == [0.0, 1.0]
    assert Untouched.from_bytes(Untouched(before.outputs, before.labels).to_bytes()).encoded is None
    for wrong in (b"", b"something else"):
        with pytest.raises(Damaged):
            Untouched.from_bytes(wrong)
