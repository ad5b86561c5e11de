"""Where platforms tell of pushes: ``POST /hooks/MODEL/PLATFORM``. Who asks is proven by the signature alone."""

from __future__ import annotations

import json
import time

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from orrery.access.denials import STRANGER
from orrery.app import Orrery
from orrery.errors import NotFound, NotUnderstood
from orrery.notify.outbox import Delivery, Outbox
from orrery.source.incoming import PLATFORMS, genuine, identity, push_of
from orrery.types import digest
from orrery.web.asking import known_query
from orrery.web.wire import answer

router = APIRouter(prefix="/hooks", include_in_schema=False, dependencies=[Depends(known_query)])


@router.post("/{model}/{platform}")
async def receive(request: Request, model: str, platform: str) -> Response:
    """Take what a platform tells; a push to the branch of the remote is fetched by a worker."""
    orrery = request.app.state.orrery
    assert isinstance(orrery, Orrery)
    headers = {name.lower(): value for name, value in request.headers.items()}
    body = await request.body()
    return await run_in_threadpool(_taken, orrery, model, platform, headers, body)


def _taken(orrery: Orrery, name: str, platform: str, headers: dict[str, str], body: bytes) -> Response:
    remote = orrery.remotes.find(name)
    _, secret = orrery.remotes.opened(name)
    now = time.time()
    # As much work where there is no remote: neither the answer nor its time tells which projects there are.
    if not genuine(platform, headers, body, secret or "no secret", now) or remote is None:
        if remote is not None and platform in PLATFORMS:
            why = f"A webhook of {platform} for {name} was not signed with its secret."
            orrery.denials.note(STRANGER, "webhook", why, project=name)
        raise NotFound(
            "There is no webhook here, or its secret does not fit.",
            safe="Nothing was changed.",
            todo="`orrery remote set` makes one, and shows its secret.",
        )
    try:
        payload = json.loads(body)
    except ValueError:
        raise NotUnderstood(
            "The body is not JSON.", todo="Set the content type of the webhook to application/json."
        ) from None
    push = push_of(platform, headers, payload, remote.branch)
    if push is None:
        return answer({"done": f"Nothing: this is no push to {remote.branch}."}, 200)
    if remote.path != push.repository and not remote.path.endswith(f"/{push.repository}"):
        return answer({"done": "Nothing: this is of another repository than the remote."}, 200)
    id_ = digest(["fetch", name, platform, identity(platform, headers, body)])
    facts = {"commit": push.commit, "actor": push.actor}
    fresh = Outbox(orrery.timeline).add(Delivery(id_, f"fetch/{name}", name, int(now * 1000), facts))
    return answer({"done": f"{push.commit[:7]} is fetched." if fresh else "Nothing: this was told before."}, 202)
