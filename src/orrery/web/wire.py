"""What goes over the wire of the JSON API: bodies that are understood, answers that are given, and their description.

Bodies refuse unknown fields; every answer has a schema in ``/openapi.json``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Request, Response
from msgspec import Meta

from orrery.errors import NotUnderstood
from orrery.serving.assignment import Assignment
from orrery.timeline.state import Dataset, Issue, Version

T = TypeVar("T")

Why = Annotated[str, Meta(pattern=r"\S", max_length=10_000, description="The reason, for somebody who was not there.")]


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a client sends."""


class ApproveOrder(Body):
    """Yes to what was asked, or the override of a gate that refused."""

    why: Why
    environment: str = ""
    role: str = ""
    gate: str = ""


class RejectOrder(Body):
    """No."""

    why: Why


class AskOrder(Body):
    """A question to the author."""

    why: Why
    environment: str = ""
    role: str = ""


class OverrideOrder(Body):
    """No review, because of an emergency."""

    why: Why
    environment: str = "production"
    emergency: bool = False


class PromoteOrder(Body):
    """Make a version champion, or have it answer a share."""

    why: Why
    environment: str = "production"
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0


class RetireOrder(Body):
    """Take a version out of an environment, or of all."""

    why: Why
    environment: str = ""


class RollbackOrder(Body):
    """Bring the champion before this one back, or a given one."""

    why: Why
    environment: str = "production"
    to: int | None = None


class IssueOrder(Body):
    """A new issue; ``event`` is the number of an event that it is about."""

    title: Annotated[str, Meta(pattern=r"\S", max_length=300)]
    why: Why
    owner: Annotated[str, Meta(max_length=256)] = ""
    version: int | None = None
    event: int | None = None


class CommentOrder(Body):
    """Something said about an issue, which may link it to a version or an event."""

    why: Why
    version: int | None = None
    event: int | None = None


class AssignOrder(Body):
    """Who looks after an issue from now on."""

    why: Why
    owner: Annotated[str, Meta(min_length=1, max_length=256)]


class CloseOrder(Body):
    """Close an issue, or open it again."""

    why: Why


class BusinessEvent(Body):
    """Something that happened in the world around a model."""

    why: Why
    occurred_at: str | None = None
    version: int | None = None
    data: dict[str, Any] = {}


class SecretOrder(Body):
    """The value of a secret."""

    value: Annotated[str, Meta(min_length=8, max_length=65536, description="It is never shown again.")]
    why: Why


class TrainOrder(Body):
    """A training by hand."""

    why: Why
    change: str = "refresh"
    params: dict[str, Any] = {}


class Label(Body):
    """What turned out to be true of one entity; ``at`` is when it became known, now if it does not say."""

    entity: str | int
    label: bool | int | float | str
    at: datetime | None = None


class Labels(Body):
    """Labels of one model."""

    labels: list[Label]


class TakenBack(Body):
    """A version that an inference server took back by itself."""

    since: str
    role: str
    why: str


class DeniedRequests(Body):
    """Requests that an inference server denied: of an account, none where what was shown opens nothing."""

    account: Annotated[str, Meta(max_length=64)]
    model: Annotated[str, Meta(max_length=64)]
    times: Annotated[int, Meta(ge=1)]


class Report(Body):
    """What an inference server has carried out."""

    server: Annotated[str, Meta(min_length=1, max_length=200)]
    applied: int
    failed: dict[str, str] = {}
    served: dict[str, int] = {}
    taken: dict[str, TakenBack] = {}
    denied: list[DeniedRequests] = []


class ClockOrder(Body):
    """Where a replay is to stand."""

    now: str


# --- answers -------------------------------------------------------------------------------------------------------


class Answer(msgspec.Struct, kw_only=True):
    """What a client gets."""


class Failure(Answer):
    """What happened, what was not lost, what to do next."""

    what: str
    safe: str
    todo: str


class Refusal(Answer):
    """Every answer with a status of 400 and above."""

    error: Failure


class EventAnswer(Answer):
    """One event, as ``orrery timeline --json`` prints it."""

    seq: int
    id: str
    occurred_at: str
    recorded_at: str
    model: str
    version: int | None
    environment: str
    kind: str
    actor: str
    why: str
    data: dict[str, Any]
    prev_hash: str
    hash: str


class SecretAnswer(Answer):
    """What is known of a secret."""

    project: str
    name: str
    by: str
    at: str


class Events(Answer):
    """Events in order. ``next`` is the ``before`` (or ``after``) of the next page, null on the last."""

    events: list[EventAnswer]
    next: int | None = None


class ChallengerAnswer(Answer):
    """A version beside the champion."""

    version: int
    role: str
    share: float
    since: datetime
    until: datetime
    decision: str
    looks: int
    evidence: dict[str, Any]
    service: dict[str, Any]


