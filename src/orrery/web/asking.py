"""Who asks, and of which orrery: what routes depend on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from orrery.access.roles import OWNER, Principal
from orrery.app import Orrery
from orrery.errors import NotUnderstood
from orrery.web.assignment import Assigner
from orrery.web.entrance import visitor

ANONYMOUS = "anonymous@loopback"
HEADER = "X-Orrery-Actor"


async def _orrery(request: Request) -> Orrery:
    found = request.app.state.orrery
    assert isinstance(found, Orrery)
    principal = visitor.get().principal
    return found if principal is OWNER else found.acting(principal or Principal(""))


async def _assigner(request: Request) -> Assigner:
    found = request.app.state.assigner
    assert isinstance(found, Assigner)
    return found


async def _actor(request: Request) -> str:
    return actor_named(request.headers.get(HEADER, "").encode("latin-1").decode("utf-8", "replace"))


async def known_query(request: Request) -> None:
    """Refuse parameters of the query that the route does not know.

    Raises
    ------
    NotUnderstood
        If there is one.
    """
    route = request.scope.get("route")
    if isinstance(route, APIRoute):
        known = sorted(field.alias for field in route.dependant.query_params)
        for name in request.query_params:
            if name not in known:
                raise NotUnderstood(
                    f"There is no parameter {name!r} here.", todo=f"Known: {', '.join(known) or 'none'}."
                )


def actor_named(name: str) -> str:
    """Return the name that an act is attributed to.

    Raises
    ------
    NotUnderstood
        If it is longer than 256 characters, or holds what cannot be printed.
    """
    name = name.strip()
    if len(name) > 256 or not name.isprintable():
        raise NotUnderstood("This is not a name.", todo="Use at most 256 printable characters.")
    return name or ANONYMOUS


Here = Annotated[Orrery, Depends(_orrery)]
"""The orrery that is asked, as the principal may see and change it."""
Assigning = Annotated[Assigner, Depends(_assigner)]
"""What the inference servers are told."""
Actor = Annotated[str, Depends(_actor)]
"""Who asks: the header ``X-Orrery-Actor``, which the entrance writes where access is required."""
