"""Converters for estimators whose own ones lack something: exact numbers, nulls in texts, categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from orrery.pipeline.verdict import MISSING


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
    filled = np.asarray(op.statistics_)
    if any(value is None or value != value for value in filled.tolist()):
        raise NotImplementedError("an imputer of a column without any value drops it")
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
        raise NotImplementedError("an imputer of texts that also says where it imputed")
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
        raise NotImplementedError(f"an imputer of {missing!r} instead of nulls")


def own_converters() -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Converters and shape calculators by class, for skl2onnx."""
    from sklearn.impute import SimpleImputer

    return {SimpleImputer: imputer}, {SimpleImputer: imputer_shape}
