"""The socket of trainings: through it a training within walls tracks its runs, and reaches nothing else.

A training has no network. Its walls have a door that leads to this socket in the home folder
(:mod:`orrery.workers.relay`), and behind it there are the runs of its own project
in MLflow, for who shows the pass of a training: also where everything else is open.
"""

from __future__ import annotations

from pathlib import Path

from orrery.access.door import Visitor
from orrery.access.homekey import TRAINING, home_key, trains
from orrery.access.roles import Grant, Principal
from orrery.web.entrance import ACTOR, entrance_of, say, visitor
from orrery.web.guard import App, Receive, Scope, Send
from orrery.web.rules import rule_of


class OfTrainings:
    """The middleware before all others.

    Parameters
    ----------
    app : what is behind it.
    home : the home folder, with the key that passes are made with.
    """

    def __init__(self, app: App, home: Path) -> None:
        self._app, self._home = app, home

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a training to MLflow; requests that come by the network pass, and meet what is behind."""
        if scope["type"] not in ("http", "websocket") or _by_network(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        bearer = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ").strip()
        known = rule_of(scope["method"], scope["path"], scope.get("query_string", b"").decode("latin-1"))
        if known is None or entrance_of(scope["path"]) != "mlflow":
            await say(send, 403, "A training reaches MLflow here, and nothing else.", "Nothing was changed.")
        elif not (project := trains(home_key(self._home), bearer)):
            await say(send, 401, "This is no pass of a training.", "Nothing was changed.")
        else:
            inward = [(name, value) for name, value in scope["headers"] if name != ACTOR]
            token = visitor.set(Visitor(Principal(TRAINING, (Grant("scientist", project),), project=project)))
            try:
                await self._app({**scope, "headers": [*inward, (ACTOR, TRAINING.encode())]}, receive, send)
            finally:
                visitor.reset(token)


def _by_network(scope: Scope) -> bool:
    """Say whether a request came by a port; a Unix socket has none."""
    server = scope.get("server")
    return server is not None and server[1] is not None
