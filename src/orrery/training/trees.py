"""Tree ensembles that compare in double precision, as graphs: one ``TreeEnsembleRegressor``, and what follows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orrery.training.refusal import NotConvertible

MARK = "compared_in_double_precision"
"""In the names of these nodes: other ensembles compare in single precision (see :mod:`orrery.training.convert`)."""
MOST_NODES = 500_000
SINGLE, DOUBLE = 1, 11


@dataclass
class Forest:
    """Nodes of many trees, by attribute."""

    sums: int
    """Outputs: a tree adds to one of them."""
    nodes: list[tuple[int, int, str, int, float, int, int, int]] = field(default_factory=list)
    """Tree, node, mode, feature, threshold, true, false, whether a missing value goes to true."""
    leaves: list[tuple[int, int, int, float]] = field(default_factory=list)
    """Tree, node, output, value."""

    def split(self, tree: int, node: int, feature: int, threshold: float, yes: int, no: int, missing: bool) -> None:
        """``feature <= threshold``: go to `yes`."""
        self.nodes.append((tree, node, "BRANCH_LEQ", feature, threshold, yes, no, int(missing)))

    def leaf(self, tree: int, node: int, *values: tuple[int, float]) -> None:
        """Add a value to each of some outputs."""
        self.nodes.append((tree, node, "LEAF", 0, 0.0, 0, 0, 0))
        self.leaves.extend((tree, node, output, value) for output, value in values)

    def attributes(self, base: Sequence[float]) -> dict[str, Any]:
        """The attributes of the operator."""
        from onnx import helper

        if len(self.nodes) > MOST_NODES:
            raise NotConvertible(f"{len(self.nodes):,} nodes, more than {MOST_NODES:,}")
        trees, places, modes, features, values, yes, no, missing = zip(*self.nodes, strict=True)
        leaf_trees, leaf_places, outputs, weights = zip(*self.leaves, strict=True)

        def doubles(name: str, numbers: Sequence[float]) -> Any:
            return helper.make_tensor(name, DOUBLE, [len(numbers)], [float(number) for number in numbers])

        return {
            "n_targets": self.sums,
            "nodes_treeids": list(trees),
            "nodes_nodeids": list(places),
            "nodes_modes": list(modes),
            "nodes_featureids": list(features),
            "nodes_values_as_tensor": doubles("nodes_values", values),
            "nodes_truenodeids": list(yes),
            "nodes_falsenodeids": list(no),
            "nodes_missing_value_tracks_true": list(missing),
            "target_treeids": list(leaf_trees),
            "target_nodeids": list(leaf_places),
            "target_ids": list(outputs),
            "target_weights_as_tensor": doubles("target_weights", weights),
            "base_values_as_tensor": doubles("base_values", base),
            "aggregate_function": "SUM",
            "post_transform": "NONE",
        }


class Builder:
    """Adds nodes to a graph, each with one output."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def add(self, op: str, inputs: Sequence[str], version: int = 13, output: str = "", **attributes: Any) -> str:
        """Add a node; the name of its output."""
        name = output or str(self._scope.get_unique_variable_name(op.lower()))
        self._container.add_node(op, list(inputs), name, op_version=version, **attributes)
        return name

    def raw(self, model: Any) -> bool:
        """Whether the sums themselves are asked for."""
        return bool(self._container.get_options(model, {"raw_scores": False})["raw_scores"])

    def ensemble(self, source: str, forest: Forest, base: Sequence[float]) -> str:
        """Add an ensemble; its sums, as float64."""
        name = str(self._scope.get_unique_operator_name(f"trees_{MARK}"))
        sums = str(self._scope.get_unique_variable_name("sums"))
        self._container.add_node(
            "TreeEnsembleRegressor",
            [source],
            sums,
            op_domain="ai.onnx.ml",
            op_version=3,
            name=name,
            **forest.attributes(base),
        )
        return self.add("Cast", [sums], to=DOUBLE)

    def constant(self, numbers: Any, kind: int = DOUBLE) -> str:
        """Add a constant."""
        array = np.asarray(numbers)
        name = str(self._scope.get_unique_variable_name("constant"))
        content = [str(x).encode() for x in array.ravel()] if kind == 8 else array.ravel().tolist()
        self._container.add_initializer(name, kind, list(array.shape), content)
        return name

    def single(self, source: str) -> str:
        """Round to single precision, and go on in double."""
        return self.add("Cast", [self.add("Cast", [source], to=SINGLE)], to=DOUBLE)

    def columns(self, inputs: Sequence[Any], places: Sequence[int]) -> str:
        """Columns of all inputs together, by their places, as one matrix of float64, or of texts."""
        from skl2onnx.common.data_types import StringTensorType

        found, start = [], 0
        for variable in inputs:
            width = int(variable.type.shape[1])
            mine = [place - start for place in places if start <= place < start + width]
            start += width
            if not mine:
                continue
            name = variable.full_name
            if mine != list(range(width)):
                name = self.add("Gather", [name, self.constant(mine, 7)], axis=1)
            if not isinstance(variable.type, StringTensorType):
                name = self.add("Cast", [name], to=DOUBLE)
            found.append(name)
        return found[0] if len(found) == 1 else self.add("Concat", found, axis=1)


def shares(build: Builder, sums: str, width: int, classes: Any, operator: Any) -> None:
    """Labels and probabilities of a classifier, from its sums; or labels and the sums, for one that calibrates them."""
    probabilities = operator.outputs[1].full_name
    if build.raw(operator.raw_operator):
        both = [build.add("Neg", [sums]), sums] if width == 1 else [sums]
        build.add("Concat", both, axis=1, output=probabilities)
    elif width == 1:
        one = build.add("Sigmoid", [sums])
        other = build.add("Sub", [build.constant([1.0]), one])
        build.add("Concat", [other, one], axis=1, output=probabilities)
    else:
        build.add("Softmax", [sums], axis=1, output=probabilities)
    label(build, operator, classes)


def label(build: Builder, operator: Any, classes: Any) -> None:
    """The likeliest class, of a classifier whose probabilities are there."""
    best = build.add("ArgMax", [operator.outputs[1].full_name], axis=1, keepdims=0)
    values = np.asarray(classes)
    kind = 8 if values.dtype.kind in "UO" else 7
    if kind == 7:
        values = values.astype(np.int64)
    build.add("Gather", [build.constant(values, kind), best], output=operator.outputs[0].full_name)
