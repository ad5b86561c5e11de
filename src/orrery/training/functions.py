"""Functions of numpy in a pipeline, as graphs: ``FunctionTransformer``, and ``TransformedTargetRegressor``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from orrery.training.refusal import NotConvertible
from orrery.training.trees import DOUBLE, SINGLE, Builder

FUNCTIONS: dict[Any, Callable[[Builder, str], str]] = {
    np.abs: lambda build, x: build.add("Abs", [x]),
    np.cos: lambda build, x: build.add("Cos", [x], version=7),
    np.exp: lambda build, x: build.add("Exp", [x]),
    np.expm1: lambda build, x: build.add("Sub", [build.add("Exp", [x]), build.constant([1.0])]),
    np.log: lambda build, x: build.add("Log", [x]),
    np.log1p: lambda build, x: build.add("Log", [build.add("Add", [x, build.constant([1.0])])]),
    np.reciprocal: lambda build, x: build.add("Reciprocal", [x]),
    np.sign: lambda build, x: build.add("Sign", [x]),
    np.sin: lambda build, x: build.add("Sin", [x], version=7),
    np.sqrt: lambda build, x: build.add("Sqrt", [x]),
    np.square: lambda build, x: build.add("Mul", [x, x]),
    np.tanh: lambda build, x: build.add("Tanh", [x]),
}
"""What a graph computes in double precision, too; each function's other form stands for it (``log(1 + x)``)."""


def function(scope: Any, operator: Any, container: Any) -> None:
    """``FunctionTransformer``."""
    op = operator.raw_operator
    if op.func is None:
        from skl2onnx.operator_converters.function_transformer import convert_sklearn_function_transformer as identity

        identity(scope, operator, container)
        return
    if op.kw_args:
        raise NotConvertible("a function with arguments")
    build = Builder(scope, container)
    width = sum(int(variable.type.shape[1]) for variable in operator.inputs)
    _apply(build, op.func, build.columns(operator.inputs, range(width)), operator)


def function_shape(operator: Any) -> None:
    """As many columns as go in; whole numbers become others."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from skl2onnx.shape_calculators.function_transformer import (
        calculate_sklearn_function_transformer_output_shapes as identity_shape,
    )

    if operator.raw_operator.func is None:
        identity_shape(operator)
        return
    kinds = {type(variable.type) for variable in operator.inputs}
    kind = FloatTensorType if kinds == {FloatTensorType} else DoubleTensorType
    width = sum(int(variable.type.shape[1]) for variable in operator.inputs)
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), width])


def target(scope: Any, operator: Any, container: Any) -> None:
    """``TransformedTargetRegressor``: what the regressor inside says, transformed back."""
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    build, transformer = Builder(scope, container), operator.raw_operator.transformer_
    source = build.columns(operator.inputs, [0])
    if isinstance(transformer, FunctionTransformer):
        if transformer.inv_kw_args:
            raise NotConvertible("a function with arguments")
        _apply(build, transformer.inverse_func, source, operator)
    elif type(transformer) is StandardScaler:
        scale = build.constant(np.ones(1) if transformer.scale_ is None else transformer.scale_)
        mean = build.constant(np.zeros(1) if transformer.mean_ is None else transformer.mean_)
        _give(build, build.add("Add", [build.add("Mul", [source, scale]), mean]), operator)
    else:
        raise NotConvertible(f"a target that was transformed by {type(transformer).__name__}")


def target_parser(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Let skl2onnx go on into the regressor, and put the way back behind it."""
    from skl2onnx._parse import parse_sklearn

    said = parse_sklearn(scope, model.regressor_, inputs, custom_parsers=custom_parsers)
    for variable in said:
        variable.init_status(is_leaf=False)  # it is no output of the graph's
    operator = scope.declare_local_operator("OrreryTransformedTargetRegressor", model)
    operator.inputs.extend(said)
    operator.outputs.append(scope.declare_local_variable("variable", type(said[0].type)()))
    return operator.outputs


def _apply(build: Builder, what: Any, source: str, operator: Any) -> None:
    if what not in (None, *FUNCTIONS):
        raise NotConvertible(f"the function {getattr(what, '__name__', what)}")
    if what is not None:
        found = FUNCTIONS[what](build, source)
        # What comes after it may refuse an infinity, or make a number of it that looks well; NaN stays what it is.
        source = build.add(
            "Where", [build.add("IsInf", [found], version=10), build.constant([np.nan]), found], version=16
        )
    _give(build, source, operator)


def _give(build: Builder, found: str, operator: Any) -> None:
    """Say it in the precision that the rest of the graph expects."""
    from skl2onnx.common.data_types import FloatTensorType

    output = operator.outputs[0]
    build.add("Cast", [found], output=output.full_name, to=SINGLE if type(output.type) is FloatTensorType else DOUBLE)
