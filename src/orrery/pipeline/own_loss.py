"""A loss that the project itself defines, of each row: ``def missed(label, output) -> float``, in a stated range."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orrery.errors import ProjectFailed
from orrery.pipeline.checkout import Checkout, describe
from orrery.pipeline.manifest import FloatArray


def own_losses(
    checkout: Checkout,
    classes: Sequence[object],
    function: str,
    bound: float,
    outputs: FloatArray,
    labels: FloatArray,
) -> FloatArray:
    """Ask the project's function for the loss of each row, shape (rows,).

    Parameters
    ----------
    checkout : the code that is asked.
    classes : values of the target, in the order of their numbers; none where it is a number itself.
    function : ``module:function``.
    bound : largest loss; the smallest is 0.
    outputs : of a model, shape (rows, k). The function is given the probability of the second class (``k = 1``), a list
        of the probabilities of all, or the predicted value.
    labels : class numbers, or values, shape (rows,). The function is given the label as it stands in the dataset.

    Raises
    ------
    ProjectFailed
        If there is no such function, it fails, or gives anything but a number from 0 to the bound.
    """
    module, _, name = function.partition(":")
    said = outputs[:, 0].tolist() if outputs.shape[1] == 1 else outputs.tolist()
    known = [classes[int(code)] for code in labels] if classes else labels.tolist()
    found: list[float] = []
    with checkout.active():
        try:
            asked = getattr(checkout.load(module), name)
            for label, output in zip(known, said, strict=True):
                found.append(_number(asked(label, output)))
                if not 0 <= found[-1] <= bound:
                    break
        except (Exception, SystemExit) as error:
            raise ProjectFailed(f"The loss {function} failed: {describe(error, checkout.root)}") from error
    if found and not 0 <= found[-1] <= bound:
        label, output = known[len(found) - 1], said[len(found) - 1]
        raise ProjectFailed(
            f"The loss {function} gave {found[-1]:g} for the label {label!r} and the output {output!r}.",
            todo=f"Give numbers from 0 to {bound:g}, or state another bound in [losses].",
        )
    return np.asarray(found, dtype=np.float64)


def _number(value: object) -> float:
    """Return what the function gave as a number; nan, which is in no range, for whatever is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
