"""The project's own losses for a decision: computed by the project's code, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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

        def process() -> ModelProcess:
            if not running:
                running.append(ends.enter_context(desk.command_of(python, artifact, spec).process(60.0, desk.warm)))
            return running[0]

        yield _asking(spec, process)


@contextmanager
def own_losses_of(desk: Desk, model: ModelState, version: Version) -> Iterator[Own]:
    """Give the losses that the project file of a version defines, by the version's own code.

    The process starts with the first loss that is asked for, and stays: the next look asks the same one.
    """
    spec = model.spec_of(version.commit)
    try:
        yield _asking(spec, lambda: desk.standing(desk.command(model, version)))
    except ProjectFailed:
        desk.let_go()  # whatever it has come to, nobody asks it again
        raise


def _asking(spec: Spec, process: Callable[[], ModelProcess]) -> Own:
    """Return the losses of a project file, computed by a process that is asked for when the first one is."""

    def asked(function: str, bound: float) -> Callable[[FloatArray, FloatArray], FloatArray]:
        return lambda outputs, labels: process().loss(function, bound, outputs, labels)

    return {name: OwnLoss(one.bound, asked(one.function, one.bound)) for name, one in spec.losses.items()}
