"""The Open Inference Protocol, version 2, over REST, with the extension for tensors as bytes.

One tensor for each input column, or one for all numeric columns; one for each output. Where tensors come as bytes, the
header ``Inference-Header-Content-Length`` says how many bytes of the body are JSON; the tensors follow in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from orrery.errors import NotUnderstood
from orrery.serving import tensors
from orrery.serving.assignment import Slot
from orrery.serving.explaining import about, wanted
from orrery.serving.requests import JSON, Answer, Asked, Given, Headers, request
from orrery.serving.route import Route

EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "orrery_python"

_HEADER_LENGTH = "inference-header-content-length"
_REFUSED = ("classification", "shared_memory_region")


class Input(msgspec.Struct):
    """One input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Output(msgspec.Struct):
    """One output that the caller wants."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """The body of ``infer``."""

    inputs: list[Input]
    id: str | None = None
    outputs: list[Output] | None = None
    parameters: dict[str, Any] | None = None


class Wish(NamedTuple):
    """An output that the caller wants, and whether as bytes."""

    name: str
    raw: bool


_decode = msgspec.json.Decoder(InferRequest).decode


def read(given: Given, slot: Slot, known: Mapping[str, Any]) -> Asked:
    """Return what a body asks for.

    Raises
    ------
    NotUnderstood
        If the body is not what the protocol asks for; the error names column and row.
    """
    body, raw = given.body, memoryview(b"")
    if (length := given.headers.get(_HEADER_LENGTH)) is not None:
        if not (length.isascii() and length.isdigit()) or int(length) > len(body):
            raise NotUnderstood(f"Inference-Header-Content-Length is {length!r}, and the body has {len(body)} bytes.")
        body, raw = body[: int(length)], memoryview(body)[int(length) :]
    try:
        asked = _decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        raise NotUnderstood(f"The request cannot be read: {'it is nested too deeply' if deep else error}.") from None
    found = []
    for tensor in asked.inputs:
        data = tensor.data
        if data is None:
            data, raw = _cut(tensor, raw)
        found.append(tensors.Tensor(tensor.name, tensor.datatype, tensor.shape, data))
    if raw:
        raise NotUnderstood(f"The body has {len(raw)} bytes more than its tensors.")
    columns = tensors.columns_of(found, known)
    wishes = _wishes(asked, slot)
    understood = request(columns, asked.id or given.id)
    understood.explain = wanted((asked.parameters or {}).get("explain"))
    return Asked(understood, _write_json if wishes is None else partial(_write, wishes=wishes))


def _cut(tensor: Input, raw: memoryview) -> tuple[list[Any], memoryview]:
    """Return a tensor's values, and the bytes after it."""
    parameters = tensor.parameters or {}
    refuse_parameters(tensor.name, parameters)
    size = parameters.get("binary_data_size")
    if size is None:
        raise NotUnderstood(f"Column {tensor.name} has no data.", todo="Send data, or binary_data_size and its bytes.")
    if type(size) is not int or not 0 <= size <= len(raw):
        raise NotUnderstood(f"Column {tensor.name} has binary_data_size {size!r}, and {len(raw)} bytes are left.")
    return tensors.unpacked(tensor.name, tensor.datatype, tensor.shape, raw[:size]), raw[size:]


