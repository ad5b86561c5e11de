"""The permission table: what each role may do. There is no other place where that is said.

A role is given to an account *somewhere*: in a project, in a team (all projects of it), or everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from orrery.errors import NotUnderstood
from orrery.types import NAME, check_name

Role = Literal["viewer", "scientist", "reviewer", "compliance", "operator", "administrator"]
Permission = Literal[
    "read", "predict", "push", "train", "data", "track", "note", "review", "override", "release", "delete",
    "operate", "audit", "privacy", "accounts", "secrets",
]  # fmt: skip
Entrance = Literal["pages", "api", "git", "mlflow", "inference"]
ROLES: tuple[str, ...] = get_args(Role)
SCOPES: tuple[str, ...] = ("api", "git", "mlflow", "inference")
"""What a token may be made for: an entrance each."""
EVERYWHERE = "*"
TEAM, DATA = "team/", "data/"

_TABLE = """
                viewer scientist reviewer compliance operator administrator
    read          x       x         x         x         x          x
    predict       -       x         -         -         x          x
    push          -       x         -         -         -          x
    train         -       x         -         -         x          x
    data          -       x         -         -         -          x
    track         -       x         -         -         -          x
    note          -       x         x         x         x          x
    review        -       -         x         x         -          x
    override      -       -         -         -         x          x
    release       -       -         -         -         x          x
    delete        -       -         -         x         x          x
    operate       -       -         -         -         x          x
    audit         -       -         -         x         -          x
    privacy       -       -         -         x          -          x
    accounts      -       -         -         -         -          x
    secrets       -       x         -         -         x          x
"""
MEANING: dict[str, str] = {
    "read": "see models, versions, datasets and timelines; clone",
    "predict": "ask the inference server",
    "push": "push commits",
    "train": "ask for a training",
    "data": "add data, labels and values of business metrics",
    "track": "write runs and artifacts with an MLflow client",
    "note": "note an event of the world around the model; open, discuss and close issues",
    "review": "approve and reject versions, ask for changes, override a gate",
    "override": "in an emergency, let a version in without its reviews, where the policy allows it",
    "release": "promote, roll back and retire versions",
    "delete": "delete a version's files",
    "operate": "see processes and what is due, move the clock of a replay",
    "audit": "read and check the whole chain of events",
    "privacy": "find what is kept of a person, erase it",
    "accounts": "add and disable accounts, give and take roles, make and revoke the keys of others",
    "secrets": "set and remove the secrets of a project; never read them",
}


def _read(text: str) -> dict[str, frozenset[str]]:
    head, *rows = (line.split() for line in text.strip().splitlines())
    return {row[0]: frozenset(role for role, mark in zip(head, row[1:], strict=True) if mark == "x") for row in rows}


ALLOWED: dict[str, frozenset[str]] = _read(_TABLE)
"""Permission -> the roles that have it."""


@dataclass(frozen=True)
class Grant:
    """A role, and where it holds.

    Parameters
    ----------
    role : one of :data:`ROLES`; a reviewer or compliance may be bound to one sign-off, as in ``reviewer:quality``.
    place : a project, ``team/NAME``, ``data/NAME`` (a dataset of a team), or ``*`` for everywhere.
    """

    role: str
    place: str = EVERYWHERE

    @property
    def kind(self) -> str:
        """The role without the sign-off that it is bound to."""
        return self.role.partition(":")[0]

    def holds(self, project: str, team: str) -> bool:
        """Say whether it holds in a project of a team."""
        return self.place in (EVERYWHERE, project or EVERYWHERE, f"{TEAM}{team}" if team else EVERYWHERE)


def grant(role: str, place: str = EVERYWHERE) -> Grant:
    """Return the grant that two words say.

    Raises
    ------
    NotUnderstood
        If the role is unknown, or the place is not one.
    """
    kind, mark, sign_off = role.partition(":")
    if kind not in ROLES or (mark and kind not in ("reviewer", "compliance")):
        raise NotUnderstood(
            f"There is no role {role!r}.",
            todo=f"Use one of {', '.join(ROLES)}; a reviewer may be bound to a sign-off: reviewer:quality.",
        )
    if mark:
        check_name(sign_off, "sign-off")
    if place != EVERYWHERE:
        check_name(place.removeprefix(TEAM).removeprefix(DATA), "project or team")
    return Grant(role, place)


@dataclass(frozen=True)
class Principal:
    """Who asks something of the control plane, and what they may do.

    Parameters
    ----------
    name : the account that acts are attributed to.
    grants : its roles.
    teams : project, or ``data/NAME`` -> team.
    project : the one project that the key which was shown is for; empty for all.
    owner : whether it is who owns the files, and is stopped by nothing here.
    key : id of the key that was shown.
    until : when some of the roles end by themselves; nothing where they do not.
    """

    name: str
    grants: tuple[Grant, ...] = ()
    teams: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    owner: bool = False
    key: str = ""
    until: datetime | None = None

    def may(self, permission: str, project: str = "") -> bool:
        """Say whether a permission is given in a project; without one: everywhere.

        Examples
        --------
        >>> mara = Principal("mara", (Grant("reviewer", "team/flights"),), {"flight-delay": "flights"})
        >>> mara.may("review", "flight-delay"), mara.may("release", "flight-delay"), mara.may("review", "tides")
        (True, False, False)
        """
        if self.owner:
            return True
        if self.project and self.project != project:
            return False
        roles = ALLOWED[permission]
        team = self.teams.get(project, "") if project else ""
        return any(one.kind in roles and one.holds(project, team) for one in self.grants)

    def may_data(self, permission: str, dataset: str) -> bool:
        """Say whether a permission is given for a dataset: one without a team is common to all who have it anywhere."""
        team = self.teams.get(f"{DATA}{dataset}", "")
        if self.owner or not team:
            return self.anywhere(permission)
        if self.project and self.teams.get(self.project) != team:
            return False
        roles = ALLOWED[permission]
        return any(one.kind in roles and one.holds(f"{DATA}{dataset}", team) for one in self.grants)

    def may_sign(self, sign_off: str, project: str) -> bool:
        """Say whether a review in a role such as ``quality`` may be answered; any reviewer answers one without."""
        if self.owner:
            return True
        team = self.teams.get(project, "")
        fits = (one for one in self.grants if one.kind in ALLOWED["review"] and one.holds(project, team))
        return self.may("review", project) and any(one.role in (one.kind, f"{one.kind}:{sign_off}") for one in fits)

    def projects(self, permission: str) -> frozenset[str] | None:
        """Return the projects in which a permission is given; nothing where it is given everywhere.

        Examples
        --------
        >>> Principal("mara", (Grant("viewer", "team/flights"),), {"flight-delay": "flights"}).projects("read")
        frozenset({'flight-delay'})
        """
        if self.may(permission):
            return None
        known = {self.project, *self.teams, *(one.place for one in self.grants)}
        return frozenset(one for one in known if one and NAME.fullmatch(one) and self.may(permission, one))

    def anywhere(self, permission: str) -> bool:
        """Say whether a permission is given in some project, whichever."""
        return self.owner or any(one.kind in ALLOWED[permission] for one in self.grants)


OWNER = Principal("owner", owner=True)
"""Who opens the home folder: nothing in it can be kept from them."""
