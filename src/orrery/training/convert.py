"""A fitted model as an ONNX graph, by the converters of its library."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orrery.pipeline.verdict import MISSING, Column
from orrery.training.converters import parts, register
from orrery.training.refusal import NotConvertible
from orrery.training.torch_graph import ending_of, exported, join, width_of
from orrery.training.trees import MARK

if TYPE_CHECKING:
    import onnx

OPSET = {"": 20, "ai.onnx.ml": 3}
TYPES = {"numbers": 11, "wholes": 7, "texts": 8}
"""Number of the element type in ONNX, of each matrix."""


@dataclass(frozen=True)
class Graph:
    """A graph with the matrices of :mod:`orrery.pipeline.compiled` as its inputs."""

    content: bytes
    output: str
    """The output to ask for: probabilities, values, or labels."""


def convert(model: Any, method: str, columns: Sequence[Column], precision: str) -> Graph:
    """Convert a fitted model.

    Parameters
    ----------
    model
        An estimator.
    method
        What it is asked by: ``predict_proba`` or ``predict``, or ``forward`` of a PyTorch module.
    columns
        What it was fitted with, in order; those of no group are not used.
    precision
        ``double`` or ``single``: what it computes with.

    Raises
    ------
    NotConvertible
        With the reason in words.
    """
    library = type(model).__module__.partition(".")[0]
    if any(type(part).__module__ == "sklearn.feature_extraction.text" for part in parts(model)):
        raise NotConvertible("it cuts texts into words, by rules that a graph does not have on every machine")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proto, named = _proto(model, method, columns, precision)
            _rounded(proto)
            _merge(proto, columns, named, precision)
            output = _output(proto, method)
            return Graph(proto.SerializeToString(), output)
    except NotConvertible:
        raise
    except Exception as error:  # each library has its own ways of saying that it cannot
        raise NotConvertible(_in_words(error, library)) from error


def ways(model: Any, method: str, wholes: bool) -> list[tuple[str, str]]:
    """What to try in turn: the precision, and the matrix that whole numbers, if there are any, are columns of."""
    ending = ending_of(model, method)
    if ending is not None and ending.before is None:
        return [(ending.precision, "numbers")]
    groups = ("numbers", "wholes") if wholes else ("numbers",)
    return [(precision, group) for precision in ("double", "single") for group in groups]


def _proto(model: Any, method: str, columns: Sequence[Column], precision: str) -> tuple[onnx.ModelProto, bool]:
    """The graph as converters give it, and whether its inputs are columns rather than matrices."""
    ending = ending_of(model, method)
    if ending is None:
        return _of_sklearn(model, columns, precision)
    if ending.before is None:
        return exported(ending, sum(bool(column.group) for column in columns), OPSET[""]), False
    proto, named = _of_sklearn(ending.before, columns, precision)
    join(proto, exported(ending, width_of(proto), OPSET[""]))
    return proto, named


def by_name(model: Any) -> bool:
    """Whether a model takes columns by their names, so that each is an input of its own."""
    from sklearn.compose import ColumnTransformer

    return any(isinstance(part, ColumnTransformer) for part in parts(model))


def _of_sklearn(model: Any, columns: Sequence[Column], precision: str) -> tuple[onnx.ModelProto, bool]:
    import skl2onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType

    number = DoubleTensorType if precision == "double" else FloatTensorType
    types = {"numbers": number, "wholes": Int64TensorType, "texts": StringTensorType}
    used = [column for column in columns if column.group]
    groups = {column.group for column in used}
    named = by_name(model) or len(groups) > 1
    if named:
        inputs = [(column.name, types[column.group]([None, 1])) for column in used]
    else:
        group = groups.pop()
        inputs = [(group, types[group]([None, len(used)]))]
    with _as_converters_take_it(model):
        register(model)
        proto = skl2onnx.convert_sklearn(model, initial_types=inputs, target_opset=OPSET, options=_options(model))
    return proto, named


def _options(model: Any) -> dict[Any, Any]:
    return {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else {}


@contextlib.contextmanager
def _as_converters_take_it(model: Any) -> Iterator[None]:
    """Have the parts of a model, while they are read, say what they learnt in words that converters understand.

    A category that is null becomes the text that stands for null, truth values as classes become whole numbers, sparse
    bins dense ones, and the form of a vote's `transform`, which nobody asks for, the one that is known.
    """
    before = []
    for part in parts(model):
        for name, value in _words(part).items():
            before.append((part, name, getattr(part, name)))
            setattr(part, name, value)
    try:
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)


def _words(part: Any) -> dict[str, Any]:
    import numpy as np

    found: dict[str, Any] = {}
    own = vars(part)
    categories, classes = own.get("categories_"), own.get("classes_")
    if isinstance(categories, list) and any(each.dtype == object for each in categories):
        told = [np.array([MISSING if _null(x) else x for x in each], dtype=each.dtype) for each in categories]
        found["categories_"] = told
    if isinstance(classes, np.ndarray) and classes.dtype.kind == "b":
        found["classes_"] = classes.astype(np.int64)
    if own.get("encode") == "onehot":  # of bins: what the graph makes is dense in any case
        found["encode"] = "onehot-dense"
    if own.get("flatten_transform"):
        found["flatten_transform"] = False
    return found


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _merge(proto: onnx.ModelProto, columns: Sequence[Column], named: bool, precision: str) -> None:
    """Give a graph the matrices as inputs: each column cut out of them, and in the precision it computes with."""
    from onnx import TensorProto, helper

    graph = proto.graph
    del graph.input[:]
    nodes = []
    for group, kind in TYPES.items():
        names = [column.name for column in columns if column.group == group]
        if not names:
            continue
        graph.input.append(helper.make_tensor_value_info(group, kind, [None, len(names)]))
        source = group
        if group == "numbers" and precision == "single":
            source = "numbers in single precision"
            nodes.append(helper.make_node("Cast", [group], [source], to=TensorProto.FLOAT))
        if not named:
            _rename(graph, group, source)
        elif len(names) > 1:
            sizes = helper.make_tensor(f"one column each of {group}", TensorProto.INT64, [len(names)], [1] * len(names))
            graph.initializer.append(sizes)
            nodes.append(helper.make_node("Split", [source, sizes.name], names, axis=1))
        else:
            nodes.append(helper.make_node("Identity", [source], names))
    for opset in proto.opset_import:
        if not opset.domain:
            opset.version = max(opset.version, 13)  # since when an operator can be told the sizes in this way
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _rounded(proto: onnx.ModelProto) -> None:
    """Round what trees compare to single precision first, as their libraries do, whatever the graph computes in."""
    from onnx import TensorProto, helper

    nodes = []
    for node in proto.graph.node:
        if node.op_type.startswith("TreeEnsemble") and MARK not in node.name:
            double = any(each.name == "nodes_values_as_tensor" for each in node.attribute)
            for step, kind in enumerate([TensorProto.FLOAT, TensorProto.DOUBLE] if double else [TensorProto.FLOAT]):
                name = f"{node.name} rounded {step}"
                nodes.append(helper.make_node("Cast", [node.input[0]], [name], to=kind))
                node.input[0] = name
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node if old != new else ():
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _output(proto: onnx.ModelProto, method: str) -> str:
    """Find the output that says what the method says; numbers as float64, whatever they were computed in."""
    from onnx import TensorProto, helper

    graph = proto.graph
    chosen = graph.output[1 if method == "predict_proba" and len(graph.output) > 1 else 0]
    tensor = chosen.type.tensor_type
    name = chosen.name
    if tensor.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
        name = "prediction"
        graph.node.append(helper.make_node("Cast", [chosen.name], [name], to=TensorProto.DOUBLE))
        # Converters declare what they wish to compute in, and some operators give single precision all the same.
        shape = [None] * len(tensor.shape.dim) if tensor.HasField("shape") else None
        chosen = helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape)
    else:
        chosen = helper.make_tensor_value_info(name, tensor.elem_type, [None] * len(tensor.shape.dim))
    del graph.output[:], graph.value_info[:]
    graph.output.append(chosen)
    return str(name)


def _in_words(error: Exception, library: str) -> str:
    """The reason, from what a converter says."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if kind in ("MissingShapeCalculator", "MissingConverter"):
        found = re.search(r"([A-Za-z_]\w*)'>", text)
        return f"there is no converter for {found[1] if found else library}"
    first = text.split(". ")[0]
    return f"the converter says: {first if len(first) <= 160 else first[:157] + '...'}"
