"""Finding and erasing a person, by the JSON API and by a page; who it is comes in a body, so it is in no address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse
from msgspec import Meta
from starlette.concurrency import run_in_threadpool

from orrery.app import Orrery
from orrery.errors import NotFound, NotUnderstood
from orrery.web import wire
from orrery.web.asking import Actor, Here, known_query
from orrery.web.forms import Fields, read
from orrery.web.privacypage import erasures, privacy_page
from orrery.web.render import html
from orrery.web.wire import Answer, Body, Why, answer, body_of, says, takes

router = APIRouter(prefix="/api/privacy", tags=["privacy"], dependencies=[Depends(known_query)])
forms = APIRouter(include_in_schema=False)


@wire.described
class SubjectOrder(Body):
    """Who it is, as the data have it, or the pseudonym; the reason must not name them."""

    subject: Annotated[str, Meta(min_length=1, max_length=1000)]
    why: Why


@wire.described
class EraseOrder(SubjectOrder):
    """Who is to be erased; ``dry_run`` only says what would go."""

    dry_run: bool = False


@wire.described
class FoundAnswer(Answer):
    """What is kept of a person, or was erased; ``files`` are those that hold it, or could not be read."""

    subject: str
    rows: int
    tables: list[dict[str, Any]]
    versions: dict[str, list[int]]
    not_searchable: list[str]
    files: list[dict[str, Any]]
    searched: dict[str, int]


@wire.described
class ErasureAnswer(Answer):
    """An erasure that was asked for, and its proof; who it was is not written down."""

    grave: str
    at: Any
    by: str
    why: str
    done: Any
    rows: int
    clean: bool
    proof: dict[str, Any]
    versions: dict[str, list[int]]


@router.get("", responses=says(ErasureAnswer, many=True))
def listed(orrery: Here) -> Response:
    """List the erasures that were asked for, the newest first, and what became of them."""
    orrery.allow("privacy", "")
    return answer([ErasureAnswer(**one) for one in erasures(orrery)])


@router.post("/find", responses=says(FoundAnswer), openapi_extra=takes(SubjectOrder))
async def find(request: Request, orrery: Here, actor: Actor) -> Response:
    """Find everything that is kept of a person. That somebody looked is written down, but not for whom."""
    body = await body_of(request, SubjectOrder)
    return answer(FoundAnswer(**await run_in_threadpool(_done, "find", orrery, body.subject, actor, body.why)))


@router.post("/erase", responses=says(FoundAnswer), openapi_extra=takes(EraseOrder))
async def erase(request: Request, orrery: Here, actor: Actor) -> Response:
    """Erase a person for good, then search every file. Where ``files`` are left, the same order finishes it later."""
    body = await body_of(request, EraseOrder)
    order = "preview" if body.dry_run else "erase"
    return answer(FoundAnswer(**await run_in_threadpool(_done, order, orrery, body.subject, actor, body.why)))


OF_PRIVACY = ("find", "preview", "erase")


@forms.post("/-/privacy/{order}")
async def order_of_privacy(request: Request, orrery: Here, order: str) -> Response:
    """Carry out what the form on the page of personal data says; the page that answers shows what was found."""
    if order not in OF_PRIVACY:
        raise NotFound(f"There is no order {order!r}.")
    form, why, actor = await read(request)
    page = await run_in_threadpool(_page, orrery, order, form, why, actor)
    return HTMLResponse(page, headers={"cache-control": "no-store"})


def _page(orrery: Orrery, order: str, form: Fields, why: str, actor: str) -> str:
    if order == "erase" and form.get("sure") != "yes":
        raise NotUnderstood(
            "What is erased cannot be brought back.", safe="Nothing was erased.", todo="Say that you are sure."
        )
    return html(privacy_page(orrery, found=_done(order, orrery, form.get("subject", ""), actor, why), order=order))


def _done(order: str, orrery: Orrery, subject: str, actor: str, why: str) -> dict[str, Any]:
    """Carry it out, as the command does, and return what was found."""
    from orrery.actions import erase as erasing
    from orrery.actions.desk import Desk

    orrery.allow("privacy", "")
    if not subject.strip():
        raise NotUnderstood("Nobody is named.", safe="Nothing was changed.")
    orders: dict[str, Callable[..., erasing.Found]] = {
        "find": erasing.find,
        "preview": erasing.preview,
        "erase": erasing.erase,
    }
    return erasing.facts(orders[order](Desk(orrery, again=False), subject.strip(), actor=actor, why=why))
