"""Tensors of the Open Inference Protocol, as JSON lists and as bytes: datatypes, shapes, and how they become columns.

A missing value is null in JSON, and NaN where a tensor comes as bytes. Bytes are little-endian and row by row; a text
is its length in four bytes, and UTF-8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orrery.errors import NotUnderstood
from orrery.serving.contract import Columns


class Datatype(NamedTuple):
    """One datatype.

    Parameters
    ----------
    code : its letter in :mod:`struct`; empty for texts.
    size : bytes of a value.
    fits : what JSON has for it.
    low, high : bounds of a whole number.
    """

    code: str
    size: int
    fits: frozenset[type]
    low: int = 0
    high: int = 0


_NUMBER: frozenset[type] = frozenset({float, int, type(None)})
_WHOLE: frozenset[type] = frozenset({int, type(None)})
DATATYPES: dict[str, Datatype] = {
    "BOOL": Datatype("?", 1, frozenset({bool, type(None)})),
    **{
        f"UINT{8 * size}": Datatype(code, size, _WHOLE, 0, (1 << 8 * size) - 1)
        for code, size in (("B", 1), ("H", 2), ("I", 4), ("Q", 8))
    },
    **{
        f"INT{8 * size}": Datatype(code, size, _WHOLE, -(1 << 8 * size - 1), (1 << 8 * size - 1) - 1)
        for code, size in (("b", 1), ("h", 2), ("i", 4), ("q", 8))
    },
    "FP16": Datatype("e", 2, _NUMBER),
    "BF16": Datatype("f", 2, _NUMBER),
    "FP32": Datatype("f", 4, _NUMBER),
    "FP64": Datatype("d", 8, _NUMBER),
    "BYTES": Datatype("", 0, frozenset({str, type(None)})),
}

_OF_KIND = {
    **{"integer": "INT64", "boolean": "BOOL", "number": "FP64"},
    **{"Boolean": "BOOL", "Float32": "FP32", "Float64": "FP64"},
    **{f"{sign}Int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


def datatype_of(kind: object) -> str:
    """Return the datatype of a column by its type in a contract, or as a model process tells it; of other types, BYTES.

    Examples
    --------
    >>> datatype_of("number"), datatype_of("UInt8"), datatype_of("Datetime(time_unit='us', time_zone='UTC')")
    ('FP64', 'UINT8', 'BYTES')
    """
    return _OF_KIND.get(str(kind), "BYTES")


class Tensor(NamedTuple):
    """One input: ``data`` is flat or a list of rows, and not looked at yet."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: list[Any]


def columns_of(tensors: Sequence[Tensor], known: Mapping[str, Any]) -> Columns:
    """Return the columns that tensors hold: one each; or one tensor ``[n, k]`` holds all numeric ones in their order.

    Parameters
    ----------
    known : columns of the model and their types, in order.

    Raises
    ------
    NotUnderstood
        If a tensor is not what it says; the error names column and row.
    """
    if len(tensors) == 1 and len(tensors[0].shape) == 2 and tensors[0].shape[1] > 1:
        return _spread(tensors[0], known)
    columns: Columns = {}
    for tensor in tensors:
        name, shape = tensor.name, tensor.shape
        if name in columns:
            raise NotUnderstood(f"Column {name} is there twice.")
        if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
            raise NotUnderstood(
                f"Column {name} has the shape {list(shape)}.",
                todo="Send one tensor for each column, [n] or [n, 1], or one [n, k] for all numeric columns.",
            )
        values = tensor.data
        _known(name, tensor.datatype)
        if values and type(values[0]) is list:
            values = _flat(name, values, 1)
        if len(values) != shape[0]:
            raise NotUnderstood(f"Column {name} has the shape {list(shape)} and {len(values)} values.")
        _check(tensor.datatype, values, name, [name])
        columns[name] = values
    return columns


def _spread(tensor: Tensor, known: Mapping[str, Any]) -> Columns:
    """Turn one matrix into the model's numeric columns."""
    rows, width = tensor.shape
    names = [name for name, kind in known.items() if datatype_of(kind) != "BYTES"]
    if width != len(names):
        raise NotUnderstood(
            f"The tensor {tensor.name} has {width} columns, and the model has {len(names)} that are numbers.",
            todo=f"Send them in this order: {', '.join(names)}.",
        )
    values = tensor.data
    if values and type(values[0]) is list:
        values = _flat(tensor.name, values, width)
    if len(values) != rows * width:
        raise NotUnderstood(f"The tensor {tensor.name} has the shape {[rows, width]} and {len(values)} values.")
    _check(tensor.datatype, values, tensor.name, names)
    return {name: values[at::width] for at, name in enumerate(names)}


