"""The project's own losses for a decision: computed by the project's code, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orrery.actions.desk import Desk
from orrery.pipeline.client import ModelProcess
from orrery.spec import Spec
from orrery.stats.checks import FloatArray
from orrery.stats.measure import Own, OwnLoss
from orrery.timeline.state import ModelState, Version


@contextmanager
def own_losses(desk: Desk, spec: Spec, python: str, artifact: Path) -> Iterator[Own]:
    """Give the losses that a project file defines, by the code beside a trained model.

    The process starts with the first loss that is asked for, and ends with the block; without losses of the project's
    own there is none.

    Parameters
    ----------
    spec : the project file that says which losses there are.
    python, artifact : interpreter and folder of the version whose code is asked: the file's own commit.
    """
    with ExitStack() as ends:
        running: list[ModelProcess] = []

        def asking(function: str, bound: float) -> Callable[[FloatArray, FloatArray], FloatArray]:
            def of_rows(outputs: FloatArray, labels: FloatArray) -> FloatArray:
                if not running:
                    process = desk.command_of(python, artifact, spec).process(60.0, desk.warm)
                    running.append(ends.enter_context(process))
                return running[0].loss(function, bound, outputs, labels)

            return of_rows

        yield {name: OwnLoss(one.bound, asking(one.function, one.bound)) for name, one in spec.losses.items()}


@contextmanager
def own_losses_of(desk: Desk, model: ModelState, version: Version) -> Iterator[Own]:
    """Give the losses that the project file of a version defines, by the version's own code."""
    spec = model.spec_of(version.commit)
    if not spec.losses:
        yield {}
        return
    python = desk.python_of(model.commits[version.commit])
    with own_losses(desk, spec, python, desk.artifact(version)) as own:
        yield own
