"""The document that describes the inference server to programs: ``/openapi.json``, in the form of OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from orrery.serving.invocations import FORMS
from orrery.serving.plain import ARROW
from orrery.serving.refusals import CODES
from orrery.serving.tensors import DATATYPES

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_CELL: Json = {"type": ["number", "string", "boolean", "null"]}
_ROW: Json = {"type": "object", "additionalProperties": _CELL, "minProperties": 1}
_ROWS: Json = {"type": "array", "items": _ROW, "minItems": 1}
_NUMBERS: Json = {"type": ["number", "null", "array"]}
_PARAMETERS: Json = {"type": "object"}
_TABLE: Json = {"schema": {"type": "string", "contentEncoding": "binary"}}


def document(version: str) -> Json:
    """Return the description.

    Parameters
    ----------
    version : of orrery.
    """
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    number = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}
    paths: Json = {
        "/v2": _get("What this server is.", _object(name=_TEXT, version=_TEXT, extensions=_list(_TEXT))),
        "/v2/health/live": _get("Whether it runs.", _object(live={"type": "boolean"})),
        "/v2/health/ready": _get("Whether every champion answers.", _object(ready={"type": "boolean"}), "503"),
        "/v2/models": _get("Models that are served.", _object(models=_list(_TEXT))),
        "/ping": _get("Whether every champion answers.", _object(ready={"type": "boolean"}), "503"),
        "/health": _get("Whether every champion answers.", _object(ready={"type": "boolean"}), "503"),
        "/version": _get("The version of orrery.", _TEXT, kind="text/plain"),
        "/metrics": _get("Counters for Prometheus.", _TEXT, kind="text/plain"),
        "/openapi.json": _get("This document.", {"type": "object"}),
        "/invocations": _post("Predictions as MLflow gives them; of the only model.", _mlflow(), _predictions()),
        "/models/{model}/invocations": _post("Predictions as MLflow gives them.", _mlflow(), _predictions()),
        "/models/{model}/predict": _post("Predictions, plainly.", _plain(), _answer()),
    }
    for place in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        paths[place] = _get("Inputs, outputs and versions.", _object(name=_TEXT, versions=_list(_TEXT)), "404", "503")
        paths[place + "/ready"] = _get("Whether it answers.", _object(ready={"type": "boolean"}), "404", "503")
        paths[place + "/infer"] = _post("Predictions by the Open Inference Protocol.", _infer(), _inferred())
    for place, item in paths.items():
        given = [each for each in (model, number) if f"{{{each['name']}}}" in place]
        if given:
            item["parameters"] = given
    return {
        "openapi": "3.1.0",
        "info": {"title": "orrery's inference server", "version": version},
        "servers": [
            {"url": "/", "description": "production"},
            {"url": "/env/{environment}", "variables": {"environment": {"default": "production"}}},
        ],
        "paths": paths,
    }


def _get(what: str, schema: Json, *errors: str, kind: str = "application/json") -> Json:
    responses: Json = {"200": {"description": what, "content": {kind: {"schema": schema}}}}
    for status in errors:
        responses[status] = {"description": "Not so.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"get": {"summary": what, "responses": responses}}


def _post(what: str, content: Json, answer: Json) -> Json:
    refused = _object(error=_TEXT) | {"required": []}
    refused["properties"] |= {"error_code": _TEXT, "message": _TEXT}
    responses: Json = {"200": {"description": "The predictions.", "content": answer}}
    for kind, code in CODES:
        what_for = " ".join((kind.__doc__ or "").split())
        responses[str(code.http)] = {"description": what_for, "content": {"application/json": {"schema": refused}}}
    short = {"type": "string", "maxLength": 200}
    headers = [{"name": name, "in": "header", "schema": short} for name in ("X-Request-Id", "X-Caller")]
    query = {"name": "explain", "in": "query", "schema": {"type": "boolean"}, "description": "Say why, too; in JSON."}
    body = {"required": True, "content": content}
    return {"post": {"summary": what, "parameters": [*headers, query], "requestBody": body, "responses": responses}}


def _object(**fields: Json) -> Json:
    return {"type": "object", "required": list(fields), "properties": fields}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _infer() -> Json:
    shape = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2}
    tensor = _object(name=_TEXT, shape=shape, datatype={"enum": list(DATATYPES)}, data={"type": "array"})
    tensor["properties"]["parameters"] = _PARAMETERS
    body = _object(inputs={"type": "array", "items": tensor, "minItems": 1})
    wanted = _object(name={"enum": ["probability", "prediction"]})
    body["properties"] |= {"id": _TEXT, "parameters": _PARAMETERS, "outputs": _list(wanted)}
    return _json(body)


def _inferred() -> Json:
    tensor = _object(name=_TEXT, shape=_list({"type": "integer"}), datatype=_TEXT)
    return _json(_object(model_name=_TEXT, model_version=_TEXT, id=_TEXT, outputs=_list(tensor)))


def _mlflow() -> Json:
    columns = {"type": "object", "additionalProperties": {"type": "array", "items": _CELL}, "minProperties": 1}
    split = _object(columns=_list(_TEXT), data=_list(_list(_CELL)))
    contents = dict(zip(FORMS, (split, _ROWS, _ROWS, {"anyOf": [columns, _ROWS]}), strict=True))
    return {**_json({"oneOf": [_object(**{form: content}) for form, content in contents.items()]}), "text/csv": _TABLE}


def _predictions() -> Json:
    return _json(_object(predictions=_list(_NUMBERS)))


def _plain() -> Json:
    return {**_json({"anyOf": [_ROW, _ROWS]}), ARROW: _TABLE}


def _answer() -> Json:
    return {**_json(_object(id=_TEXT, model=_TEXT, version={"type": "integer"}, prediction=_NUMBERS)), ARROW: _TABLE}
