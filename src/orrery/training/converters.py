"""Converters for estimators whose own ones lack something: exact numbers, nulls in texts, categories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from orrery.pipeline.verdict import MISSING
from orrery.training.functions import function, function_shape, target, target_parser
from orrery.training.refusal import NotConvertible


def imputer(scope: Any, operator: Any, container: Any) -> None:
    """``SimpleImputer``: in double precision, and for texts, with the text that stands for null."""
    from skl2onnx.common._apply_operation import apply_concat
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
    from skl2onnx.operator_converters.common import concatenate_variables

    op = operator.raw_operator
    kind = type(operator.inputs[0].type)
    source = concatenate_variables(scope, operator.inputs, container)
    texts = issubclass(kind, StringTensorType)
    _require_nulls(op.missing_values)
    if texts and op.missing_values is not None:
        container.add_node("Identity", [source], operator.outputs[0].full_name, op_version=16)
        return  # a null among texts is None, which is not the NaN that it looks for
    filled = np.asarray(op.statistics_)
    if any(value is None or value != value for value in filled.tolist()):
        raise NotConvertible("an imputer of a column without any value drops it")
    fill = scope.get_unique_variable_name("fill")
    missing = scope.get_unique_variable_name("missing")
    if texts:
        container.add_initializer(fill, 8, [1, len(filled)], [str(value).encode() for value in filled])
        mark = scope.get_unique_variable_name("mark")
        container.add_initializer(mark, 8, [1], [MISSING.encode()])
        container.add_node("Equal", [source, mark], missing, op_version=19)
    else:
        double = issubclass(kind, DoubleTensorType)
        container.add_initializer(fill, 11 if double else 1, [1, len(filled)], filled.astype(np.float64).tolist())
        container.add_node("IsNaN", source, missing, op_version=13)
    target = operator.outputs[0].full_name
    if not getattr(op, "indicator_", None):
        container.add_node("Where", [missing, fill, source], target, op_version=16)
        return
    if texts:
        raise NotConvertible("an imputer of texts that also says where it imputed")
    values = scope.get_unique_variable_name("imputed")
    container.add_node("Where", [missing, fill, source], values, op_version=16)
    places = scope.get_unique_variable_name("places")
    container.add_initializer(places, 7, [len(op.indicator_.features_)], op.indicator_.features_.tolist())
    chosen, said = scope.get_unique_variable_name("chosen"), scope.get_unique_variable_name("said")
    container.add_node("Gather", [missing, places], chosen, op_version=13, axis=1)
    container.add_node("Cast", chosen, said, op_version=13, to=11 if double else 1)
    apply_concat(scope, [values, said], target, container, axis=1)


def imputer_shape(operator: Any) -> None:
    """As many columns as it says."""
    op = operator.raw_operator
    kind = type(operator.inputs[0].type)
    count = len(op.statistics_) + (len(op.indicator_.features_) if getattr(op, "indicator_", None) else 0)
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), count])


def _require_nulls(missing: Any) -> None:
    if not (missing is None or missing != missing):
        raise NotConvertible(f"an imputer of {missing!r} instead of nulls")


def register(model: Any) -> None:
    """Make the converters known to skl2onnx, and those of the libraries that a model's parts are of."""
    from skl2onnx import update_registered_converter

    libraries = {type(part).__module__.partition(".")[0] for part in parts(model)}
    known = list(_of_sklearn())
    for library, found in (("lightgbm", _of_lightgbm), ("xgboost", _of_xgboost), ("catboost", _of_catboost)):
        known += found() if library in libraries else ()
    for kind, shape, convert, options in known:
        parser = target_parser if convert is target else None
        alias = f"Orrery{kind.__name__}"
        update_registered_converter(kind, alias, shape, convert, options=options, parser=parser)


Known = tuple[type, Any, Any, dict[str, list[Any]] | None]
"""A class, the shape of its outputs, its converter, and the options that this understands."""

_PROBABILITIES: dict[str, list[Any]] = {"zipmap": [True, False, "columns"], "nocl": [True, False]}
_SUMS: dict[str, list[Any]] = {**_PROBABILITIES, "raw_scores": [True, False]}


def _of_sklearn() -> Iterator[Known]:
    from sklearn import compose, ensemble, preprocessing, tree
    from sklearn.impute import SimpleImputer

    from orrery.training.sklearn_trees import decision_trees, histogram_boosting

    yield SimpleImputer, imputer_shape, imputer, None
    yield preprocessing.FunctionTransformer, function_shape, function, None
    yield compose.TransformedTargetRegressor, regressor_shape, target, None
    yield ensemble.HistGradientBoostingClassifier, classifier_shape, histogram_boosting, _SUMS
    yield ensemble.HistGradientBoostingRegressor, regressor_shape, histogram_boosting, None
    for kind in (tree.DecisionTreeClassifier, ensemble.RandomForestClassifier, ensemble.ExtraTreesClassifier):
        yield kind, classifier_shape, decision_trees, _PROBABILITIES
    for kind in (tree.DecisionTreeRegressor, ensemble.RandomForestRegressor, ensemble.ExtraTreesRegressor):
        yield kind, regressor_shape, decision_trees, None


def _of_lightgbm() -> Iterator[Known]:
    from lightgbm import LGBMClassifier, LGBMRegressor

    from orrery.training.boosters import lightgbm

    yield LGBMClassifier, classifier_shape, lightgbm, _SUMS
    yield LGBMRegressor, regressor_shape, lightgbm, None


def _of_xgboost() -> Iterator[Known]:
    try:
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    except ImportError:
        raise NotConvertible("onnxmltools is not installed, which converts XGBoost") from None
    from xgboost import XGBClassifier, XGBRegressor

    yield XGBClassifier, classifier_shape, convert_xgboost, _PROBABILITIES
    yield XGBRegressor, regressor_shape, convert_xgboost, None


def _of_catboost() -> Iterator[Known]:
    from catboost import CatBoostClassifier, CatBoostRegressor
    from skl2onnx._supported_operators import sklearn_classifier_list

    from orrery.training.boosters import catboost

    if CatBoostClassifier not in sklearn_classifier_list:  # it is no ClassifierMixin
        sklearn_classifier_list.append(CatBoostClassifier)
    yield CatBoostClassifier, classifier_shape, catboost, _SUMS
    yield CatBoostRegressor, regressor_shape, catboost, None


def classifier_shape(operator: Any) -> None:
    """A label and as many probabilities as there are classes, whatever types the columns are of."""
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as shape

    _of_one_input(operator, shape)


def regressor_shape(operator: Any) -> None:
    """One value, whatever types the columns are of."""
    from skl2onnx.common.shape_calculator import calculate_linear_regressor_output_shapes as shape

    _of_one_input(operator, shape)


def _of_one_input(operator: Any, shape: Any) -> None:
    inputs = operator.inputs
    numbers = [each for each in inputs if "String" not in type(each.type).__name__]
    operator.inputs = numbers[:1] or inputs[:1]
    try:
        shape(operator)
    finally:
        operator.inputs = inputs


def parts(model: Any) -> Iterator[Any]:
    """A model and all estimators in it."""
    seen: set[int] = set()
    pending = [model]
    while pending:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, list | tuple):
            pending += thing
        elif hasattr(thing, "get_params") and not isinstance(thing, type):
            yield thing
            pending += vars(thing).values()
