"""Which steps run again for a request, and which give what they gave in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orrery.errors import NotUnderstood
from orrery.pipeline.steps import Step


@dataclass(frozen=True)
class ServingPlan:
    """How the rows of a request become what the model sees."""

    features: str
    """The step, or the dataset itself, whose result is the model's first argument."""
    live: tuple[str, ...]
    """Steps that run for each request, in order."""
    kept: tuple[str, ...]
    """Steps and datasets that these need and whose value of training is used."""


def features_of(step: Step, target: str) -> str:
    """The model's input: the first argument of its step that is not the target.

    Raises
    ------
    NotUnderstood
        If there is none.
    """
    for name in step.needs:
        if name != target:
            return name
    raise NotUnderstood(
        f"The step {step.name} takes nothing to predict from.",
        todo=f"Give it the features first: def {step.name}(features, {target}).",
    )


def upstream(name: str, steps: Mapping[str, Step]) -> list[str]:
    """The steps that lead to `name`, itself included if it is one, in order."""
    wanted, pending = set(), [name]
    while pending:
        each = pending.pop()
        if each in steps and each not in wanted:
            wanted.add(each)
            pending.extend(steps[each].needs)
    return [each for each in steps if each in wanted]


def plan_serving(
    features: str,
    steps: Mapping[str, Step],
    rows: str,
    target: str,
    keep: Sequence[str],
    per_row: Callable[[str], bool | None],
) -> ServingPlan:
    """Decide what runs for a request.

    A step runs again if it depends on the request's rows and gave one row for each of them; a fitted encoder, a
    dictionary or a table of group means is kept. A table with another number of rows runs again only where nothing else
    would bring the rows of the request to a step that must run.

    Parameters
    ----------
    features
        What the model sees.
    steps
        All steps in order.
    rows
        The dataset whose place the request takes.
    target
        The input that holds the target, which no request brings.
    keep
        Steps that are kept whatever they gave.
    per_row
        What a step gave in training: True for a table or array with one row for each row of the dataset, False for
        another table, None for anything else.

    Raises
    ------
    NotUnderstood
        If a request's rows would not reach the model, or a step that runs for requests needs the target.
    """
    live = _live(features, steps, rows, keep, per_row)
    if features != rows and not _reached(features, live, steps, rows):
        raise NotUnderstood(
            f"What the model sees, {features}, does not depend on the rows of {rows} when serving.",
            todo=f"Let {features} take {rows}, directly or through steps that are not kept.",
        )
    ran, kept = _used(features, live, steps)
    if target in kept:
        user = next(name for name in steps if name in ran and target in steps[name].needs)
        raise NotUnderstood(
            f"The step {user} runs for every request and needs {target}, which is not known then.",
            todo=f"Let another step learn from {target} and return what it learnt; {user} can take that.",
        )
    return ServingPlan(
        features,
        tuple(name for name in steps if name in ran),
        tuple(sorted(name for name in kept if name != rows)),
    )


def _live(
    features: str, steps: Mapping[str, Step], rows: str, keep: Sequence[str], per_row: Callable[[str], bool | None]
) -> set[str]:
    """Return the steps that run again for a request, whether or not they are reached."""
    on_path: set[str] = set()
    for name in upstream(features, steps):
        if any(each == rows or each in on_path for each in steps[name].needs):
            on_path.add(name)
    live = {name for name in on_path if per_row(name) and name not in keep}
    if features in on_path and features not in keep:
        live.add(features)
    for name in reversed(list(steps)):
        if name in live and not any(each == rows or each in live for each in steps[name].needs):
            live |= {
                each for each in steps[name].needs if each in on_path and per_row(each) is not None and each not in keep
            }
    return live


def _reached(name: str, live: set[str], steps: Mapping[str, Step], rows: str) -> bool:
    return name == rows or (name in live and any(_reached(each, live, steps, rows) for each in steps[name].needs))


def _used(features: str, live: set[str], steps: Mapping[str, Step]) -> tuple[set[str], set[str]]:
    """Of the live steps those that lead to the features, and what these need that is not live."""
    ran: set[str] = set()
    kept: set[str] = set()
    pending = [features]
    while pending:
        name = pending.pop()
        if name in live and name not in ran:
            ran.add(name)
            pending.extend(steps[name].needs)
        elif name not in live:
            kept.add(name)
    return ran, kept
