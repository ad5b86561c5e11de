"""The JSON API: secrets of a project. Their names are told; their values go in, and never out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from orrery.web import wire
from orrery.web.asking import Actor, Here, known_query
from orrery.web.wire import answer, body_of, says, takes

router = APIRouter(prefix="/api", tags=["secrets"], dependencies=[Depends(known_query)])
SECRET = "/models/{model}/secrets/{secret}"


@router.get("/models/{model}/secrets", responses=says(wire.SecretAnswer, many=True))
def secrets(orrery: Here, model: str) -> Response:
    """List the secrets of a project: their names, and who set them when."""
    orrery.model(model)
    return answer([wire.SecretAnswer(**asdict(one)) for one in orrery.secrets.all(model)])


@router.put(SECRET, status_code=201, responses=says(wire.Events, status=201), openapi_extra=takes(wire.SecretOrder))
async def set_secret(request: Request, orrery: Here, actor: Actor, model: str, secret: str) -> Response:
    """Set a secret, or put another value in its place; it is never shown again."""
    body = await body_of(request, wire.SecretOrder)
    events = await run_in_threadpool(orrery.set_secret, model, secret, body.value, why=body.why, actor=actor)
    return answer({"events": [event.to_json() for event in events], "next": None}, 201)


@router.delete(SECRET, status_code=201, responses=says(wire.Events, status=201))
def remove_secret(
    orrery: Here, actor: Actor, model: str, secret: str, why: Annotated[str, Query(pattern=r"\S", max_length=10_000)]
) -> Response:
    """Destroy a secret: actions that need it fail from now on."""
    events = orrery.remove_secret(model, secret, why=why, actor=actor)
    return answer({"events": [event.to_json() for event in events], "next": None}, 201)
