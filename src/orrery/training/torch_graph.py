"""PyTorch modules as ONNX graphs, by PyTorch's own exporter (``torch.onnx.export``, which needs ``onnxscript``).

Two forms of models say which module answers and what it is given: a bare module, and an estimator, alone or as the last
step of a scikit-learn pipeline, that has a module as its ``torch_module_``. What else may be around a module is Python.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orrery.pipeline.torch_module import DECLARED, FORWARD, dtype_of, is_module
from orrery.training.refusal import NotConvertible

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Ending:
    """A module, and the transformers before it in a pipeline, if there are any."""

    module: Any
    before: Any = None

    @property
    def precision(self) -> str:
        """What the module computes with: ``double``, ``single`` or another."""
        return {"torch.float64": "double", "torch.float32": "single"}.get(str(dtype_of(self.module)), "another")


def ending_of(model: Any, method: str) -> Ending | None:
    """The module that answers when a model is asked by this method; None if none says so."""
    if method == FORWARD:
        return Ending(model)
    from sklearn.pipeline import Pipeline

    steps = model.steps if isinstance(model, Pipeline) else [("", model)]
    module = getattr(steps[-1][1], DECLARED, None)
    if not is_module(module):
        return None
    return Ending(module, model[:-1] if len(steps) > 1 else None)


def exported(ending: Ending, width: int, opset: int) -> onnx.ModelProto:
    """Export a module of one matrix: the input ``numbers``, one output, and no name that others have.

    Raises
    ------
    NotConvertible
        If PyTorch cannot, with its reason.
    """
    import torch

    if ending.precision == "another":
        raise NotConvertible(f"it computes with {dtype_of(ending.module)}")
    module = copy.deepcopy(ending.module).cpu().eval()
    example = torch.zeros(
        (3, width), dtype=dtype_of(module)
    )  # any other number than one, which is taken for a constant
    rows = torch.export.Dim("rows")
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                input_names=["numbers"],
                output_names=["said"],
                opset_version=opset,
                dynamo=True,
                dynamic_shapes=({0: rows},),
                verbose=False,
            )
    except ModuleNotFoundError as error:
        raise NotConvertible(f"{error.name} is not installed, which PyTorch exports with") from None
    except Exception as error:  # of half a dozen classes, the reason at the end of a chain of them
        raise NotConvertible(f"PyTorch cannot export it: {_reason(error)}") from error
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    _of_one_column(proto)
    return proto


def join(proto: onnx.ModelProto, tail: onnx.ModelProto) -> None:
    """Have what a graph of transformers gives go into the graph of a module."""
    from onnx import compose, helper

    tail = compose.add_prefix(tail, "module/")
    (given,) = tail.graph.input
    kind = given.type.tensor_type.elem_type
    proto.graph.node.append(helper.make_node("Cast", [proto.graph.output[0].name], [given.name], to=kind))
    proto.graph.node.extend(tail.graph.node)
    proto.graph.initializer.extend(tail.graph.initializer)
    del proto.graph.output[:]
    proto.graph.output.extend(tail.graph.output)
    versions = {one.domain: one for one in proto.opset_import}
    for one in tail.opset_import:
        if one.domain in versions:
            versions[one.domain].version = max(versions[one.domain].version, one.version)
        else:
            proto.opset_import.append(one)
    proto.functions.extend(tail.functions)
    proto.ir_version = max(proto.ir_version, tail.ir_version)


def width_of(proto: onnx.ModelProto) -> int:
    """How many columns the first output has; raises NotConvertible where the graph does not say."""
    shape = proto.graph.output[0].type.tensor_type.shape
    width = int(shape.dim[1].dim_value) if len(shape.dim) == 2 else 0
    if not width:
        raise NotConvertible("the number of columns that its last transformer gives is not known")
    return width


def _of_one_column(proto: onnx.ModelProto) -> None:
    """Make a vector of an output of one column: that is what one number for each row is elsewhere."""
    from onnx import helper

    graph = proto.graph
    shape = graph.output[0].type.tensor_type.shape
    if len(shape.dim) != 2 or shape.dim[1].dim_value != 1:
        return
    graph.initializer.append(helper.make_tensor("one number a row", 7, [1], [-1]))
    graph.node.append(helper.make_node("Reshape", [graph.output[0].name, "one number a row"], ["vector"]))
    kind = graph.output[0].type.tensor_type.elem_type
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("vector", kind, [None]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the exporter tells of itself and of packages that are not installed is not about the model."""
    log = logging.getLogger("torch")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    first = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
    return first if len(first) <= 160 else first[:157] + "..."
