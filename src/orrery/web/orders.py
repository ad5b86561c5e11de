"""The JSON API: what can be ordered. Whatever overrides or removes asks for a reason."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from orrery.errors import Conflict, NotUnderstood
from orrery.serving.assignment import Assignment
from orrery.timeline.clock import ReplayClock
from orrery.timeline.event import Event
from orrery.types import parse_instant
from orrery.web import upload, wire
from orrery.web.asking import Actor, Assigning, Here, known_query
from orrery.web.wire import answer, body_of, says, takes

router = APIRouter(prefix="/api", tags=["order"], dependencies=[Depends(known_query)])
VERSION = "/models/{model}/versions/{number}"
ISSUE = "/models/{model}/issues/{issue}"


def _events(found: list[Event]) -> Response:
    return answer({"events": [event.to_json() for event in found], "next": None}, 201)


@router.post(
    f"{VERSION}/approve",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.ApproveOrder),
)
async def approve(request: Request, orrery: Here, actor: Actor, model: str, number: int) -> Response:
    """Say yes to what was asked of a version, or override a gate that refused it."""
    body = await body_of(request, wire.ApproveOrder)
    said = {"environment": body.environment, "role": body.role, "gate": body.gate}
    return _events(await run_in_threadpool(orrery.approve, model, number, why=body.why, actor=actor, **said))


@router.post(
    f"{VERSION}/reject", status_code=201, responses=says(wire.Events, status=201), openapi_extra=takes(wire.RejectOrder)
)
async def reject(request: Request, orrery: Here, actor: Actor, model: str, number: int) -> Response:
    """Say no to a version: its author gets an issue."""
    body = await body_of(request, wire.RejectOrder)
    return _events(await run_in_threadpool(orrery.reject, model, number, why=body.why, actor=actor))


@router.post(
    f"{VERSION}/ask", status_code=201, responses=says(wire.Events, status=201), openapi_extra=takes(wire.AskOrder)
)
async def ask(request: Request, orrery: Here, actor: Actor, model: str, number: int) -> Response:
    """Ask the author for changes: the review waits until the question is closed with an answer."""
    body = await body_of(request, wire.AskOrder)
    said = {"environment": body.environment, "role": body.role}
    return _events(await run_in_threadpool(orrery.ask_changes, model, number, why=body.why, actor=actor, **said))


@router.post(
    f"{VERSION}/override",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.OverrideOrder),
)
async def override(request: Request, orrery: Here, actor: Actor, model: str, number: int) -> Response:
    """In an emergency, let a version go on without its reviews."""
    body = await body_of(request, wire.OverrideOrder)
    place, said = body.environment, body.emergency
    return _events(
        await run_in_threadpool(
            orrery.override, model, number, why=body.why, actor=actor, environment=place, emergency=said
        )
    )


@router.post(
    f"{VERSION}/promote",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.PromoteOrder),
)
async def promote(request: Request, orrery: Here, actor: Actor, model: str, number: int) -> Response:
    """Make a version champion by hand, or have it answer a share; what the environment needs must be fulfilled."""
    body = await body_of(request, wire.PromoteOrder)
    said = {"environment": body.environment, "share": body.share}
    return _events(
        await run_in_threadpool(lambda: orrery.promote(model, number, why=body.why, actor=actor, **said))  # type: ignore[arg-type]
    )


@router.post(
    f"{VERSION}/retire", status_code=201, responses=says(wire.Events, status=201), openapi_extra=takes(wire.RetireOrder)
)
async def retire(request: Request, orrery: Here, actor: Actor, model: str, number: int) -> Response:
    """Take a version out of an environment, or out of all."""
    body = await body_of(request, wire.RetireOrder)
    return _events(
        await run_in_threadpool(orrery.retire, model, number, why=body.why, actor=actor, environment=body.environment)
    )


@router.delete(VERSION, status_code=201, responses=says(wire.Events, status=201))
def delete(
    orrery: Here, actor: Actor, model: str, number: int, why: Annotated[str, Query(pattern=r"\S", max_length=10_000)]
) -> Response:
    """Delete the artifact of a version; its record stays."""
    return _events(orrery.delete(model, number, why=why, actor=actor))


@router.post(
    "/models/{model}/rollback",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.RollbackOrder),
)
async def rollback(request: Request, orrery: Here, actor: Actor, model: str) -> Response:
    """Bring the champion before this one back, or a given earlier one."""
    body = await body_of(request, wire.RollbackOrder)
    return _events(
        await run_in_threadpool(
            orrery.rollback, model, why=body.why, actor=actor, environment=body.environment, to=body.to
        )
    )


@router.post(
    "/models/{model}/issues",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.IssueOrder),
)
async def open_issue(request: Request, orrery: Here, actor: Actor, model: str) -> Response:
    """Open an issue."""
    body = await body_of(request, wire.IssueOrder)
    said = {"owner": body.owner, "version": body.version, "event": body.event}
    return _events(
        await run_in_threadpool(lambda: orrery.open_issue(model, body.title, why=body.why, actor=actor, **said))  # type: ignore[arg-type]
    )


@router.post(
    f"{ISSUE}/comment",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.CommentOrder),
)
async def comment_issue(request: Request, orrery: Here, actor: Actor, model: str, issue: str) -> Response:
    """Say something about an issue."""
    body = await body_of(request, wire.CommentOrder)
    said = {"version": body.version, "event": body.event}
    return _events(
        await run_in_threadpool(lambda: orrery.comment_issue(model, issue, why=body.why, actor=actor, **said))
    )


@router.post(
    f"{ISSUE}/assign",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.AssignOrder),
)
async def assign_issue(request: Request, orrery: Here, actor: Actor, model: str, issue: str) -> Response:
    """Let somebody else look after an issue."""
    body = await body_of(request, wire.AssignOrder)
    return _events(
        await run_in_threadpool(orrery.assign_issue, model, issue, owner=body.owner, why=body.why, actor=actor)
    )


@router.post(
    f"{ISSUE}/close", status_code=201, responses=says(wire.Events, status=201), openapi_extra=takes(wire.CloseOrder)
)
async def close_issue(request: Request, orrery: Here, actor: Actor, model: str, issue: str) -> Response:
    """Close an issue."""
    body = await body_of(request, wire.CloseOrder)
    return _events(await run_in_threadpool(orrery.close_issue, model, issue, why=body.why, actor=actor))


@router.post(
    f"{ISSUE}/reopen", status_code=201, responses=says(wire.Events, status=201), openapi_extra=takes(wire.CloseOrder)
)
async def reopen_issue(request: Request, orrery: Here, actor: Actor, model: str, issue: str) -> Response:
    """Open a closed issue again."""
    body = await body_of(request, wire.CloseOrder)
    return _events(await run_in_threadpool(orrery.reopen_issue, model, issue, why=body.why, actor=actor))


@router.post(
    "/models/{model}/events",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.BusinessEvent),
)
async def event(request: Request, orrery: Here, actor: Actor, model: str) -> Response:
    """Note something that happened in the world around a model."""
    body = await body_of(request, wire.BusinessEvent)
    said = {"occurred_at": body.occurred_at, "version": body.version, "data": body.data}
    return _events(await run_in_threadpool(lambda: orrery.event(model, why=body.why, actor=actor, **said)))  # type: ignore[arg-type]


@router.post(
    "/models/{model}/train",
    status_code=201,
    responses=says(wire.Events, status=201),
    openapi_extra=takes(wire.TrainOrder),
)
async def train(request: Request, orrery: Here, actor: Actor, model: str) -> Response:
    """Ask for a training by hand."""
    body = await body_of(request, wire.TrainOrder)
    return _events(
        await run_in_threadpool(orrery.train, model, why=body.why, actor=actor, change=body.change, params=body.params)
    )


@router.post(
    "/models/{model}/labels",
    status_code=201,
    responses=says(wire.LabelsAnswer, status=201),
    openapi_extra=takes(wire.Labels, *upload.TYPES),
)
async def labels(
    request: Request,
    orrery: Here,
    model: str,
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
    metric: Annotated[str, Query(max_length=63)] = "",
) -> Response:
    """Add labels that have become known: JSON, or a table with the columns ``entity``, ``label`` and ``at``.

    With ``metric``, values of a business metric instead: for entities, or for days (2026-11-20).
    """
    kind = upload.type_of(request)
    if kind == "application/json":
        content = await request.body()
        accepted = await run_in_threadpool(upload.add_labels, orrery, model, content, idempotency_key, metric)
    else:
        async with upload.received(request, kind) as path:
            accepted = await run_in_threadpool(upload.add_label_table, orrery, model, path, idempotency_key, metric)
    return answer(accepted, 201)


@router.post(
    "/data/{name}",
    status_code=201,
    responses=says(wire.AddedAnswer, status=201),
    openapi_extra=takes(None, *upload.TYPES),
)
async def add_data(
    request: Request,
    orrery: Here,
    actor: Actor,
    name: str,
    why: Annotated[str, Query(pattern=r"\S", max_length=10_000)],
    key: Annotated[str, Query(max_length=200)] = "",
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """Add rows to a dataset; those that break its contract are set aside, and the answer says how many and why."""
    async with upload.received(request, upload.type_of(request)) as path:
        added = await run_in_threadpool(
            upload.add_rows, orrery, name, path, why=why, actor=actor, key=key or idempotency_key
        )
    return answer(added, 201)


# --- the inference servers and the replay ----------------------------------------------------------------------------


@router.get("/serving/assignment", responses=says(Assignment), tags=["serving"])
def assignment(
    request: Request, assigner: Assigning, server: str = "", applied: int = -1, failed: str = ""
) -> Response:
    """Return who answers where; 304 when the tag in If-None-Match still holds."""
    _, body, tag = assigner.current()
    if server:
        assigner.seen(server, applied)
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, headers={"ETag": tag}, media_type="application/json")


@router.post("/serving/report", responses=says(wire.Taken), openapi_extra=takes(wire.Report), tags=["serving"])
async def report(request: Request, assigner: Assigning) -> Response:
    """Take the report of an inference server: what it serves, and what it cannot."""
    body = await body_of(request, wire.Report)
    taken = {key: (one.since, one.role, one.why) for key, one in body.taken.items()}
    denied = [(one.account, one.model, one.times) for one in body.denied]
    await run_in_threadpool(assigner.report, body.server, body.applied, body.failed, body.served, taken, denied)
    return answer(wire.Taken())


@router.post("/clock", responses=says(wire.Taken), openapi_extra=takes(wire.ClockOrder), tags=["replay"])
async def clock(request: Request, orrery: Here) -> Response:
    """Move the clock of a replay on. It returns at once; ``GET /api/status`` says when everything has settled."""
    body = await body_of(request, wire.ClockOrder)
    if not isinstance(orrery.clock, ReplayClock):
        raise Conflict("This orrery runs on the time of the machine.", todo="Only a replay has a clock to move.")
    instant = parse_instant(body.now)
    if instant.year < 1970:
        raise NotUnderstood("A replay begins in 1970 at the earliest.")
    await run_in_threadpool(orrery.clock.set, instant)
    return answer(wire.Taken())