class LaneAnswer(Answer):
    """One environment of a model."""

    environment: str
    champion: int | None
    since: datetime | None
    why: str
    by: str
    challengers: list[ChallengerAnswer]
    alarms: list[str]
    metrics: dict[str, float]
    watched_until: datetime | None


class ServedAt(Answer):
    """What served at an instant, and why."""

    at: datetime
    environments: list[LaneAnswer]


class ModelAnswer(Answer):
    """The state of a model in short."""

    name: str
    seq: int
    task: str
    objective: str
    owner: str
    primary: str
    environments: list[LaneAnswer]
    versions: int
    waiting: int
    issues: int
    running: list[str]


class VersionAnswer(Answer):
    """A version in short."""

    number: int
    at: datetime
    change: str
    commit: str
    run: str
    data: dict[str, int]
    parent: int | None
    why: str
    passed: bool | None
    metrics: dict[str, float]
    rejected: str
    failed: str
    deleted: bool
    entered: dict[str, datetime]
    left: dict[str, str]


class ReviewAnswer(Answer):
    """A question that waits for a person."""

    model: str
    version: int
    environment: str
    role: str
    since: datetime
    until: datetime | None
    overdue: bool
    change: str
    why: str


class DueAnswer(Answer):
    """A step that is due, or being done."""

    key: str
    kind: str
    version: int | None
    environment: str


class ServerAnswer(Answer):
    """An inference server, as it last reported."""

    server: str
    seen: float
    applied: int
    failed: dict[str, str]
    served: dict[str, int]


class StatusAnswer(Answer):
    """Where everything stands. ``seen`` of a server is in seconds ago."""

    settled: bool
    now: datetime
    replay: bool
    head: int
    hash: str
    assignment: int
    processes: list[dict[str, Any]]
    servers: list[ServerAnswer]
    due: dict[str, list[DueAnswer]]


class DataVersion(Answer):
    """One version of a dataset."""

    version: int
    at: datetime
    rows: int
    quarantined: int
    digest: str
    actor: str
    why: str


class AddedAnswer(Answer):
    """What became of rows that were handed in."""

    version: int | None
    rows: int
    quarantined: int
    reasons: dict[str, int]


class LabelsAnswer(Answer):
    """What became of labels that were handed in."""

    new: int
    duplicate: int
    conflicting: int
    unknown: int
    quarantined: int = 0
    reasons: dict[str, int] = {}


class VerdictAnswer(Answer):
    """Whether the chain of events is whole."""

    holds: bool
    events: int
    head: str
    faults: list[str]


class Taken(Answer):
    """It was taken in."""

    ok: bool = True


_TYPES: list[Any] = [
    *(
        ApproveOrder,
        RejectOrder,
        AskOrder,
        OverrideOrder,
        PromoteOrder,
        RetireOrder,
        RollbackOrder,
        BusinessEvent,
        TrainOrder,
        Labels,
        Report,
    ),
    *(IssueOrder, CommentOrder, AssignOrder, CloseOrder),
    *(
        SecretOrder,
        SecretAnswer,
        ClockOrder,
        Refusal,
        Events,
        ModelAnswer,
        VersionAnswer,
        ReviewAnswer,
        StatusAnswer,
        DataVersion,
        AddedAnswer,
    ),
    *(LabelsAnswer, VerdictAnswer, Taken, Assignment, Version, Issue, Dataset, ServedAt),
]


def described(kind: type[T]) -> type[T]:
    """Let a body or answer that is defined with its routes be in the description, too."""
    _TYPES.append(kind)
    return kind


def components() -> dict[str, Any]:
    """Return the schemas of all bodies and answers, for the OpenAPI document."""
    _, found = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return dict(found)


def says(kind: Any, *, many: bool = False, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """Describe what a route answers."""
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{kind.__name__}"}
    if many:
        schema = {"type": "array", "items": schema}
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    return {
        status: {"description": _first_line(kind), "content": {"application/json": {"schema": schema}}},
        "4XX": {"description": "What happened, what was not lost, what to do next.", "content": refusal},
    }


def takes(kind: Any, *others: str) -> dict[str, Any]:
    """Describe what a route reads; ``others`` are content types of tables that it reads as well."""
    content: dict[str, Any] = {other: {"schema": {"type": "string", "format": "binary"}} for other in others}
    if kind is not None:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}, **content}
    return {"requestBody": {"required": True, "content": content}}


async def body_of(request: Request, kind: type[T]) -> T:
    """Read the body of a request.

    Raises
    ------
    NotUnderstood
        If it is not JSON, a field is missing, unknown or of another type.
    """
    return decode(await request.body(), kind)


def decode(content: bytes, kind: type[T]) -> T:
    """Read JSON; raises as :func:`body_of`."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotUnderstood(f"The request cannot be read: {error}.", safe="Nothing was changed.") from error


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def _first_line(kind: Any) -> str:
    return str(kind.__doc__ or kind.__name__).strip().splitlines()[0]
