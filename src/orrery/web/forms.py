"""The forms of the pages: each becomes the same command as on the command line, and comes back with a word about it."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from orrery.access.roles import OWNER
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotFound, NotUnderstood
from orrery.types import parse_share
from orrery.web.asking import Here, actor_named
from orrery.web.channelpage import channels_page
from orrery.web.entrance import visitor
from orrery.web.render import html

router = APIRouter(include_in_schema=False)

Fields = dict[str, str]


def _approve(orrery: Orrery, model: str, number: int, why: str, actor: str, form: Fields) -> None:
    place, role, gate = form.get("environment", ""), form.get("role", ""), form.get("gate", "")
    orrery.approve(model, number, why=why, actor=actor, environment=place, role=role, gate=gate)


def _reject(orrery: Orrery, model: str, number: int, why: str, actor: str, form: Fields) -> None:
    orrery.reject(model, number, why=why, actor=actor)


def _ask(orrery: Orrery, model: str, number: int, why: str, actor: str, form: Fields) -> None:
    place, role = form.get("environment", ""), form.get("role", "")
    orrery.ask_changes(model, number, why=why, actor=actor, environment=place, role=role)


def _override(orrery: Orrery, model: str, number: int, why: str, actor: str, form: Fields) -> None:
    place, said = form.get("environment", "production"), form.get("emergency") == "yes"
    orrery.override(model, number, why=why, actor=actor, environment=place, emergency=said)


def _promote(orrery: Orrery, model: str, number: int, why: str, actor: str, form: Fields) -> None:
    place, share = form.get("environment", "production"), parse_share(form.get("share") or "100%")
    orrery.promote(model, number, why=why, actor=actor, environment=place, share=share)


def _retire(orrery: Orrery, model: str, number: int, why: str, actor: str, form: Fields) -> None:
    orrery.retire(model, number, why=why, actor=actor, environment=form.get("environment", ""))


def _delete(orrery: Orrery, model: str, number: int, why: str, actor: str, form: Fields) -> None:
    orrery.delete(model, number, why=why, actor=actor)


def _rollback(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> None:
    to = form.get("to", "")
    if to and not to.isdigit():
        raise NotUnderstood(f"{to!r} is not a version.")
    orrery.rollback(
        model, why=why, actor=actor, environment=form.get("environment", "production"), to=int(to) if to else None
    )


def _train(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> None:
    orrery.train(model, why=why, actor=actor, change=form.get("change", "refresh"))


def _event(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> None:
    orrery.event(model, why=why, actor=actor, occurred_at=form.get("occurred_at") or None)


def _issue(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> None:
    said = {"owner": form.get("owner", ""), "version": _number(form, "version"), "event": _number(form, "event")}
    orrery.open_issue(model, form.get("title", ""), why=why, actor=actor, **said)  # type: ignore[arg-type]


def _comment(orrery: Orrery, model: str, issue: str, why: str, actor: str, form: Fields) -> None:
    said = {"version": _number(form, "version"), "event": _number(form, "event")}
    orrery.comment_issue(model, issue, why=why, actor=actor, **said)


def _assign(orrery: Orrery, model: str, issue: str, why: str, actor: str, form: Fields) -> None:
    orrery.assign_issue(model, issue, owner=form.get("owner", ""), why=why, actor=actor)


def _close(orrery: Orrery, model: str, issue: str, why: str, actor: str, form: Fields) -> None:
    orrery.close_issue(model, issue, why=why, actor=actor)


def _reopen(orrery: Orrery, model: str, issue: str, why: str, actor: str, form: Fields) -> None:
    orrery.reopen_issue(model, issue, why=why, actor=actor)


def _number(form: Fields, name: str) -> int | None:
    text = form.get(name, "").strip().lstrip("v#")
    if text and not (text.isascii() and text.isdigit() and len(text) < 16):
        raise NotUnderstood(f"{text!r} is not a number.", safe="Nothing was changed.")
    return int(text) if text else None


def _hook(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> tuple[str, str]:
    name, kinds = form.get("name", ""), form.get("kinds", "").replace(",", " ").split() or ["*"]
    _, key = orrery.add_hook(model, name, form.get("url", ""), kinds=kinds, why=why, actor=actor)
    return f"{name} is sent events of {model}.", key


def _chat(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> tuple[str, str]:
    name, about = form.get("name", ""), form.get("about", "all")
    orrery.add_channel(model, name, form.get("url", ""), about=about, why=why, actor=actor)
    return f"{name} is told the news of {model}.", ""


def _try(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> tuple[str, str]:
    name = form.get("name", "")
    return f"{name} was reached: {orrery.test_channel(model, name, actor=actor)}.", ""


def _remove(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> tuple[str, str]:
    orrery.remove_channel(model, form.get("name", ""), why=why, actor=actor)
    return f"{form.get('name')} is told nothing any more.", ""


def _remote(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> tuple[str, str]:
    branch, user, token = form.get("branch") or "main", form.get("user", ""), form.get("token", "")
    made, key = orrery.set_remote(
        model, form.get("url", ""), why=why, actor=actor, branch=branch, user=user, token=token
    )
    return f"{model} comes from {made.branch} of {made.url}.", key


def _leave(orrery: Orrery, model: str, why: str, actor: str, form: Fields) -> tuple[str, str]:
    orrery.remove_remote(model, why=why, actor=actor)
    return f"{model} is fetched from nowhere.", ""


OF_VERSION: dict[str, Callable[[Orrery, str, int, str, str, Fields], None]] = {
    "approve": _approve,
    "reject": _reject,
    "ask": _ask,
    "override": _override,
    "promote": _promote,
    "retire": _retire,
    "delete": _delete,
}
OF_MODEL: dict[str, Callable[[Orrery, str, str, str, Fields], None]] = {
    "rollback": _rollback,
    "train": _train,
    "event": _event,
    "issue": _issue,
}
OF_CHANNEL: dict[str, Callable[[Orrery, str, str, str, Fields], tuple[str, str]]] = {
    "hook": _hook,
    "chat": _chat,
    "test": _try,
    "remove": _remove,
    "remote": _remote,
    "leave": _leave,
}
OF_ISSUE: dict[str, Callable[[Orrery, str, str, str, str, Fields], None]] = {
    "comment": _comment,
    "assign": _assign,
    "close": _close,
    "reopen": _reopen,
}


@router.post("/{model}/versions/{number}/{order}")
async def order_of_version(request: Request, orrery: Here, model: str, number: int, order: str) -> Response:
    """Carry out what a form on a version's page orders."""
    if order not in OF_VERSION:
        raise NotFound(f"There is no order {order!r}.")
    form, why, actor = await read(request)
    await run_in_threadpool(OF_VERSION[order], orrery, model, number, why, actor, form)
    return _back(f"/{model}/versions/{number}", order)


