"""The project's own losses for a decision: computed by the project's code, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from orrery.actions.desk import Desk
from orrery.errors import ProjectFailed
from orrery.pipeline.client import ModelProcess
from orrery.spec import Spec
from orrery.stats.checks import FloatArray
from orrery.stats.measure import Own, OwnLoss
from orrery.timeline.state import ModelState, Version


@contextmanager
def own_losses(desk: Desk, spec: Spec, python: str, artifact: Path) -> Iterator[Own]:
    """Give the losses that a project file defines, by the code beside what was just trained and is no version yet.

    The process starts with the first loss that is asked for, and ends with the block; without losses of the project's
    own there is none.

    Parameters
    ----------
    spec : the project file that says which losses there are.
    python, artifact : interpreter and folder of the version whose code is asked: the file's own commit.
    """
    with ExitStack() as ends:
        running: list[ModelProcess] = []

        def asked(function: str, bound: float, outputs: FloatArray, labels: FloatArray) -> FloatArray:
            if not running:
                running.append(ends.enter_context(desk.command_of(python, artifact, spec).process(60.0, desk.warm)))
            return running[0].loss(function, bound, outputs, labels)

        yield _losses(spec, asked)


@contextmanager
def own_losses_of(desk: Desk, model: ModelState, version: Version) -> Iterator[Own]:
    """Give the losses that the project file of a version defines, by the version's own code.

    The process starts with the first loss that is asked for, and stays: the next look asks the same one.
    """
    spec = model.spec_of(version.commit)

    def asked(function: str, bound: float, outputs: FloatArray, labels: FloatArray) -> FloatArray:
        command = desk.command(model, version)
        process = desk.standing(command)
        try:
            return process.loss(function, bound, outputs, labels)
        except ProjectFailed:
            if process.alive:  # it answered, and what it said is the project's
                raise
        # It may have been killed since the look before, by nobody's fault: another one tells.
        desk.let_go()
        return desk.standing(command).loss(function, bound, outputs, labels)

    try:
        yield _losses(spec, asked)
    except ProjectFailed:
        desk.let_go()  # whatever it has come to, nobody asks it again
        raise


def _losses(spec: Spec, asked: Callable[[str, float, FloatArray, FloatArray], FloatArray]) -> Own:
    """Return the losses of a project file; ``asked`` computes one, given its function and bound."""
    return {name: OwnLoss(one.bound, partial(asked, one.function, one.bound)) for name, one in spec.losses.items()}
