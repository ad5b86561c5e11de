"""Features that are columns of the rows as they come: what answers a request then needs none of the project's code."""

from __future__ import annotations

import ast
from types import FunctionType


def only_selects(function: object, source: bytes | str, rows: str) -> bool:
    """Whether a step does nothing but choose columns, whatever the rows hold.

    Its body is one ``return`` of ``select`` and ``drop`` with names that are written there or are constants of the
    module, perhaps ``to_pandas()`` behind. Anything else that may come to the same is not recognised.

    Parameters
    ----------
    function
        The step.
    source
        Text of its module.
    rows
        Its argument that is the rows.

    Examples
    --------
    >>> only_selects(None, "", "sales")
    False
    """
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and (node.name, node.lineno) == (code.co_name, code.co_firstlineno):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
                return False
            called = body[0].value
            if _method(called) == "to_pandas" and isinstance(called, ast.Call) and not called.args:
                assert isinstance(called.func, ast.Attribute)
                called = called.func.value
            return _chooses(called, function, rows)
    return False


def _chooses(called: ast.expr, function: FunctionType, rows: str) -> bool:
    if isinstance(called, ast.Name):
        return called.id == rows and rows in function.__code__.co_varnames[: function.__code__.co_argcount]
    if _method(called) not in ("select", "drop"):
        return False
    assert isinstance(called, ast.Call) and isinstance(called.func, ast.Attribute)
    return _chooses(called.func.value, function, rows) and all(_names(each, function) for each in called.args)


def _method(called: ast.expr) -> str:
    """The method that is called without keywords, else nothing."""
    if isinstance(called, ast.Call) and isinstance(called.func, ast.Attribute) and not called.keywords:
        return called.func.attr
    return ""


def _names(given: ast.expr, function: FunctionType) -> bool:
    """Whether an argument is names of columns, and always the same."""
    if isinstance(given, ast.Starred):
        return _names(given.value, function)
    if isinstance(given, ast.List | ast.Tuple):
        return all(_names(each, function) for each in given.elts)
    if isinstance(given, ast.Name):
        value = None if given.id in function.__code__.co_varnames else function.__globals__.get(given.id)
        values = value if isinstance(value, list | tuple) else [value]
        return all(isinstance(each, str) for each in values)
    return isinstance(given, ast.Constant) and isinstance(given.value, str)
