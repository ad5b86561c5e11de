"""The steps of a pipeline module: its public functions, joined by the names of their arguments."""

from __future__ import annotations

import difflib
import graphlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from orrery.errors import NotUnderstood


@dataclass(frozen=True)
class Step:
    """One function of the pipeline module."""

    name: str
    function: Callable[..., Any]
    needs: tuple[str, ...]
    """Steps and supplied inputs that feed it, in the order of its arguments."""
    parameters: Mapping[str, Any]
    """Arguments with a default, and the default."""
    positional: tuple[str, ...]
    """Arguments that can only be given by position."""
    doc: str
    """First line of its documentation."""


def find_steps(module: ModuleType, inputs: Iterable[str]) -> dict[str, Step]:
    """The steps of a module in an order in which they can run.

    Public functions defined in the module are steps; imported ones and those that start with ``_`` are not. An argument
    without a default is fed by the step or the input of its name; one with a default is a parameter.

    Raises
    ------
    NotUnderstood
        An argument's name leads nowhere or to two things, or steps feed each other in a circle.
    """
    names = tuple(inputs)
    steps = {
        name: _read(name, function)
        for name, function in vars(module).items()
        if not name.startswith("_") and _is_step(module, name, function)
    }
    if not steps:
        raise NotUnderstood(
            f"The module {module.__name__} has no steps.",
            todo="Write public functions in it; an argument's name is the function or dataset that feeds it.",
        )
    for step in steps.values():
        _check(step, steps, names)
    sorter = graphlib.TopologicalSorter(
        {step.name: [name for name in step.needs if name in steps] for step in steps.values()}
    )
    try:
        return {name: steps[name] for name in sorter.static_order()}
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise NotUnderstood(
            f"Steps feed each other in a circle: {circle} (each needs the next).",
            todo="Take one of these arguments away.",
        ) from error


def _is_step(module: ModuleType, name: str, thing: object) -> bool:
    # functools.lru_cache and other decorators leave an object with __wrapped__; an alias is no second step.
    function = isinstance(thing, FunctionType) or isinstance(getattr(thing, "__wrapped__", None), FunctionType)
    return (
        function
        and not isinstance(thing, type)
        and getattr(thing, "__module__", None) == module.__name__
        and getattr(thing, "__name__", None) == name
    )


def _read(name: str, function: Callable[..., Any]) -> Step:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise NotUnderstood(
            f"The step {name} is asynchronous or a generator.", todo="Return the finished value from a plain def."
        )
    arguments = inspect.signature(function).parameters.values()
    for argument in arguments:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            raise NotUnderstood(
                f"The step {name} takes {argument}, which says no names.",
                todo=f"Name its arguments, or call it _{name} if it is a helper.",
            )
    doc = inspect.getdoc(function) or ""
    return Step(
        name=name,
        function=function,
        needs=tuple(each.name for each in arguments if each.default is each.empty),
        parameters={each.name: each.default for each in arguments if each.default is not each.empty},
        positional=tuple(each.name for each in arguments if each.kind is each.POSITIONAL_ONLY),
        doc=doc.partition("\n")[0],
    )


def _check(step: Step, steps: Mapping[str, Step], inputs: tuple[str, ...]) -> None:
    if step.name in inputs:
        raise NotUnderstood(
            f"{step.name} is a function of the pipeline and also a dataset or column.",
            todo="Give one of them another name.",
        )
    for name in step.parameters:
        if name in steps or name in inputs:
            kind = "step" if name in steps else "dataset or column"
            raise NotUnderstood(
                f"The argument {name} of {step.name} has a default, so it is a parameter, but {name} is also a {kind}.",
                todo=f"Take the default away to be fed by the {kind}, or rename the parameter.",
            )
    for name in step.needs:
        if name not in steps and name not in inputs:
            known = [*steps, *inputs]
            raise NotUnderstood(
                f"The step {step.name} needs {name}, and nothing has that name. {nearest(name, known)}",
                todo=f"Correct the argument, write a function {name}, or give it a default to make it a parameter.",
            )


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the known names that look most like `name`, as a sentence.

    >>> nearest("fligths", ["flights", "weather", "late"])
    'Nearest: flights.'
    >>> nearest("x", ["flights"])
    'There is: flights.'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Nearest: {', '.join(close)}."
    return f"There is: {', '.join(names[:12]) or 'nothing'}."
