"""The rule of a command stands at the command: whoever calls it, by whatever way they came."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar

from orrery.access.roles import Permission, Principal

Of = Literal["project", "dataset"]


class Guarded(Protocol):
    """What has commands."""

    principal: Principal

    def allow(self, permission: str, name: str, of: Of = "project") -> None:
        """Raise unless the principal may."""


P = ParamSpec("P")
T = TypeVar("T")
G = TypeVar("G", bound=Guarded)


def needs(
    permission: Permission, of: Of = "project"
) -> Callable[[Callable[Concatenate[G, str, P], T]], Callable[Concatenate[G, str, P], T]]:
    """Let a command through only for who has a permission in the project, or for the dataset, that it names first.

    What it does is attributed to the principal, unless that is who owns the files.
    """

    def guard(command: Callable[Concatenate[G, str, P], T]) -> Callable[Concatenate[G, str, P], T]:
        @functools.wraps(command)
        def checked(self: G, name: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
            self.allow(permission, name, of)
            given: dict[str, Any] = kwargs
            if "actor" in given and not self.principal.owner:
                given["actor"] = self.principal.name
            return command(self, name, *args, **kwargs)

        checked.permission = (permission, of)  # type: ignore[attr-defined]
        return checked

    return guard
