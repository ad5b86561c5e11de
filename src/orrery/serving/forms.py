"""MLflow's ``/invocations`` and the plain form: JSON objects of columns, or CSV.

``/invocations`` answers ``{"predictions": [...]}`` with the model's output: for a binary task the probability of the
positive class, for a multiclass one the list of probabilities, for regression the value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import msgspec

from orrery.errors import NotUnderstood
from orrery.serving.open_inference import likely
from orrery.serving.refusals import WrongKind
from orrery.serving.requests import Answer, Request, by_column, request

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def read_json(body: bytes) -> Any:
    """Return what a JSON text says.

    Raises
    ------
    NotUnderstood
        If it is not JSON, or nested too deeply.
    """
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise NotUnderstood("The request cannot be read: it is nested too deeply.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotUnderstood(f"The request is not JSON: {error}.") from None


def read_invocations(content_type: str, body: bytes, given_id: str | None) -> Request:
    """Return the request in one of MLflow's forms.

    Raises
    ------
    WrongKind
        If the content type is neither JSON nor CSV.
    NotUnderstood
        If the body is in none of the forms.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/csv":
        return request(_csv(body), given_id)
    if kind not in ("application/json", ""):
        raise WrongKind(f"The content type {kind} is not read here.", todo="Send application/json or text/csv.")
    asked = read_json(body)
    given = [form for form in FORMS if form in asked] if isinstance(asked, dict) else []
    if len(given) != 1:
        raise NotUnderstood(
            "The request is in no form that is read here.", todo=f"Send exactly one of {', '.join(FORMS)}."
        )
    content = asked[given[0]]
    if given[0] == "dataframe_split":
        return request(_split(content), given_id)
    if given[0] == "inputs" and isinstance(content, dict):
        return request(_columns(content), given_id)
    if not isinstance(content, list):
        raise NotUnderstood(f"{given[0]} is not a list of rows.")
    return request(by_column(content), given_id)


def write_invocations(answer: Answer) -> bytes:
    """Return MLflow's answer."""
    return msgspec.json.encode({"predictions": [row[0] if len(row) == 1 else row for row in answer.output]})


def read_plain(body: bytes, given_id: str | None) -> Request:
    """Return the request of ``{"column": value}`` or a list of such.

    Raises
    ------
    NotUnderstood
        If it is something else.
    """
    asked = read_json(body)
    if isinstance(asked, dict):
        return request({name: [value] for name, value in asked.items()}, given_id, single=True)
    if isinstance(asked, list):
        return request(by_column(asked), given_id)
    raise NotUnderstood("The request is not an object of columns.", todo='Send {"column": value} or a list of such.')


def write_plain(answer: Answer) -> bytes:
    """Return the plain answer: one value for one row, a list for a list of rows."""
    rows = answer.output
    body: dict[str, Any] = {"id": answer.request.id, "model": answer.slot.model, "version": answer.slot.version}
    if answer.slot.task == "regression":
        body["prediction"] = [row[0] if len(row) == 1 else row for row in rows]
    else:
        body["probability"] = [row[0] if len(row) == 1 else row for row in rows]
        body["prediction"] = [likely(row) for row in rows]
    if answer.request.single:
        body.update({name: body[name][0] for name in ("probability", "prediction") if name in body})
    if parameters := answer.parameters:
        body["parameters"] = parameters
    return msgspec.json.encode(body)


def _split(content: Any) -> dict[str, list[Any]]:
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise NotUnderstood("dataframe_split needs columns and data.")
    names = content.get("columns")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NotUnderstood("dataframe_split needs the names of the columns.")
    if len(set(names)) != len(names):
        raise NotUnderstood("A column is there twice in dataframe_split.")
    for row, cells in enumerate(content["data"]):
        if not isinstance(cells, list) or len(cells) != len(names):
            raise NotUnderstood(f"Row {row} does not have {len(names)} values.")
    return {name: [cells[at] for cells in content["data"]] for at, name in enumerate(names)}


def _columns(content: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: values if isinstance(values, list) else [values] for name, values in content.items()}


def _csv(body: bytes) -> dict[str, list[Any]]:
    try:
        rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise NotUnderstood(f"The request is not CSV: {error}.") from None
    rows = [row for row in rows if row]
    if not rows:
        raise NotUnderstood("The CSV is empty.")
    for number, row in enumerate(rows[1:]):
        if len(row) != len(rows[0]):
            raise NotUnderstood(f"Row {number} of the CSV does not have {len(rows[0])} values.")
    return {name: _typed([row[at] for row in rows[1:]]) for at, name in enumerate(rows[0])}


def _typed(texts: list[str]) -> list[Any]:
    """Return a column of texts as what all of them are: integers, numbers, truth values, or texts; empty is null."""
    truth = {"true": True, "True": True, "false": False, "False": False}
    reads: tuple[Callable[[str], Any], ...] = (int, float, truth.__getitem__)
    for read in reads:
        try:
            return [read(text) if text else None for text in texts]
        except (ValueError, KeyError):
            continue
    return [text or None for text in texts]
