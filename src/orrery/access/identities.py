"""Who signs in elsewhere: which account they are here, and the roles that their groups bring."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from orrery.access import tables
from orrery.access.accounts import NAME, accounts_in, add_link, owner_of, person_behind
from orrery.access.denials import STRANGER
from orrery.access.oidc import Person
from orrery.access.roles import EVERYWHERE, OWNER, Grant, grant
from orrery.errors import NotAllowed, NotUnderstood
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline
from orrery.types import address_mark, format_instant

ACTOR = "orrery/sign-on"
HOLDS = timedelta(days=14)
"""How long a role of a group holds after the sign-in that brought it: tokens of who never comes again end with it."""
_NOBODYS = {STRANGER, OWNER.name}
"""Names that the timeline uses for who has no account."""

Groups = Mapping[str, tuple[Grant, ...]]


def groups_of(text: str) -> Groups:
    """Return group -> roles, as ``ORRERY_OIDC_GROUPS`` says it.

    Raises
    ------
    NotUnderstood
        If a part is not GROUP=ROLE or GROUP=ROLE@PLACE.

    Examples
    --------
    >>> groups_of("staff=viewer; /air/quality=reviewer:quality@team/air")["/air/quality"]
    (Grant(role='reviewer:quality', place='team/air'),)
    """
    found: dict[str, tuple[Grant, ...]] = {}
    for part in (one.strip() for one in text.split(";")):
        group, mark, said = part.rpartition("=")
        if part and not (mark and group.strip()):
            raise NotUnderstood(
                f"ORRERY_OIDC_GROUPS has {part!r}.", todo="Use GROUP=ROLE or GROUP=ROLE@PLACE, with ; between."
            )
        if part:
            role, _, place = said.strip().partition("@")
            found[group.strip()] = (*found.get(group.strip(), ()), grant(role, place or EVERYWHERE))
    return found


class Identities:
    """The accounts of who signs in elsewhere; may be shared by threads.

    Parameters
    ----------
    timeline : where every change is written down, in the same transaction.
    groups : which group brings which roles.
    newcomers : who may come for the first time: ``create``, ``link``, ``both`` or ``none``.
    """

    def __init__(self, timeline: Timeline, groups: Groups, newcomers: str) -> None:
        self._timeline, self._groups, self._newcomers = timeline, groups, newcomers

    def arrive(self, person: Person) -> str:
        """Return the account of who signs in, made or linked where it is their first time; their roles are renewed.

        Raises
        ------
        NotAllowed
            If they have none and get none, or it is disabled.
        """
        with self._timeline.writing() as connection:
            name = self._known(connection, person) or self._first(connection, person)
            account = next(accounts_in(connection, name))
            if account.disabled:
                raise NotAllowed(f"The account {name} is disabled.", todo="An administrator knows why.")
            self._renew(connection, name, person)
        return name

    def _known(self, connection: sa.Connection, person: Person) -> str:
        query = sa.select(tables.identities.c.account).where(tables.identities.c.id == _id(person))
        return connection.execute(query).scalar() or ""

    def _first(self, connection: sa.Connection, person: Person) -> str:
        """Return the account of somebody who was never here: the one with their address, or a new one."""
        name = self._linked(connection, person) if self._newcomers in ("link", "both") else ""
        if name:
            what, why = "identified", f"{person.issuer} has verified an address of {name}."
        elif self._newcomers in ("create", "both"):
            name, what, why = self._made(connection, person), "identified", f"First sign-in at {person.issuer}."
        else:
            raise NotAllowed("You have no account here.", todo="An administrator makes one: `orrery user add`.")
        now = format_instant(datetime.now(UTC))
        row = {"id": _id(person), "issuer": person.issuer, "account": name, "since": now}
        connection.execute(sa.insert(tables.identities).values(row))
        self._tell(connection, "account", why, {"account": name, "change": what, "issuer": person.issuer})
        return name

    def _linked(self, connection: sa.Connection, person: Person) -> str:
        name = owner_of(connection, person.email) if person.email else ""
        account = next(accounts_in(connection, name), None) if name else None
        if account is None or account.kind != "person":
            return ""
        if person.issuer in account.issuers:  # an address that was given to somebody else there
            raise NotAllowed(
                f"The account with your address belongs to somebody else of {person.issuer}.",
                safe="Nothing was changed.",
                todo="An administrator disables it, or takes the address from it.",
            )
        return name

    def _made(self, connection: sa.Connection, person: Person) -> str:
        if not any(group in self._groups for group in person.groups):
            raise NotAllowed("No group of yours opens anything here.", todo="An administrator says which ones do.")
        name = next((one for one in person.names if NAME.fullmatch(one) and one.casefold() not in _NOBODYS), "")
        if not name:
            raise NotAllowed("The provider gives you no name that an account can have.", safe="Nothing was changed.")
        # Two accounts of one person would be four eyes of two; and another's account is not to be had by its name.
        for known in (name, person.email):
            if known and (person_behind(connection, known) != known or any(accounts_in(connection, known))):
                raise NotAllowed(
                    "There is an account with your name or address already.",
                    safe="Nothing was changed.",
                    todo="An administrator lets you have it: `orrery user link` with your address, and "
                    "ORRERY_OIDC_NEWCOMERS=both.",
                )
        now = format_instant(datetime.now(UTC))
        row = {"name": name, "kind": "person", "owner": "", "password": "", "since": now, "disabled": ""}
        connection.execute(sa.insert(tables.accounts).values(row))
        if person.email:
            add_link(connection, name, person.email)
        links = [address_mark(person.email)] if person.email else []
        facts = {"account": name, "change": "added", "account_kind": "person", "owner": "", "links": links}
        self._tell(connection, "account", f"First sign-in at {person.issuer}.", facts)
        return name

    def _renew(self, connection: sa.Connection, name: str, person: Person) -> None:
        """Give the roles of the groups that are named, and take back those of groups that are not."""
        table = tables.group_roles
        brought = {one: group for group in person.groups for one in self._groups.get(group, ())}
        held = connection.execute(sa.select(table).where(table.c.account == name))
        had = {Grant(row.role, row.place): row.until for row in held}
        now = datetime.now(UTC)
        until = format_instant(now + HOLDS)
        connection.execute(sa.delete(table).where(table.c.account == name))
        for one, group in brought.items():
            row = {"account": name, "role": one.role, "place": one.place, "until": until}
            connection.execute(sa.insert(table).values(row))
            if had.get(one, "") <= format_instant(now):
                why = f"Member of {group!r}, says {person.issuer}."
                self._tell(connection, "granted", why, _facts(name, one, given=True, group=group))
        for one in sorted(set(had) - set(brought), key=lambda one: (one.place, one.role)):
            why = f"No group that {person.issuer} names brings it any more."
            self._tell(connection, "granted", why, _facts(name, one, given=False))

    def _tell(self, connection: sa.Connection, kind: str, why: str, data: Mapping[str, object]) -> None:
        self._timeline.append([Draft(kind=kind, actor=ACTOR, why=why, data=dict(data))], connection=connection)


def _facts(name: str, one: Grant, **more: object) -> dict[str, object]:
    return {"account": name, "role": one.role, "place": one.place, **more}


def _id(person: Person) -> str:
    """Return what is stored of who somebody is elsewhere: enough to know them again, and nothing to read."""
    return hashlib.sha256(f"{person.issuer}\n{person.subject}".encode()).hexdigest()
