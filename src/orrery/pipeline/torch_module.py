"""A PyTorch module as a model: asked with one tensor of the features, in order, and its tensor as an array.

PyTorch is no dependency: whoever has a module has imported it.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from orrery.errors import ProjectFailed

FORWARD = "forward"
"""The method by which a module is asked that has no ``predict_proba`` or ``predict`` of its own."""
DECLARED = "torch_module_"
"""Attribute by which an estimator says: this module of my features, as a matrix, is what I predict."""


def is_module(thing: Any) -> bool:
    """Whether something is a ``torch.nn.Module``.

    Examples
    --------
    >>> is_module("a text")
    False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.nn.Module)


def dtype_of(module: Any) -> Any:
    """The floating type that a module computes with: that of its first parameter or buffer."""
    import torch

    found = (each.dtype for each in _numbers_of(module))
    return next(found, torch.float32)


def ask(module: Any, given: Any) -> Any:
    """Ask a module, as after ``eval()`` and without gradients.

    Parameters
    ----------
    given
        A table or matrix of numbers, missing ones as NaN; or a tensor, which is handed on as it is.

    Raises
    ------
    ProjectFailed
        If there is something else than numbers in it.
    """
    import torch

    if module.training:
        module.eval()
    if not isinstance(given, torch.Tensor):
        device = next((each.device for each in _numbers_of(module)), None)
        given = torch.from_numpy(matrix_of(given)).to(device, dtype_of(module))
    with torch.inference_mode():
        return module(given)


def _numbers_of(module: Any) -> Any:
    return (each for each in itertools.chain(module.parameters(), module.buffers()) if each.is_floating_point())


def matrix_of(given: Any) -> npt.NDArray[np.float64]:
    """Features as one matrix of shape (rows, columns); raises ProjectFailed for what is no number."""
    if isinstance(given, np.ndarray) and given.ndim == 2 and given.dtype.kind in "fiub":
        return given.astype(np.float64)
    if isinstance(given, pl.DataFrame):
        numbers = {name: dtype.is_float() or dtype.is_integer() or dtype == pl.Boolean for name, dtype in _types(given)}
        if all(numbers.values()):
            return given.select(pl.all().cast(pl.Float64)).to_numpy(writable=True)
    elif hasattr(given, "columns") and hasattr(given, "iloc"):
        numbers = {str(name): getattr(dtype, "kind", "") in ("f", "i", "u", "b") for name, dtype in _types(given)}
        if all(numbers.values()):
            found: npt.NDArray[np.float64] = given.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
            return found
    else:
        raise ProjectFailed(
            f"The model is a PyTorch module, and its features are a {type(given).__name__}.",
            todo="Return a table or a matrix of numbers, or a tensor, from the step before it.",
        )
    raise ProjectFailed(
        f"The model is a PyTorch module, and its feature {next(name for name in numbers if not numbers[name])} "
        "holds no numbers.",
        todo="Make numbers of it in a step before it.",
    )


def _types(given: Any) -> Any:
    return given.schema.items() if isinstance(given, pl.DataFrame) else given.dtypes.items()


def array_of(said: Any) -> npt.NDArray[Any]:
    """What a model said as an array: of a tensor its numbers, in double precision, from wherever it is."""
    if hasattr(said, "detach"):
        tensor = said.detach().cpu()
        said = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    return np.asarray(said.to_numpy() if hasattr(said, "to_numpy") else said)
