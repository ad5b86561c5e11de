"""LightGBM and CatBoost as graphs, read from what each library tells of its trees."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from orrery.training.refusal import NotConvertible
from orrery.training.trees import Builder, Forest, shares


def lightgbm(scope: Any, operator: Any, container: Any) -> None:
    """``LGBMClassifier`` and ``LGBMRegressor``, without splits by categories."""
    from sklearn.base import is_classifier

    model, build = operator.raw_operator, Builder(scope, container)
    told = model.booster_.dump_model()
    width = int(told["num_tree_per_iteration"])
    objective = str(told.get("objective", ""))
    forest = Forest(width)
    for number, tree in enumerate(told["tree_info"]):
        _add_lightgbm(forest, number, number % width, tree["tree_structure"])
    source = build.columns(operator.inputs, range(model.n_features_in_))
    sums = build.ensemble(source, forest, [0.0] * width)
    if "boosting" in told and told["boosting"] == "rf":
        raise NotConvertible("LightGBM's random forests")
    if is_classifier(model):
        if objective.split()[0] not in ("binary", "multiclass") or (width == 1 and "sigmoid:1" not in objective):
            raise NotConvertible(f"LightGBM's objective {objective}")
        shares(build, sums, width, model.classes_, operator)
        return
    links = {"regression": "Identity", "regression_l1": "Identity", "huber": "Identity", "fair": "Identity"}
    links |= {"quantile": "Identity", "poisson": "Exp", "gamma": "Exp", "tweedie": "Exp"}
    name = objective.split()[0]
    if name not in links or "sqrt" in objective:
        raise NotConvertible(f"LightGBM's objective {objective}")
    build.add(links[name], [sums], output=operator.outputs[0].full_name)


def _add_lightgbm(forest: Forest, tree: int, output: int, root: dict[str, Any]) -> None:
    pending, count = [(0, root)], 1
    while pending:
        at, node = pending.pop()
        if "leaf_value" in node:
            forest.leaf(tree, at, (output, float(node["leaf_value"])))
            continue
        if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            raise NotConvertible("LightGBM's splits by categories, and zero as missing")
        threshold = float(node["threshold"])
        # Where no value was missing in training, LightGBM takes a missing one for zero.
        missing = bool(node["default_left"]) if node["missing_type"] == "NaN" else threshold >= 0.0
        forest.split(tree, at, int(node["split_feature"]), threshold, count, count + 1, missing)
        pending += [(count, node["left_child"]), (count + 1, node["right_child"])]
        count += 2


def catboost(scope: Any, operator: Any, container: Any) -> None:
    """``CatBoostClassifier`` and ``CatBoostRegressor`` with symmetric trees, without categories or texts."""
    model, build = operator.raw_operator, Builder(scope, container)
    loss = model.get_all_params()["loss_function"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        told = json.loads(file.read_bytes())
    about = told["features_info"]
    if set(about) - {"float_features"} or "oblivious_trees" not in told:
        raise NotConvertible("CatBoost with categories or texts, or with trees that are not symmetric")
    scale, base = told["scale_and_bias"]
    forest, width = Forest(len(base)), len(base)
    places = [feature["flat_feature_index"] for feature in about["float_features"]]
    as_largest = {f["flat_feature_index"] for f in about["float_features"] if f["nan_value_treatment"] == "AsTrue"}
    for number, tree in enumerate(told["oblivious_trees"]):
        splits = [(places[split["float_feature_index"]], float(split["border"])) for split in tree["splits"] or ()]
        # A row is in the leaf whose number has a bit for each split: whether its value is above the border.
        inner = (1 << len(splits)) - 1
        for at in range(inner):
            depth = (at + 1).bit_length() - 1
            feature, border = splits[len(splits) - 1 - depth]
            forest.split(number, at, feature, border, 2 * at + 1, 2 * at + 2, feature not in as_largest)
        for leaf in range(inner + 1):
            values = tree["leaf_values"][leaf * width : (leaf + 1) * width]
            forest.leaf(number, inner + leaf, *((output, scale * value) for output, value in enumerate(values)))
    source = build.single(build.columns(operator.inputs, range(len(model.feature_names_))))
    sums = build.ensemble(source, forest, base)
    if loss in ("Logloss", "CrossEntropy", "MultiClass"):
        shares(build, sums, width, model.classes_, operator)
    elif loss.partition(":")[0] in ("RMSE", "MAE", "Quantile", "MAPE", "Huber"):
        build.add("Identity", [sums], output=operator.outputs[0].full_name)
    else:
        raise NotConvertible(f"CatBoost's loss {loss}")
