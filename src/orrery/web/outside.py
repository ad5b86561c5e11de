"""The JSON API: where a project's news goes, and where its commits come from. Addresses, keys and tokens go in only."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Meta
from starlette.concurrency import run_in_threadpool

from orrery.access.roles import EVERYWHERE
from orrery.app import Orrery
from orrery.web import wire
from orrery.web.asking import Actor, Here, known_query
from orrery.web.channelpage import ChannelAnswer, lines
from orrery.web.wire import Answer, Body, Why, answer, body_of, says, takes

router = APIRouter(prefix="/api", tags=["channels"], dependencies=[Depends(known_query)])
CHANNELS, REMOTE = "/models/{model}/channels", "/models/{model}/remote"

Reason = Annotated[str, Query(pattern=r"\S", max_length=10_000)]
Name = Annotated[str, Meta(min_length=1, max_length=63)]
Address = Annotated[str, Meta(min_length=1, max_length=2000, description="It is never shown again.")]


@wire.described
class ChatOrder(Body):
    """A chat that is told; the address is one of Apprise, which holds secrets."""

    name: Name
    url: Address
    why: Why
    about: str = "all"


@wire.described
class HookOrder(Body):
    """A program that is sent events, of these kinds."""

    url: Address
    why: Why
    name: Name = "webhook"
    kinds: Annotated[tuple[str, ...], Meta(max_length=100)] = ("*",)


@wire.described
class RemoteOrder(Body):
    """Where a project comes from; ``secret`` is that of its webhooks, where the platform makes one of its own."""

    url: Annotated[str, Meta(min_length=1, max_length=2000)]
    why: Why
    branch: Annotated[str, Meta(min_length=1, max_length=200)] = "main"
    user: Annotated[str, Meta(max_length=200)] = ""
    token: Annotated[str, Meta(max_length=20_000, description="It is never shown again.")] = ""
    secret: Annotated[str, Meta(max_length=1000, description="It is never shown again.")] = ""


@wire.described
class RemoteAnswer(Answer):
    """Where a project comes from; ``secret`` is in the answer that made it alone."""

    project: str
    url: str
    branch: str
    user: str
    private: bool
    since: str
    by: str
    hooks: str
    secret: str = ""


@wire.described
class SaidAnswer(Answer):
    """What became of it, in words."""

    said: str


@router.get(CHANNELS, responses=says(ChannelAnswer, many=True))
def channels(orrery: Here, model: str) -> Response:
    """List the chats and webhooks of a project (``*``: of orrery itself), and how it goes with them."""
    if model == EVERYWHERE:
        orrery.allow("operate", EVERYWHERE)
    else:
        orrery.model(model)
    return answer(lines(orrery, model))


@router.post(CHANNELS, status_code=201, responses=says(ChannelAnswer, status=201), openapi_extra=takes(ChatOrder))
async def add_channel(request: Request, orrery: Here, actor: Actor, model: str) -> Response:
    """Tell a chat the news of a project."""
    body = await body_of(request, ChatOrder)

    def add() -> ChannelAnswer:
        orrery.add_channel(model, body.name, body.url, why=body.why, actor=actor, about=body.about)
        return _channel(orrery, model, body.name)

    return answer(await run_in_threadpool(add), 201)


@router.post(
    "/models/{model}/webhooks",
    status_code=201,
    responses=says(ChannelAnswer, status=201),
    openapi_extra=takes(HookOrder),
)
async def add_webhook(request: Request, orrery: Here, actor: Actor, model: str) -> Response:
    """Send the events of a project to a program; the key that they are signed with is in this answer alone."""
    body = await body_of(request, HookOrder)

    def add() -> ChannelAnswer:
        _, secret = orrery.add_hook(model, body.name, body.url, why=body.why, actor=actor, kinds=body.kinds)
        return _channel(orrery, model, body.name, secret)

    return answer(await run_in_threadpool(add), 201)


@router.post(f"{CHANNELS}/{{channel}}/test", status_code=201, responses=says(SaidAnswer, status=201))
def test_channel(orrery: Here, actor: Actor, model: str, channel: str) -> Response:
    """Send something to a chat or webhook now, and say what became of it."""
    return answer(SaidAnswer(said=orrery.test_channel(model, channel, actor=actor)), 201)


@router.delete(f"{CHANNELS}/{{channel}}", responses=says(wire.Taken))
def remove_channel(orrery: Here, actor: Actor, model: str, channel: str, why: Reason) -> Response:
    """Send nothing to a chat or webhook any more, also not what waits."""
    orrery.remove_channel(model, channel, why=why, actor=actor)
    return answer(wire.Taken())


@router.get(REMOTE, responses=says(RemoteAnswer))
def remote(orrery: Here, model: str) -> Response:
    """Tell where a project comes from."""
    orrery.allow("read", model)
    return answer(_remote(orrery, model))


@router.put(REMOTE, status_code=201, responses=says(RemoteAnswer, status=201), openapi_extra=takes(RemoteOrder))
async def set_remote(request: Request, orrery: Here, actor: Actor, model: str) -> Response:
    """Fetch a project from a repository elsewhere; the secret of its webhooks is in this answer alone."""
    body = await body_of(request, RemoteOrder)

    def put() -> RemoteAnswer:
        keys = {"user": body.user, "token": body.token, "secret": body.secret}
        _, secret = orrery.set_remote(model, body.url, why=body.why, actor=actor, branch=body.branch, **keys)  # type: ignore[arg-type]
        return _remote(orrery, model, "" if body.secret else secret)

    return answer(await run_in_threadpool(put), 201)


@router.post(f"{REMOTE}/fetch", status_code=201, responses=says(SaidAnswer, status=201))
def fetch_remote(orrery: Here, actor: Actor, model: str) -> Response:
    """Bring the newest commit of the remote now, and say what became of it."""
    return answer(SaidAnswer(said=orrery.fetch_remote(model, actor=actor)), 201)


@router.delete(REMOTE, responses=says(wire.Taken))
def remove_remote(orrery: Here, actor: Actor, model: str, why: Reason) -> Response:
    """Fetch a project from nowhere any more."""
    orrery.remove_remote(model, why=why, actor=actor)
    return answer(wire.Taken())


def _channel(orrery: Orrery, model: str, name: str, secret: str = "") -> ChannelAnswer:
    found = next(one for one in lines(orrery, model) if one.name == name)
    return msgspec.structs.replace(found, secret=secret)


def _remote(orrery: Orrery, model: str, secret: str = "") -> RemoteAnswer:
    hooks = f"{orrery.settings.public_url}/hooks/{model}"
    return RemoteAnswer(**asdict(orrery.remotes.get(model)), hooks=hooks, secret=secret)
