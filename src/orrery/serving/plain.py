"""The plain form: ``{"column": value}`` for one row, a list of such for many, or a table in Arrow's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from orrery.errors import NotUnderstood
from orrery.serving.assignment import Slot
from orrery.serving.explaining import about, by_row
from orrery.serving.open_inference import likely
from orrery.serving.refusals import WrongKind
from orrery.serving.requests import JSON, Answer, Asked, Cell, Given, Headers, by_column, request

ARROW = "application/vnd.apache.arrow.stream"

_JSON_KINDS = ("application/json", "", "application/x-www-form-urlencoded")  # the last says curl, if nobody tells it

FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a text that is not what it should be."""

_decode_usual = msgspec.json.Decoder(dict[str, Cell] | list[dict[str, Cell]]).decode
_decode, _encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode


def read_json(body: bytes) -> Any:
    """Return what a JSON text says.

    Raises
    ------
    NotUnderstood
        If it is not JSON, or nested too deeply.
    """
    try:
        return _decode(body)
    except RecursionError:
        raise NotUnderstood("The request cannot be read: it is nested too deeply.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotUnderstood(f"The request is not JSON: {error}.") from None


def read(given: Given, slot: Slot, known: Mapping[str, Any]) -> Asked:
    """Return what a body asks for; an answer is in Arrow's format if the request is, or if it accepts no other.

    Raises
    ------
    NotUnderstood
        If the body is in another form.
    WrongKind
        If the content type is neither JSON nor Arrow's.
    """
    kind = given.kind
    if kind == ARROW:
        given.check_whole()
        from orrery.serving import tables  # brings Arrow's library along: only who uses it pays for it

        wants_json = given.headers.get("accept", "").strip() == JSON[1]
        return Asked(request(tables.read(given.body), given.id), write if wants_json else tables.write, wants_json)
    if kind not in _JSON_KINDS:
        raise WrongKind(f"The content type {kind} is not read here.", todo=f"Send {JSON[1]} or {ARROW}.")
    checked = True
    try:
        asked = _decode_usual(given.body)
    except FAULTS:
        asked, checked = read_json(given.body), False
    if isinstance(asked, dict):
        columns = {name: [value] for name, value in asked.items()}
        found = request(columns, given.id, single=True, checked=checked)
    elif isinstance(asked, list):
        found = request(by_column(asked), given.id, checked=checked)
    else:
        raise NotUnderstood("The request is not an object of columns.", todo='Send {"column": value} or a list of it.')
    if given.headers.get("accept", "").strip() == ARROW:
        from orrery.serving import tables

        return Asked(found, tables.write, False)
    return Asked(found, write)


def write(answer: Answer) -> tuple[Headers, bytes]:
    """Return the plain answer: one value for one row, a list for a list of rows."""
    request, slot, rows = answer.request, answer.slot, answer.output
    body: dict[str, Any] = {"id": request.id, "model": slot.model, "version": slot.version}
    numbers = [row[0] if len(row) == 1 else row for row in rows]
    if slot.task == "regression":
        body["prediction"] = numbers[0] if request.single else numbers
    else:
        body["probability"] = numbers[0] if request.single else numbers
        body["prediction"] = likely(rows[0]) if request.single else list(map(likely, rows))
    if answer.explanation is not None:
        parts = by_row(answer.explanation)
        body["explanation"] = parts[0] if request.single else parts
        body["explained"] = about(answer.explanation)
    if parameters := answer.parameters:
        body["parameters"] = parameters
    return [JSON], _encode(body)
