"""The addresses of the pages; each is there as HTML and, with ``.json``, as what it shows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from orrery.web.asking import Actor, Here, known_query
from orrery.web.auditpage import audit_page, served_page, who_page
from orrery.web.channelpage import channels_page
from orrery.web.datapage import data_page, dataset_page
from orrery.web.issuepage import issue_page, issues_page, model_issues_page
from orrery.web.modelpage import model_page, orders_page
from orrery.web.overview import projects_page, reviews_page
from orrery.web.privacypage import privacy_page, record_page
from orrery.web.render import show
from orrery.web.versionpage import DONE, commit_page, version_page
from orrery.web.whypage import why_page

router = APIRouter(include_in_schema=False, dependencies=[Depends(known_query)])


@router.get("/")
@router.get("/index.json")
def projects(request: Request, orrery: Here) -> Response:
    """Show all models."""
    return show(request, projects_page(orrery))


@router.get("/reviews")
@router.get("/reviews.json")
def reviews(request: Request, orrery: Here) -> Response:
    """Show what waits for a decision."""
    return show(request, reviews_page(orrery))


@router.get("/issues")
@router.get("/issues.json")
def issues(request: Request, orrery: Here) -> Response:
    """Show what waits for a person."""
    return show(request, issues_page(orrery))


@router.get("/-/privacy")
@router.get("/-/privacy.json")
def privacy(request: Request, orrery: Here) -> Response:
    """Show what was erased, and what is kept for how long."""
    return show(request, privacy_page(orrery))


@router.get("/data")
@router.get("/data.json")
def data(request: Request, orrery: Here) -> Response:
    """Show all datasets."""
    return show(request, data_page(orrery))


@router.get("/data/{name}")
@router.get("/data/{name}.json")
def dataset(request: Request, orrery: Here, actor: Actor, name: str, profile: bool = False) -> Response:
    """Show one dataset."""
    return show(request, dataset_page(orrery, name, profile=profile, actor=actor))


@router.get("/audit")
@router.get("/audit.json")
def audit(
    request: Request,
    orrery: Here,
    by: str = "",
    kind: str = "",
    since: str = "",
    until: str = "",
    before: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """Show who did what."""
    return show(request, audit_page(orrery, by=by, kind=kind, since=since, until=until, before=before))


@router.get("/audit/who")
@router.get("/audit/who.json")
def who(request: Request, orrery: Here, name: str = "", since: str = "", until: str = "") -> Response:
    """Show what one person did."""
    return show(request, who_page(orrery, name, since, until))


@router.get("/{model}/served")
@router.get("/{model}/served.json")
def served(request: Request, orrery: Here, model: str, at: str = "") -> Response:
    """Show what answered at a time, and who let it."""
    return show(request, served_page(orrery, model, at))


@router.get("/{model}/versions/{number}")
@router.get("/{model}/versions/{number}.json")
def version(request: Request, orrery: Here, model: str, number: int, done: str = "") -> Response:
    """Show one version."""
    return show(request, version_page(orrery, model, number, done))


@router.get("/{model}/versions/{number}/why")
@router.get("/{model}/versions/{number}/why.json")
def why(request: Request, orrery: Here, model: str, number: int) -> Response:
    """Show why one version is where it is."""
    return show(request, why_page(orrery, model, number))


@router.get("/{model}/commits/{sha}")
@router.get("/{model}/commits/{sha}.json")
def commit(request: Request, orrery: Here, model: str, sha: str) -> Response:
    """Show one commit."""
    return show(request, commit_page(orrery, model, sha))


@router.get("/{model}/issues")
@router.get("/{model}/issues.json")
def model_issues(request: Request, orrery: Here, model: str, done: str = "") -> Response:
    """Show what waits for a person about a model."""
    return show(request, model_issues_page(orrery, model, DONE.get(done, "")))


@router.get("/{model}/issues/{issue}")
@router.get("/{model}/issues/{issue}.json")
def issue(request: Request, orrery: Here, model: str, issue: str, done: str = "") -> Response:
    """Show one issue."""
    return show(request, issue_page(orrery, model, issue, DONE.get(done, "")))


@router.get("/{model}/channels")
@router.get("/{model}/channels.json")
def channels(request: Request, orrery: Here, model: str) -> Response:
    """Show where a model's news goes."""
    return show(request, channels_page(orrery, model))


@router.get("/{model}/privacy")
@router.get("/{model}/privacy.json")
def record(request: Request, orrery: Here, model: str) -> Response:
    """Show the record of processing of a model."""
    return show(request, record_page(orrery, model))


@router.get("/{model}/orders")
@router.get("/{model}/orders.json")
def orders(request: Request, orrery: Here, model: str, done: str = "") -> Response:
    """Show what can be ordered of a model."""
    return show(request, orders_page(orrery, model, DONE.get(done, "")))


@router.get("/{model}")
@router.get("/{model}.json")
def model(
    request: Request,
    orrery: Here,
    model: str,
    at: str = "",
    kind: str = "",
    before: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """Show one model."""
    return show(request, model_page(orrery, model, at=at, kind=kind, before=before))
