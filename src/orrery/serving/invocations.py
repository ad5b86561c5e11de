"""MLflow's scoring protocol, ``/invocations``: JSON in four forms, or CSV.

The answer is ``{"predictions": [...]}`` with the model's output: for a binary task the probability of the positive
class, for a multiclass one the list of probabilities, for regression the value. An error is MLflow's, too:
``{"error_code": ..., "message": ...}``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from orrery.errors import NotUnderstood
from orrery.serving.assignment import Slot
from orrery.serving.contract import Columns
from orrery.serving.explaining import about, by_row
from orrery.serving.plain import FAULTS, read_json
from orrery.serving.refusals import WrongKind
from orrery.serving.requests import JSON, Answer, Asked, Cell, Given, Headers, by_column, request
from orrery.serving.tensors import datatype_of

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_SPLIT = {"columns", "data", "index"}
_TRUTH = {"true": True, "false": False}
_MISSING = frozenset({"", "NaN", "nan", "null", "None", "NA", "N/A"})


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    columns: list[str]
    data: list[list[Cell]]
    index: Any = None


class _Usual(msgspec.Struct, forbid_unknown_fields=True):
    """The form that MLflow's own clients send."""

    dataframe_split: _Split


_decode = msgspec.json.Decoder(_Usual).decode


def read(given: Given, slot: Slot, known: Mapping[str, Any]) -> Asked:
    """Return what a body in one of MLflow's forms asks for.

    Raises
    ------
    WrongKind
        If the content type is neither JSON nor CSV, or not in UTF-8.
    NotUnderstood
        If the body is in none of the forms.
    """
    kind = given.kind
    if ";" in (content_type := given.headers.get("content-type", "")):
        _check_parameters(content_type)
    if kind == "text/csv":
        given.check_whole()
        texts = frozenset(name for name, kind in known.items() if datatype_of(kind) == "BYTES")
        return Asked(request(_csv(given.body, texts), given.id), write)
    if kind not in ("application/json", ""):
        raise WrongKind(f"The content type {kind} is not read here.", todo="Send application/json or text/csv.")
    if (usual := _usual(given.body)) is not None:
        return Asked(request(usual, given.id, checked=True), write)
    asked = _read_json(given.body)
    forms = [form for form in FORMS if form in asked] if isinstance(asked, dict) else []
    if len(forms) != 1:
        raise NotUnderstood(
            "The request is in no form that is read here.", todo=f"Send exactly one of {', '.join(FORMS)}."
        )
    columns = _columns(forms[0], asked[forms[0]], known)
    return Asked(request(columns, given.id), write)


def write(answer: Answer) -> tuple[Headers, bytes]:
    """Return MLflow's answer."""
    body: dict[str, Any] = {"predictions": [row[0] if len(row) == 1 else row for row in answer.output]}
    if answer.explanation is not None:
        body["explanation"], body["explained"] = by_row(answer.explanation), about(answer.explanation)
    return [JSON], msgspec.json.encode(body)


def _check_parameters(content_type: str) -> None:
    for parameter in content_type.split(";")[1:]:
        name, _, value = (part.strip() for part in parameter.partition("="))
        if name.lower() != "charset" or value.strip('"').lower() not in ("utf-8", "utf8"):
            raise WrongKind(f"The content type has {parameter.strip()}.", todo="Send UTF-8.")


def _usual(body: bytes) -> Columns | None:
    """Return the columns of a body in the usual form; nothing where it is in another, or something is wrong."""
    try:
        split = _decode(body).dataframe_split
    except FAULTS:
        return None
    names, rows = split.columns, split.data
    columns = dict(zip(names, map(list, zip(*rows, strict=False)), strict=False))
    return columns if len(columns) == len(names) and {len(names)} == set(map(len, rows)) else None


def _read_json(body: bytes) -> Any:
    """Read JSON as Python writes it: a client of MLflow may send NaN, which is a missing value here."""
    try:
        return read_json(body)
    except NotUnderstood:
        if b"NaN" not in body and b"Infinity" not in body:
            raise
    try:
        return json.loads(body, parse_constant=lambda word: None if word == "NaN" else float(word))
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"The request is not JSON: {error}.") from None


def _columns(form: str, content: Any, known: Mapping[str, Any]) -> dict[str, list[Any]]:
    if form == "dataframe_split":
        return _split(content)
    if form != "dataframe_records" and isinstance(content, dict):
        return {name: values if isinstance(values, list) else [values] for name, values in content.items()}
    if not isinstance(content, list):
        raise NotUnderstood(f"{form} is not a list of rows.")
    if form != "dataframe_records" and len(known) == 1 and not any(isinstance(value, dict) for value in content):
        return {next(iter(known)): content}
    return by_column(content)


def _split(content: Any) -> dict[str, list[Any]]:
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise NotUnderstood("dataframe_split needs columns and data.")
    if extra := content.keys() - _SPLIT:
        raise NotUnderstood(f"dataframe_split has {min(extra)}.", todo="Send columns, data and, if you must, index.")
    names = content.get("columns")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NotUnderstood("dataframe_split needs the names of the columns.")
    if len(set(names)) != len(names):
        raise NotUnderstood("A column is there twice in dataframe_split.")
    for row, cells in enumerate(content["data"]):
        if not isinstance(cells, list) or len(cells) != len(names):
            raise NotUnderstood(f"Row {row} does not have {len(names)} values.")
    return {name: [cells[at] for cells in content["data"]] for at, name in enumerate(names)}


def _csv(body: bytes, texts: frozenset[str]) -> dict[str, list[Any]]:
    try:
        rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise NotUnderstood(f"The request is not CSV: {error}.") from None
    rows = [row for row in rows if row]
    if not rows:
        raise NotUnderstood("The CSV is empty.")
    names = rows[0]
    if len(set(names)) != len(names):
        raise NotUnderstood("A column is there twice in the CSV.")
    for number, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise NotUnderstood(f"Row {number} of the CSV does not have {len(names)} values.")
    cells = {name: [_cell(row[at]) for row in rows[1:]] for at, name in enumerate(names)}
    return {name: values if name in texts else _typed(values) for name, values in cells.items()}


def _cell(text: str) -> str | None:
    return None if text in _MISSING else text


def _typed(cells: list[str | None]) -> list[Any]:
    """Return a column of texts as what all of them are: integers, numbers, truth values, or texts."""
    reads: tuple[Callable[[str], Any], ...] = (int, float, lambda text: _TRUTH[text.lower()])
    for read in reads:
        try:
            return [None if cell is None else read(cell) for cell in cells]
        except (ValueError, KeyError):
            continue
    return list(cells)
