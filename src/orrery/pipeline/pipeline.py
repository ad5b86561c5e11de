"""A project's pipeline: plain functions, joined by the names of their arguments.

::

    def features(flights):                                # a dataset
        return flights.with_columns(...)

    def model(features, late, *, depth: int = 6):         # a step, a column, a parameter
        return HistGradientBoostingClassifier(max_depth=depth).fit(features, late)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from orrery.errors import NotUnderstood
from orrery.pipeline.cache import Cache
from orrery.pipeline.checkout import load_module
from orrery.pipeline.execution import Execution, Input, RunResult, StepReport
from orrery.pipeline.keys import ProjectCode
from orrery.pipeline.steps import Step, find_steps, nearest

__all__ = ["Cache", "Input", "Pipeline", "RunResult", "Step", "StepReport", "load_module"]


class Pipeline:
    """The steps of a project's pipeline module.

    Parameters
    ----------
    module
        Loaded by :func:`load_module`.
    inputs
        Names of the datasets and columns that a run will supply.

    Raises
    ------
    NotUnderstood
        An argument's name leads nowhere or to two things, or steps feed each other in a circle.
    """

    def __init__(self, module: ModuleType, inputs: Iterable[str]) -> None:
        self.module = module
        self.inputs = tuple(inputs)
        self._steps = find_steps(module, self.inputs)
        self._code = ProjectCode(module)

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps, in an order in which they can run."""
        return tuple(self._steps)

    def needs(self, target: str) -> tuple[str, ...]:
        """Everything that a step needs: inputs first, then steps in order, itself at the end."""
        return self._needed([target])

    def parameters(self) -> dict[str, dict[str, Any]]:
        """Defaults of the parameters, for each step that has some."""
        return {step.name: dict(step.parameters) for step in self._steps.values() if step.parameters}

    def describe(self) -> list[Step]:
        """The steps in order, with what feeds them, for pages and documents."""
        return list(self._steps.values())

    def run(
        self,
        target: str | list[str],
        inputs: Mapping[str, Input],
        params: Mapping[str, Any],
        cache: Cache,
        environment: str,
        on_step: Callable[[StepReport], None] | None = None,
    ) -> RunResult:
        """Make one step's result, or several, running only what is not in the cache.

        Parameters
        ----------
        target
            The step or steps whose values are wanted; only these, and what a step that runs reads, are loaded.
        inputs
            The inputs that the targets need.
        params
            Values of parameters, for every step that has a parameter of that name.
        cache
            Where results are kept.
        environment
            Digest of the library versions; another one is another result.
        on_step
            Called after each step. A step is reported again in the rare case that its cached result turned out to be
            damaged when it was needed.

        Raises
        ------
        NotUnderstood
            There is no such step, parameter or input.
        ProjectFailed
            A step raised; the cause is chained. Finished steps stay in the cache.
        """
        targets = [target] if isinstance(target, str) else list(target)
        needed = self._needed(targets)
        steps = [self._steps[name] for name in needed if name in self._steps]
        known = {name for step in self._steps.values() for name in step.parameters}
        for name in params:
            if name not in known:
                raise NotUnderstood(f"No step has a parameter {name}. {nearest(name, known)}")
        for name in needed:
            if name not in self._steps and name not in inputs:
                raise NotUnderstood(f"{name} is needed for {', '.join(targets)} and was not supplied.")
        with self._code.checkout.active():
            return Execution(self._code, steps, targets, inputs, params, cache, environment, on_step).run()

    def _needed(self, targets: Iterable[str]) -> tuple[str, ...]:
        wanted: set[str] = set()
        pending = list(targets)
        for name in pending:
            if name not in self._steps:
                raise NotUnderstood(f"There is no step {name}. {nearest(name, self._steps)}")
        while pending:
            name = pending.pop()
            if name not in wanted:
                wanted.add(name)
                pending.extend(self._steps[name].needs if name in self._steps else ())
        inputs = [name for name in self.inputs if name in wanted]
        return (*inputs, *(name for name in self._steps if name in wanted))
