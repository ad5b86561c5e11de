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
from orrery.serving.requests import JSON, Answer, Asked, Given, Headers, by_column, request

ARROW = "application/vnd.apache.arrow.stream"

_JSON_KINDS = ("application/json", "", "application/x-www-form-urlencoded")  # the last says curl, if nobody tells it

_decode = msgspec.json.Decoder().decode


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
    if given.kind == ARROW:
        given.check_whole()
        from orrery.serving import tables  # brings Arrow's library along: only who uses it pays for it

        wants_json = given.headers.get("accept", "").strip() == JSON[1]
        return Asked(request(tables.read(given.body), given.id), write if wants_json else tables.write, wants_json)
    if given.kind not in _JSON_KINDS:
        raise WrongKind(f"The content type {given.kind} is not read here.", todo=f"Send {JSON[1]} or {ARROW}.")
    asked = read_json(given.body)
    if isinstance(asked, dict):
        found = request({name: [value] for name, value in asked.items()}, given.id, single=True)
    elif isinstance(asked, list):
        found = request(by_column(asked), given.id)
    else:
        raise NotUnderstood("The request is not an object of columns.", todo='Send {"column": value} or a list of it.')
    if given.headers.get("accept", "").strip() == ARROW:
        from orrery.serving import tables

        return Asked(found, tables.write, False)
    return Asked(found, write)


def write(answer: Answer) -> tuple[Headers, bytes]:
    """Return the plain answer: one value for one row, a list for a list of rows."""
    rows = answer.output
    body: dict[str, Any] = {"id": answer.request.id, "model": answer.slot.model, "version": answer.slot.version}
    if answer.slot.task == "regression":
        body["prediction"] = [row[0] if len(row) == 1 else row for row in rows]
    else:
        body["probability"] = [row[0] if len(row) == 1 else row for row in rows]
        body["prediction"] = [likely(row) for row in rows]
    if answer.explanation is not None:
        body["explanation"] = by_row(answer.explanation)
    if answer.request.single:
        body.update({name: body[name][0] for name in ("probability", "prediction", "explanation") if name in body})
    if answer.explanation is not None:
        body["explained"] = about(answer.explanation)
    if parameters := answer.parameters:
        body["parameters"] = parameters
    return [JSON], msgspec.json.encode(body)
