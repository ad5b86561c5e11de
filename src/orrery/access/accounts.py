"""Accounts: people and services, the names that belong to them, their roles and teams."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa

from orrery.access import tables
from orrery.access.passwords import fits, hashed
from orrery.access.roles import DATA, EVERYWHERE, Grant, Principal, grant
from orrery.errors import Conflict, NotAllowed, NotFound, NotUnderstood
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline
from orrery.types import address_mark, check_name, format_instant, parse_instant

Kind = Literal["person", "service"]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}")
_LINK = re.compile(r"[^\s<>](?:[^<>\r\n\t]{0,318}[^\s<>])?")


@dataclass(frozen=True)
class Account:
    """A person or a service.

    Parameters
    ----------
    name : what acts are attributed to.
    kind : ``person`` or ``service``.
    owner : of a service, the person who answers for it.
    since, disabled : when it was added, and when it was disabled; empty if it was not.
    has_password : whether one was chosen.
    links : addresses and other names of the same person.
    grants : its roles.
    by_groups : those of them that its groups at the provider of identities bring.
    issuers : providers of identities that know this person.
    until : when roles of groups end unless they sign in again; empty where there are none.
    """

    name: str
    kind: str
    owner: str
    since: str
    disabled: str
    has_password: bool
    links: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    by_groups: tuple[Grant, ...] = ()
    issuers: tuple[str, ...] = ()
    until: str = ""


class Accounts:
    """The accounts of one orrery; may be shared by threads.

    Parameters
    ----------
    timeline : where every change is written down, in the same transaction.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    # --- reading ---------------------------------------------------------------------------------------------------

    def all(self) -> list[Account]:
        """Return all accounts, by name."""
        with self._timeline.reading() as connection:
            return list(accounts_in(connection))

    def get(self, name: str) -> Account:
        """Return an account.

        Raises
        ------
        NotFound
            If there is none of this name.
        """
        with self._timeline.reading() as connection:
            found = next(accounts_in(connection, name), None)
        if found is None:
            raise NotFound(f"There is no account {name!r}.", todo="`orrery user list` names them.")
        return found

    def principal(self, name: str, *, project: str = "", key: str = "") -> Principal | None:
        """Return what an account may do; nothing if there is none, or it is disabled.

        Parameters
        ----------
        project, key : of the key that was shown.
        """
        with self._timeline.reading() as connection:
            account = next(accounts_in(connection, name), None)
            teams = {row.project: row.team for row in connection.execute(sa.select(tables.teams))}
        if account is None or account.disabled:
            return None
        until = parse_instant(account.until) if account.until else None
        return Principal(account.name, account.grants, teams, project, key=key, until=until)

    def person(self, name: str) -> str:
        """Return who is behind a name: an account, an address, the author of a commit, a service; else the name.

        Names are the same whatever the case of their letters.
        """
        with self._timeline.reading() as connection:
            return person_behind(connection, name)

    def teams(self) -> dict[str, str]:
        """Return project, or ``data/NAME`` for a dataset -> team."""
        with self._timeline.reading() as connection:
            rows = connection.execute(sa.select(tables.teams).order_by(tables.teams.c.project))
            return {row.project: row.team for row in rows}

    def fits(self, name: str, password: str) -> bool:
        """Say whether this is the password of an account that is not disabled; takes as long if there is none."""
        query = sa.select(tables.accounts.c.password).where(tables.accounts.c.name == name)
        with self._timeline.reading() as connection:
            stored = connection.execute(query.where(tables.accounts.c.disabled == "")).scalar()
        return fits(stored or "", password)

    def mark(self, name: str) -> str:
        """Return what changes with the password, and when the account is disabled; empty without a password."""
        query = sa.select(tables.accounts.c.password).where(tables.accounts.c.name == name)
        with self._timeline.reading() as connection:
            stored = connection.execute(query.where(tables.accounts.c.disabled == "")).scalar()
        return hashlib.sha256(stored.encode()).hexdigest() if stored else ""

    # --- changes ---------------------------------------------------------------------------------------------------

    def add(
        self, name: str, *, by: str, why: str, kind: Kind = "person", owner: str = "", links: Sequence[str] = ()
    ) -> Account:
        """Add an account; it has no role yet.

        Raises
        ------
        Conflict
            If the name, or one of the links, is somebody's already.
        NotUnderstood
            If the name cannot be one, or a service has no owner.
        NotFound
            If the owner is no person here.
        """
        if not NAME.fullmatch(name):
            raise NotUnderstood(
                f"{name!r} cannot be the name of an account.",
                todo="Use letters, digits and . _ @ -, beginning with a letter, digit or _; 64 at most.",
            )
        if (kind == "service") != bool(owner):
            raise NotUnderstood("A service needs an owner: the person who answers for it; a person has none.")
        with self._timeline.writing() as connection:
            if next(accounts_in(connection, name), None) or owner_of(connection, name):
                raise Conflict(f"{name!r} is somebody's name already.", safe="Nothing was changed.")
            if owner and not any(one.kind == "person" and not one.disabled for one in accounts_in(connection, owner)):
                raise NotFound(f"There is no person {owner!r} to own it.")
            now = format_instant(datetime.now(UTC))
            row = {"name": name, "kind": kind, "owner": owner, "password": "", "since": now, "disabled": ""}
            connection.execute(sa.insert(tables.accounts).values(row))
            for link in links:
                add_link(connection, name, link)
            told = [_told(link) for link in links]
            facts = {"account": name, "change": "added", "account_kind": kind, "owner": owner, "links": told}
            self._tell(connection, "account", by, why, facts)
        return self.get(name)

    def link(self, name: str, link: str, *, by: str, why: str) -> None:
        """Say that an address, the name of an author or another account belongs to the same person.

        Raises
        ------
        NotFound
            If there is no such account.
        Conflict
            If it belongs to another person.
        """
        with self._timeline.writing() as connection:
            _there(connection, name)
            add_link(connection, name, link)
            self._tell(connection, "account", by, why, {"account": name, "change": "linked", "link": _told(link)})

    def disable(self, name: str, *, by: str, why: str) -> None:
        """Let an account in no more; all its keys are revoked. What it did stays attributed to it.

        Raises
        ------
        NotFound
            If there is no such account.
        NotAllowed
            If it is disabled already, or the last administrator of everything.
        """
        now = format_instant(datetime.now(UTC))
        with self._timeline.writing() as connection:
            account = _there(connection, name)
            if account.disabled:
                raise NotAllowed(f"{name} is disabled already.")
            _keep_an_administrator(connection, name)
            services = [one.name for one in accounts_in(connection) if one.owner == name and not one.disabled]
            gone = [name, *services]  # nobody answers for them any more
            connection.execute(sa.update(tables.accounts).where(tables.accounts.c.name.in_(gone)).values(disabled=now))
            held = (tables.keys.c.account.in_(gone)) & (tables.keys.c.revoked == "")
            connection.execute(sa.update(tables.keys).where(held).values(revoked=now))
            self._tell(connection, "account", by, why, {"account": name, "change": "disabled", "services": services})

    def choose_password(self, name: str, password: str, *, by: str, why: str, tokens: bool = False) -> None:
        """Give an account a password; all its sessions end.

        Parameters
        ----------
        tokens : whether its tokens end, too.

        Raises
        ------
        NotUnderstood
            If it may not be one.
        NotFound, NotAllowed
            If there is no such person.
        """
        kept = hashed(password, name)
        now = format_instant(datetime.now(UTC))
        with self._timeline.writing() as connection:
            account = _there(connection, name)
            if account.kind != "person" or account.disabled:
                raise NotAllowed(f"{name} is {'disabled' if account.disabled else 'a service, which uses tokens'}.")
            connection.execute(sa.update(tables.accounts).where(tables.accounts.c.name == name).values(password=kept))
            ended = ("session", "link", "token") if tokens else ("session", "link")
            held = (tables.keys.c.account == name) & tables.keys.c.kind.in_(ended)
            connection.execute(sa.update(tables.keys).where(held, tables.keys.c.revoked == "").values(revoked=now))
            facts = {"account": name, "change": "password", **({"tokens": True} if tokens else {})}
            self._tell(connection, "account", by, why, facts)

    def give(self, name: str, role: str, place: str = EVERYWHERE, *, by: str, why: str) -> Grant:
        """Give a role somewhere: in a project, in ``team/NAME``, or everywhere.

        Raises
        ------
        NotFound, NotUnderstood
            If there is no such account, or the role or the place is none.
        """
        made = grant(role, place)
        with self._timeline.writing() as connection:
            if made not in _given(connection, _there(connection, name)):
                connection.execute(sa.insert(tables.grants).values(account=name, role=role, place=place))
                facts = {"account": name, "role": role, "place": place, "given": True}
                self._tell(connection, "granted", by, why, facts)
        return made

    def take(self, name: str, role: str, place: str = EVERYWHERE, *, by: str, why: str) -> None:
        """Take a role back.

        Raises
        ------
        NotFound
            If it was not given.
        NotAllowed
            If nobody would be left to manage accounts.
        """
        gone = grant(role, place)
        with self._timeline.writing() as connection:
            account = _there(connection, name)
            if gone in account.by_groups and gone not in _given(connection, account):
                raise NotAllowed(
                    f"{name} is {role} of {place} because of a group.",
                    safe="Nothing was changed.",
                    todo="Take them out of it at the provider of identities; it holds from their next sign-in on. "
                    "At once: `orrery user disable`.",
                )
            if gone not in account.grants:
                raise NotFound(f"{name} is not {role} of {place}.", todo="`orrery user list` says who is what.")
            if gone == Grant("administrator"):
                _keep_an_administrator(connection, name)
            fits_ = (tables.grants.c.account == name) & (tables.grants.c.role == role)
            connection.execute(sa.delete(tables.grants).where(fits_, tables.grants.c.place == place))
            facts = {"account": name, "role": role, "place": place, "given": False}
            self._tell(connection, "granted", by, why, facts)

    def assign(self, project: str, team: str, *, by: str, why: str) -> None:
        """Make a project, or a dataset as ``data/NAME``, one of a team; it has one team or none.

        Raises
        ------
        NotUnderstood
            If either cannot be a name.
        """
        check_name(project.removeprefix(DATA), "project or dataset")
        if team:
            check_name(team, "team")
        with self._timeline.writing() as connection:
            connection.execute(sa.delete(tables.teams).where(tables.teams.c.project == project))
            if team:
                connection.execute(sa.insert(tables.teams).values(project=project, team=team))
            self._tell(connection, "granted", by, why, {"project": project, "team": team})

    def _tell(self, connection: sa.Connection, kind: str, by: str, why: str, data: Mapping[str, object]) -> None:
        self._timeline.append([Draft(kind=kind, actor=by, why=why, data=dict(data))], connection=connection)