def refuse_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse a tensor whose parameters ask for what would make it another answer.

    Raises
    ------
    NotUnderstood
        If there are such.
    """
    for word in _REFUSED:
        if word in parameters:
            raise NotUnderstood(f"{name} has the parameter {word}, which is not understood here.")


def _wishes(asked: InferRequest, slot: Slot) -> list[Wish] | None:
    """Return the outputs that a request wants; nothing: all of them as JSON."""
    as_bytes = bool(asked.parameters and asked.parameters.get("binary_data_output"))
    if not asked.outputs:
        return [Wish(name, True) for name, _ in outputs(slot)] if as_bytes else None
    wishes = []
    for output in asked.outputs:
        parameters = output.parameters or {}
        refuse_parameters(output.name, parameters)
        wishes.append(Wish(output.name, bool(parameters.get("binary_data", as_bytes))))
    check([wish.name for wish in wishes], slot)
    return wishes


def check(wanted: Sequence[str], slot: Slot) -> None:
    """Check that the model has the outputs that are wanted.

    Raises
    ------
    NotUnderstood
        If it does not.
    """
    known = [name for name, _ in outputs(slot)]
    for name in wanted:
        if name not in known:
            raise NotUnderstood(f"This model has no output {name}.", todo=f"Ask for {', '.join(known)}.")


def _write_json(answer: Answer) -> tuple[Headers, bytes]:
    return [JSON], msgspec.json.encode(_body(answer, list(answered(answer).values())))


def _write(answer: Answer, wishes: list[Wish]) -> tuple[Headers, bytes]:
    found, written, raw = answered(answer), [], []
    for name, as_bytes in wishes:
        tensor = found[name]
        if as_bytes:
            packed = tensors.packed(tensor["datatype"], tensor["data"])
            raw.append(packed)
            tensor = {word: tensor[word] for word in ("name", "datatype", "shape")}
            tensor["parameters"] = {"binary_data_size": len(packed)}
        written.append(tensor)
    head = msgspec.json.encode(_body(answer, written))
    if not raw:
        return [JSON], head
    headers = [("content-type", "application/octet-stream"), (_HEADER_LENGTH, str(len(head)))]
    return headers, b"".join([head, *raw])


def _body(answer: Answer, written: list[dict[str, Any]]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model_name": answer.slot.model,
        "model_version": str(answer.slot.version),
        "id": answer.request.id,
        "outputs": written,
    }
    if answer.explanation is not None:
        body["outputs"] = [*written, *explained(answer.explanation)]
    if parameters := answer.parameters:
        body["parameters"] = parameters
    return body


def explained(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an explanation as tensors.

    ``contributions`` [rows, columns], for several outputs [rows, outputs, columns], with what holds for all of them as
    parameters; ``base`` [outputs]; and ``columns``, the names.
    """
    shares, base, names = found["contributions"], found["base"], found["columns"]
    shape = [len(shares), len(names)] if len(base) == 1 else [len(shares), len(base), len(names)]
    cells = [one for row in shares for output in row for one in output]
    return [
        {"name": "contributions", "datatype": "FP64", "shape": shape, "data": cells, "parameters": about(found)},
        {"name": "base", "datatype": "FP64", "shape": [len(base)], "data": base},
        {"name": "columns", "datatype": "BYTES", "shape": [len(names)], "data": names},
    ]


def outputs(slot: Slot) -> list[tuple[str, str]]:
    """Return name and datatype of the outputs: ``probability`` and ``prediction``; for regression the latter only."""
    if slot.task == "regression":
        return [("prediction", "FP64")]
    return [("probability", "FP64"), ("prediction", "INT64")]


def answered(answer: Answer) -> dict[str, dict[str, Any]]:
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
    if len(row) == 1:
        value = row[0]
        return None if value is None or value != value else int(value >= 0.5)
    if any(value is None or value != value for value in row):
        return None
    return row.index(max(row))


def describe(route: Route) -> dict[str, Any]:
    """Return the model's metadata."""
    slot, known = route.slot, route.columns
    return {
        "name": slot.model,
        "versions": [str(version) for version in route.versions()],
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": tensors.datatype_of(kind), "shape": [-1]} for name, kind in known.items()
        ],
        "outputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in outputs(slot)],
    }


def _tensor(name: str, datatype: str, rows: list[list[Any]]) -> dict[str, Any]:
    width = len(rows[0])
    shape = [len(rows)] if width == 1 else [len(rows), width]
    return {"name": name, "datatype": datatype, "shape": shape, "data": [value for row in rows for value in row]}