def _check(kind: str, values: list[Any], name: str, columns: Sequence[str]) -> None:
    """Check a tensor's values, which are of one column or of several in turn."""

    def refusal(at: int) -> NotUnderstood:
        where = f"Column {columns[at % len(columns)]} of row {at // len(columns)}"
        return NotUnderstood(f"{where} holds {_short(values[at])}, which is not {kind}.")

    datatype = _known(name, kind)
    if not datatype.fits.issuperset(map(type, values)):
        at = next(at for at, value in enumerate(values) if type(value) not in datatype.fits)
        raise refusal(at)
    if datatype.high and kind != "INT64":
        for at, value in enumerate(values):
            if value is not None and not datatype.low <= value <= datatype.high:
                raise refusal(at)


def _known(name: str, kind: str) -> Datatype:
    datatype = DATATYPES.get(kind)
    if datatype is None:
        raise NotUnderstood(f"Column {name} has the unknown datatype {kind!r}.", todo=f"Use {', '.join(DATATYPES)}.")
    return datatype


def _flat(name: str, values: list[Any], width: int) -> list[Any]:
    flat: list[Any] = []
    for row, value in enumerate(values):
        if type(value) is not list or len(value) != width:
            what = "one value" if width == 1 else f"{width} values"
            raise NotUnderstood(f"Column {name} of row {row} is not {what}.")
        flat += value
    return flat


def unpacked(name: str, kind: str, shape: Sequence[int], raw: bytes | memoryview) -> list[Any]:
    """Return the values that bytes stand for; NaN becomes null.

    Raises
    ------
    NotUnderstood
        If the bytes are too many or too few, or a text is not UTF-8.

    Examples
    --------
    >>> unpacked("a", "FP32", [2], struct.pack("<2f", 1.5, math.nan))
    [1.5, None]
    """
    datatype = _known(name, kind)
    if kind == "BYTES":
        return _texts(name, raw)
    count = math.prod(shape[:2])
    if not 1 <= len(shape) <= 2 or min(shape) < 0 or len(raw) != count * datatype.size:
        raise NotUnderstood(f"Column {name} has the shape {list(shape)} of {kind}, and {len(raw)} bytes.")
    if kind == "BF16":  # the upper half of an FP32
        raw = b"".join(b"\0\0" + raw[at : at + 2] for at in range(0, len(raw), 2))
    values = struct.unpack(f"<{count}{datatype.code}", raw)
    if datatype.code in "efd":
        return [None if value != value else value for value in values]
    return list(values)


def _texts(name: str, raw: bytes | memoryview) -> list[Any]:
    texts: list[Any] = []
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        if at + 4 + size > len(raw):
            raise NotUnderstood(f"Column {name} of row {len(texts)} ends before its text does.")
        texts.append(text(name, len(texts), raw[at + 4 : at + 4 + size]))
        at += 4 + size
    return texts


def text(name: str, row: int, raw: bytes | memoryview) -> str:
    """Return a text of a column.

    Raises
    ------
    NotUnderstood
        If it is not UTF-8.
    """
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise NotUnderstood(f"Column {name} of row {row} is not UTF-8.") from None


def packed(kind: str, values: Sequence[Any]) -> bytes:
    """Return the bytes of numbers or texts; null becomes NaN, or -1 where they are whole.

    Examples
    --------
    >>> unpacked("p", "INT64", [2], packed("INT64", [1, None]))
    [1, -1]
    """
    found = filled(kind, values)
    if kind == "BYTES":
        return b"".join(len(text).to_bytes(4, "little") + text for text in found)
    return struct.pack(f"<{len(values)}{DATATYPES[kind].code}", *found)


def filled(kind: str, values: Sequence[Any]) -> list[Any]:
    """Return numbers with NaN in place of null, or -1 where they are whole; and texts in UTF-8."""
    if kind == "BYTES":
        return [value.encode() for value in values]
    nothing = math.nan if kind.startswith("FP") else -1
    return [nothing if value is None else value for value in values]


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