def accounts_in(connection: sa.Connection, name: str | None = None) -> Iterator[Account]:
    """Yield the accounts, or the one of a name, as they are now."""

    def of(table: sa.TableClause, column: str) -> sa.Select[tuple[str, ...]]:
        query = sa.select(table)
        return query if name is None else query.where(table.c[column] == name)

    links: dict[str, list[str]] = {}
    for row in connection.execute(of(tables.links, "account")):
        links.setdefault(row.account, []).append(row.link)
    grants: dict[str, list[Grant]] = {}
    for row in connection.execute(of(tables.grants, "account")):
        grants.setdefault(row.account, []).append(Grant(row.role, row.place))
    brought: dict[str, dict[Grant, str]] = {}
    now = format_instant(datetime.now(UTC))
    for row in connection.execute(of(tables.group_roles, "account").where(tables.group_roles.c.until > now)):
        brought.setdefault(row.account, {})[Grant(row.role, row.place)] = row.until
    issuers: dict[str, list[str]] = {}
    for row in connection.execute(of(tables.identities, "account")):
        issuers.setdefault(row.account, []).append(row.issuer)
    for row in connection.execute(of(tables.accounts, "name").order_by(tables.accounts.c.name)):
        by_groups = brought.get(row.name, {})
        has = {*grants.get(row.name, ()), *by_groups}
        yield Account(
            row.name,
            row.kind,
            row.owner,
            row.since,
            row.disabled,
            bool(row.password),
            tuple(sorted(links.get(row.name, ()))),
            tuple(sorted(has, key=lambda one: (one.place, one.role))),
            tuple(by_groups),
            tuple(issuers.get(row.name, ())),
            min(by_groups.values(), default=""),
        )


