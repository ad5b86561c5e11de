"""A repaired version is answered by the process of the version it repairs, and two numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.pipeline.artifact import Repair
from orrery.pipeline.predictor import repaired as in_the_artifact
from orrery.serving.numbers import repaired

numbers = st.floats(-5, 5)


@given(st.floats(0, 1), numbers, numbers)
def test_the_server_and_the_artifact_agree(probability: float, slope: float, intercept: float) -> None:
    expected = in_the_artifact(np.array([[probability]]), Repair(slope, intercept))[0, 0]
    assert repaired(probability, slope, intercept) == pytest.approx(expected, abs=1e-12)


def test_a_repair_changes_the_answer() -> None:
    assert repaired(0.2, 1.0, 1.0) > 0.3
