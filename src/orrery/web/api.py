"""The JSON API: what can be read. Every answer is described in ``/openapi.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from orrery.errors import NotFound, NotUnderstood
from orrery.settings import Settings
from orrery.timeline.clock import ReplayClock
from orrery.timeline.kinds import KINDS
from orrery.timeline.state import Dataset, Issue, Version
from orrery.timeline.verify import verify
from orrery.types import parse_instant
from orrery.web import reading, wire
from orrery.web.asking import Assigning, Here, known_query
from orrery.web.wire import answer, says

router = APIRouter(prefix="/api", tags=["read"], dependencies=[Depends(known_query)])
MOST = 1000


@router.get("/health", responses=says(wire.Taken))
async def health() -> Response:
    """Say that the control plane answers."""
    return answer(wire.Taken())


@router.get("/models", responses=says(wire.ModelAnswer, many=True))
def models(orrery: Here) -> Response:
    """List all models."""
    return answer([reading.model_answer(orrery, orrery.model(name)) for name in orrery.models()])


@router.get("/models/{model}", responses=says(wire.ModelAnswer))
def model(orrery: Here, model: str) -> Response:
    """Return the state of a model in short."""
    return answer(reading.model_answer(orrery, orrery.model(model)))


@router.get("/models/{model}/versions", responses=says(wire.VersionAnswer, many=True))
def versions(orrery: Here, model: str) -> Response:
    """List the versions of a model, oldest first; deleted ones included."""
    return answer(reading.version_answers(orrery.model(model)))


@router.get("/models/{model}/versions/{number}", responses=says(Version))
def version(orrery: Here, model: str, number: int) -> Response:
    """Return all that is known of a version."""
    found = orrery.model(model).versions.get(number)
    if found is None:
        raise NotFound(f"{model} has no version {number}.")
    return answer(found)


@router.get("/models/{model}/timeline", responses=says(wire.Events))
def timeline(
    orrery: Here,
    model: str,
    at: str = "",
    after: Annotated[int, Query(ge=0)] = 0,
    before: Annotated[int | None, Query(ge=0)] = None,
    kind: Annotated[list[str] | None, Query()] = None,
    version: int | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> Response:
    """Return events: from ``after`` on in order, or else the newest first, with ``before`` for the next page.

    ``at`` leaves out what occurred later.
    """
    orrery.model(model)
    unknown = [one for one in kind or () if one not in KINDS]
    if unknown:
        raise NotUnderstood(f"{unknown[0]!r} is not a kind of event.", todo=f"Known: {', '.join(KINDS)}.")
    forward = after > 0 and before is None
    found = list(
        orrery.timeline.read(
            model,
            after=after,
            before=before,
            until=parse_instant(at) if at else None,
            kinds=kind or (),
            version=version,
            newest_first=not forward,
            limit=limit + 1,
        )
    )
    more, page = len(found) > limit, found[:limit]
    return answer({"events": [event.to_json() for event in page], "next": page[-1].seq if more else None})


@router.get("/models/{model}/at", responses=says(wire.ServedAt))
def served_at(orrery: Here, model: str, at: str) -> Response:
    """Return what served at an instant, and why."""
    orrery.model(model)
    instant = parse_instant(at)
    state = orrery.states.at(model, instant)
    lanes = [reading.lane_answer(lane) for lane in reading.lanes_of(state)]
    return answer(wire.ServedAt(at=instant, environments=lanes))


@router.get("/models/{model}/issues", responses=says(Issue, many=True))
def issues(orrery: Here, model: str) -> Response:
    """List what waits, or waited, for a person; open ones have no ``closed``."""
    return answer(list(orrery.model(model).issues.values()))


@router.get("/reviews", responses=says(wire.ReviewAnswer, many=True))
def reviews(orrery: Here) -> Response:
    """List the reviews that wait, of all models."""
    return answer(reading.reviews(orrery))


@router.get("/data", responses=says(Dataset, many=True))
def data(orrery: Here) -> Response:
    """List the datasets."""
    return answer(list(orrery.datasets().values()))


@router.get("/data/{name}/versions", responses=says(wire.DataVersion, many=True))
def data_versions(orrery: Here, name: str) -> Response:
    """List the versions of a dataset, newest first."""
    if name not in orrery.datasets():
        raise NotFound(f"There is no dataset {name!r}.", todo="GET /api/data lists them.")
    return answer(reading.data_versions(orrery, name))


@router.get("/verify", responses=says(wire.VerdictAnswer))
def verified(orrery: Here, head: str | None = None) -> Response:
    """Check the chain of all events; ``head`` is the hash that the last one is known to have."""
    orrery.allow("audit", "")
    verdict = verify((event.to_json() for event in orrery.timeline.read()), head=head)
    return answer({**asdict(verdict), "holds": verdict.holds})


@router.get("/status", responses=says(wire.StatusAnswer))
def status(orrery: Here, assigner: Assigning) -> Response:
    """Say what runs, what is due, and whether everything has settled.

    Settled means: nothing is due for any model, and every inference server that was heard of in the last seconds serves
    what it should.
    """
    import time

    due = {name: orrery.due(name) for name in orrery.models()}
    assignment, _, _ = assigner.current()
    settled = not any(due.values()) and assigner.applied()
    seq, head = orrery.timeline.head()
    now = time.monotonic()
    servers = [
        wire.ServerAnswer(
            server=one.name,
            seen=round(now - one.seen, 3),
            applied=one.applied,
            failed=one.failed,
            served=one.served,
        )
        for one in assigner.recent()
    ]
    return answer(
        wire.StatusAnswer(
            settled=settled,
            now=orrery.clock.now(),
            replay=isinstance(orrery.clock, ReplayClock),
            head=seq,
            hash=head,
            assignment=assignment.seq,
            processes=_processes(orrery.settings),
            servers=servers,
            due={
                name: [
                    wire.DueAnswer(key=one.key, kind=one.kind, version=one.version, environment=one.environment)
                    for one in actions
                ]
                for name, actions in due.items()
            },
        )
    )


def _processes(settings: Settings) -> list[dict[str, Any]]:
    from orrery.workers.supervisor import processes

    return [asdict(each) for each in processes(settings.home)]
