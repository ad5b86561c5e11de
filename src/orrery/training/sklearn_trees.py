"""scikit-learn's decision trees, forests and histogram boosting as graphs, with nulls and categories.

A split by categories asks a further column: whether the row's category is in a set, which two matrix operations say for
all sets of a feature together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orrery.training.refusal import NotConvertible
from orrery.training.trees import DOUBLE, Builder, Forest, label, shares


def decision_trees(scope: Any, operator: Any, container: Any) -> None:
    """scikit-learn's decision trees, random forests and extra trees, nulls included.

    They round a value to single precision, and compare it to a threshold in double precision. A split by nulls alone
    has an infinite one.
    """
    from sklearn.base import is_classifier

    model, build = operator.raw_operator, Builder(scope, container)
    if model.n_outputs_ != 1:
        raise NotConvertible(f"{model.n_outputs_} targets")
    width = len(model.classes_) if is_classifier(model) else 1
    members = getattr(model, "estimators_", [model])
    forest = Forest(width)
    for number, member in enumerate(members):
        tree = member.tree_
        for at, (left, right) in enumerate(zip(tree.children_left, tree.children_right, strict=True)):
            if left == right:
                shares_of = tree.value[at, 0, :width] / len(members)
                forest.leaf(number, at, *enumerate(shares_of.tolist()))
            else:
                missing = bool(tree.missing_go_to_left[at])
                threshold = float(tree.threshold[at])
                forest.split(number, at, int(tree.feature[at]), threshold, int(left), int(right), missing)
    source = build.columns(operator.inputs, range(model.n_features_in_))
    sums = build.ensemble(build.single(source), forest, [0.0] * width)
    if not is_classifier(model):
        build.add("Identity", [sums], output=operator.outputs[0].full_name)
        return
    build.add("Identity", [sums], output=operator.outputs[1].full_name)
    label(build, operator, model.classes_)


def histogram_boosting(scope: Any, operator: Any, container: Any) -> None:
    """``HistGradientBoostingClassifier`` and ``HistGradientBoostingRegressor``, categories included."""
    from sklearn.base import is_classifier

    model, build = operator.raw_operator, Builder(scope, container)
    base = np.ravel(model._baseline_prediction).tolist()
    categories = _categories(model)
    features = model.n_features_in_
    plain = [feature for feature in range(features) if feature not in categories]
    # The model's own order of features: those with categories first.
    order = [*categories, *plain]
    forest, sets = Forest(len(base)), _Sets({feature: len(known) for feature, known in categories.items()})
    for number, trees in enumerate(model._predictors):
        for output, tree in enumerate(trees):
            _add_tree(forest, number * len(trees) + output, output, tree, order, categories, sets)
    place = {feature: at for at, feature in enumerate(plain)}
    matrices = [build.columns(operator.inputs, plain)] if plain else []
    for feature, known in categories.items():
        columns = sets.of(feature)
        start = len(place)
        place.update({(feature, at): start + at for at in range(len(columns))})
        if columns:
            matrices.append(_memberships(build, operator.inputs, feature, known, np.array(columns).T))
    forest.nodes = [(*node[:3], place[node[3]] if node[2] != "LEAF" else 0, *node[4:]) for node in forest.nodes]
    source = matrices[0] if len(matrices) == 1 else build.add("Concat", matrices, axis=1)
    sums = build.ensemble(source, forest, base)
    if not is_classifier(model):
        link = {"IdentityLink": "Identity", "LogLink": "Exp"}[type(model._loss.link).__name__]
        build.add(link, [sums], output=operator.outputs[0].full_name)
        return
    shares(build, sums, len(base), model.classes_, operator)


def _categories(model: Any) -> dict[int, Any]:
    """Feature to its known categories, in the order of their codes."""
    if model._preprocessor is None:
        return {}
    encoder = model._preprocessor.named_transformers_["encoder"]
    return dict(zip(np.flatnonzero(model.is_categorical_).tolist(), encoder.categories_, strict=True))


class _Sets:
    """Sets of categories that splits ask for, each once."""

    def __init__(self, sizes: dict[int, int]) -> None:
        self._sizes = sizes
        self._found: dict[int, dict[tuple[int, ...], int]] = {feature: {} for feature in sizes}

    def place(self, feature: int, members: tuple[int, ...]) -> int:
        found = self._found[feature]
        return found.setdefault(members, len(found))

    def of(self, feature: int) -> list[list[float]]:
        """For each set a list that says for each category whether it is in it."""
        return [[float(code in members) for code in range(self._sizes[feature])] for members in self._found[feature]]


def _add_tree(
    forest: Forest, number: int, output: int, tree: Any, order: list[int], categories: dict[int, Any], sets: _Sets
) -> None:
    for at, node in enumerate(tree.nodes):
        if node["is_leaf"]:
            forest.leaf(number, at, (output, float(node["value"])))
            continue
        feature, left, right = order[int(node["feature_idx"])], int(node["left"]), int(node["right"])
        missing = bool(node["missing_go_to_left"])
        if not node["is_categorical"]:
            forest.split(number, at, feature, float(node["num_threshold"]), left, right, missing)
            continue
        words = tree.raw_left_cat_bitsets[int(node["bitset_idx"])]
        codes = range(sum(not _null(x) for x in categories[feature]))
        lefts = tuple(code for code in codes if int(words[code // 32]) >> (code % 32) & 1)
        # What is in no set is as missing, and goes where missing values go.
        members = tuple(code for code in codes if code not in lefts) if missing else lefts
        column: Any = (feature, sets.place(feature, members))
        inside, outside = (right, left) if missing else (left, right)
        forest.split(number, at, column, 0.5, outside, inside, False)


def _memberships(build: Builder, inputs: Sequence[Any], feature: int, known: Any, sets: Any) -> str:
    """A column for each set: 1 where the row's category is in it."""
    from skl2onnx.common.data_types import StringTensorType

    texts = any(isinstance(variable.type, StringTensorType) for variable in _at(inputs, feature))
    column = build.columns(inputs, [feature])
    named = [value for value in known if not _null(value)]
    keys = build.constant([named], 8) if texts else build.constant([[float(value) for value in named]])
    same = build.add("Equal", [column, keys], version=19)
    told = build.add("Cast", [same], to=DOUBLE)
    return build.add("MatMul", [told, build.constant(sets[: len(named)])])


def _at(inputs: Sequence[Any], feature: int) -> list[Any]:
    start = 0
    for variable in inputs:
        start += int(variable.type.shape[1])
        if feature < start:
            return [variable]
    return []


def _null(value: Any) -> bool:
    return value is None or value != value