def _told(link: str) -> str:
    """Return what the timeline says of a link: of an address only what stands for it, for it is never forgotten."""
    return address_mark(link) if "@" in link else link


def _given(connection: sa.Connection, account: Account) -> set[Grant]:
    """Return the roles of an account that were given here."""
    query = sa.select(tables.grants).where(tables.grants.c.account == account.name)
    return {Grant(row.role, row.place) for row in connection.execute(query)}


def _there(connection: sa.Connection, name: str) -> Account:
    found = next(accounts_in(connection, name), None)
    if found is None:
        raise NotFound(f"There is no account {name!r}.", safe="Nothing was changed.", todo="`orrery user list`.")
    return found


def owner_of(connection: sa.Connection, name: str) -> str:
    """Return whose link a name is; empty if nobody's."""
    query = sa.select(tables.links.c.account).where(tables.links.c.link == name.casefold())
    return connection.execute(query).scalar() or ""


def add_link(connection: sa.Connection, name: str, link: str) -> None:
    """Link an address or name to an account.

    Raises
    ------
    NotUnderstood, Conflict
        If it is neither, or somebody else's.
    """
    if not _LINK.fullmatch(link):
        raise NotUnderstood(f"{link!r} is neither an address nor a name.", safe="Nothing was changed.")
    holder = owner_of(connection, link)
    if holder == name:
        return
    if holder or person_behind(connection, link) == person_behind(connection, name):
        raise Conflict(f"{link} belongs to {holder or name} already.", safe="Nothing was changed.")
    connection.execute(sa.insert(tables.links).values(link=link.casefold(), account=name))


def person_behind(connection: sa.Connection, name: str) -> str:
    """Follow links and owners to the person; each is followed once, so that no circle holds us."""
    if name.startswith("mail:"):
        rows = connection.execute(sa.select(tables.links))
        name = next((row.account for row in rows if address_mark(row.link) == name), name)
    exact = next(accounts_in(connection, name), None)
    lowered = sa.func.lower(tables.accounts.c.name) == name.casefold()
    found = exact.name if exact else connection.execute(sa.select(tables.accounts.c.name).where(lowered)).scalar()
    current, seen = found or name, set[str]()
    while current not in seen:
        seen.add(current)
        account = next(accounts_in(connection, current), None)
        current = owner_of(connection, current) or (account.owner if account else "") or current
    return current


def _keep_an_administrator(connection: sa.Connection, leaving: str) -> None:
    whole = Grant("administrator")
    others = [
        one for one in accounts_in(connection) if whole in one.grants and not one.disabled and one.name != leaving
    ]
    was = any(whole in one.grants for one in accounts_in(connection, leaving))
    if was and not others:
        raise NotAllowed(
            f"{leaving} is the last administrator.",
            safe="Nothing was changed.",
            todo="Give another account the role administrator everywhere first.",
        )