@router.post("/{model}/orders/{order}")
async def order_of_model(request: Request, orrery: Here, model: str, order: str) -> Response:
    """Carry out what a form on a model's page of orders says."""
    if order not in OF_MODEL:
        raise NotFound(f"There is no order {order!r}.")
    form, why, actor = await read(request)
    await run_in_threadpool(OF_MODEL[order], orrery, model, why, actor, form)
    return _back(f"/{model}/{'issues' if order == 'issue' else 'orders'}", order)


@router.post("/{model}/issues/{issue}/{order}")
async def order_of_issue(request: Request, orrery: Here, model: str, issue: str, order: str) -> Response:
    """Carry out what a form on an issue's page says."""
    if order not in OF_ISSUE:
        raise NotFound(f"There is no order {order!r}.")
    form, why, actor = await read(request)
    await run_in_threadpool(OF_ISSUE[order], orrery, model, issue, why, actor, form)
    return _back(f"/{model}/issues/{quote(issue, safe='')}", order)


@router.post("/{model}/channels/{order}")
async def order_of_channels(request: Request, orrery: Here, model: str, order: str) -> Response:
    """Carry out what a form on the page of channels says; the page that answers shows a new key, this once."""
    if order not in OF_CHANNEL:
        raise NotFound(f"There is no order {order!r}.")
    form, why, actor = await read(request)

    def carry_out() -> str:
        said, key = OF_CHANNEL[order](orrery, model, why, actor, form)
        return html(channels_page(orrery, model, said, key))

    return HTMLResponse(await run_in_threadpool(carry_out), headers={"cache-control": "no-store"})


async def read(request: Request) -> tuple[Fields, str, str]:
    """Return the fields of a form, the reason, and who acts.

    Raises
    ------
    NotUnderstood, NotAllowed
        If it is none, or without a reason; or not made for this session.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise NotUnderstood("This address takes forms.", todo="Programs use /api, described in /openapi.json.")
    try:
        text = (await request.body()).decode()
        fields = {name: values[-1] for name, values in parse_qs(text, max_num_fields=50).items()}
    except ValueError as error:
        raise NotUnderstood(f"The form cannot be read: {error}.") from error
    said = visitor.get()
    check_csrf(fields)
    why = fields.pop("why", "").strip()
    if not why:
        raise NotUnderstood(
            "This needs a reason.",
            safe="Nothing was changed.",
            todo="Go back and say why, for somebody who was not there.",
        )
    claimed = actor_named(fields.pop("actor", ""))
    return fields, why, claimed if said.principal is OWNER or said.principal is None else said.principal.name


def check_csrf(fields: Fields) -> None:
    """Refuse a form that was not made for this session.

    Raises
    ------
    NotAllowed
        If it was not.
    """
    shown, expected = fields.pop("csrf", ""), visitor.get().csrf
    if expected and not hmac.compare_digest(shown.encode(), expected.encode()):
        raise NotAllowed("This form is of another session.", safe="Nothing was changed.", todo="Load the page again.")


def _back(path: str, done: str) -> Response:
    return RedirectResponse(f"{path}?{urlencode({'done': done})}", 303)
