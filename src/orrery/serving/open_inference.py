"""The Open Inference Protocol, version 2, over REST: one tensor for each input column, one for each output.

A null in ``data`` is a missing value; that is our extension, the protocol has none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orrery.errors import NotUnderstood
from orrery.serving.assignment import Slot
from orrery.serving.requests import Answer, Request, request

_INTEGERS = frozenset(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
_FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_BY_KIND = {
    **{"integer": "INT64", "boolean": "BOOL", "number": "FP64"},
    **{"Int64": "INT64", "Boolean": "BOOL", "Float64": "FP64"},
}
"""The types of a contract, and those that a model process tells; everything else is text."""


class Tensor(msgspec.Struct):
    """One input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class Wanted(msgspec.Struct):
    """One output that the caller wants."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """The body of ``infer``."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Wanted] | None = None
    parameters: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(InferRequest)


def read(body: bytes, fallback_id: str | None) -> tuple[Request, list[str] | None]:
    """Return the request and the names of the outputs that it wants (nothing: all).

    Raises
    ------
    NotUnderstood
        If the body is not what the protocol asks for; the error names column and row.
    """
    try:
        asked = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotUnderstood(f"The request cannot be read: {_said(error)}") from None
    columns: dict[str, list[Any]] = {}
    for tensor in asked.inputs:
        if tensor.name in columns:
            raise NotUnderstood(f"Column {tensor.name} is there twice.")
        columns[tensor.name] = _values(tensor)
    wanted = [output.name for output in asked.outputs] if asked.outputs else None
    return request(columns, asked.id or fallback_id), wanted


def check(wanted: list[str] | None, slot: Slot) -> None:
    """Check that the model has the outputs that are wanted.

    Raises
    ------
    NotUnderstood
        If it does not.
    """
    known = [name for name, _ in outputs(slot)]
    for name in wanted or ():
        if name not in known:
            raise NotUnderstood(f"This model has no output {name}.", todo=f"Ask for {', '.join(known)}.")


def write(answer: Answer, wanted: list[str] | None) -> bytes:
    """Return the body of the answer, with the outputs that are wanted (nothing: all)."""
    found = tensors(answer)
    body: dict[str, Any] = {
        "model_name": answer.slot.model,
        "model_version": str(answer.slot.version),
        "id": answer.request.id,
        "outputs": [found[name] for name in wanted] if wanted else list(found.values()),
    }
    if parameters := answer.parameters:
        body["parameters"] = parameters
    return msgspec.json.encode(body)


def outputs(slot: Slot) -> list[tuple[str, str]]:
    """Return name and datatype of the outputs: ``probability`` and ``prediction``; for regression the latter only."""
    if slot.task == "regression":
        return [("prediction", "FP64")]
    return [("probability", "FP64"), ("prediction", "INT64")]


def tensors(answer: Answer) -> dict[str, dict[str, Any]]:
    """Return the outputs of an answer by name."""
    rows = answer.output
    return {
        name: _tensor(name, datatype, rows if datatype == "FP64" else [[likely(row)] for row in rows])
        for name, datatype in outputs(answer.slot)
    }


def likely(row: list[Any]) -> int | None:
    """Return the class that a row of probabilities speaks for: for one number, whether it is at least one half.

    Examples
    --------
    >>> likely([0.7]), likely([0.2, 0.5, 0.3]), likely([None])
    (1, 1, None)
    """
    if any(value is None or value != value for value in row):
        return None
    return int(row[0] >= 0.5) if len(row) == 1 else row.index(max(row))


def describe(slot: Slot, columns: dict[str, Any]) -> dict[str, Any]:
    """Return the model's metadata."""
    names = slot.columns or columns
    return {
        "name": slot.model,
        "versions": [str(slot.version)],
        "platform": "orrery_python",
        "inputs": [
            {"name": name, "datatype": _BY_KIND.get(str(kind), "BYTES"), "shape": [-1]} for name, kind in names.items()
        ],
        "outputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in outputs(slot)],
    }


def _tensor(name: str, datatype: str, rows: list[list[Any]]) -> dict[str, Any]:
    width = len(rows[0])
    shape = [len(rows)] if width == 1 else [len(rows), width]
    return {"name": name, "datatype": datatype, "shape": shape, "data": [value for row in rows for value in row]}


def _values(tensor: Tensor) -> list[Any]:
    name, shape, values = tensor.name, tensor.shape, tensor.data
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise NotUnderstood(
            f"Column {name} has the shape {shape}.", todo="Send one tensor for each column: [n] or [n, 1]."
        )
    if values and type(values[0]) is list:
        values = _flat(name, values)
    if len(values) != shape[0]:
        raise NotUnderstood(f"Column {name} has the shape {shape} and {len(values)} values.")
    kind = tensor.datatype
    fits: frozenset[type]
    if kind in _FLOATS:
        fits = frozenset({float, int})
    elif kind in _INTEGERS:
        fits = frozenset({int})
    elif kind == "BOOL":
        fits = frozenset({bool})
    elif kind == "BYTES":
        fits = frozenset({str})
    else:
        raise NotUnderstood(f"Column {name} has the unknown datatype {kind!r}.", todo="Use FP64, INT64, BOOL or BYTES.")
    if not set(map(type, values)) <= fits:
        for row, value in enumerate(values):
            if value is not None and type(value) not in fits:
                raise NotUnderstood(f"Column {name} of row {row} holds {_short(value)}, which is not {kind}.")
    return values


def _flat(name: str, values: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for row, value in enumerate(values):
        if type(value) is not list or len(value) != 1:
            raise NotUnderstood(f"Column {name} of row {row} is not one value.")
        flat.append(value[0])
    return flat


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _said(error: Exception) -> str:
    return "it is nested too deeply." if isinstance(error, RecursionError) else f"{error}."
