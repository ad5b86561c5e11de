"""The project's own losses for a decision: computed by the project's code, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from orrery.actions.desk import Desk
from orrery.errors import ProjectFailed
from orrery.stats.checks import FloatArray
from orrery.stats.measure import Own, OwnLoss
from orrery.timeline.state import ModelState


@contextmanager
def own_losses(desk: Desk, model: ModelState, commit: str, classes: Sequence[object]) -> Iterator[Own]:
    """Give the losses that the project file of a commit defines, by the commit's own code.

    The process starts with the first loss that is asked for, and stays: the next decision asks the same one.

    Parameters
    ----------
    classes : values of the target, in the order of their numbers; none where it is a number itself.
    """
    spec = model.spec_of(commit)

    def asked(function: str, bound: float, outputs: FloatArray, labels: FloatArray) -> FloatArray:
        process = desk.losses(model, commit)
        try:
            return process.loss(function, bound, classes, outputs, labels)
        except ProjectFailed:
            if process.alive:  # it answered, and what it said is the project's
                raise
        # It may have been killed since the look before, by nobody's fault: another one tells.
        desk.let_go()
        return desk.losses(model, commit).loss(function, bound, classes, outputs, labels)

    try:
        yield {name: OwnLoss(one.bound, partial(asked, one.function, one.bound)) for name, one in spec.losses.items()}
    except ProjectFailed:
        desk.let_go()  # whatever it has come to, nobody asks it again
        raise
