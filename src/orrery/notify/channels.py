"""Where a project's news goes, and what each account wants to be told."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import sqlalchemy as sa

from orrery.access.outgoing import split
from orrery.access.roles import EVERYWHERE
from orrery.access.vault import Vault
from orrery.errors import Conflict, NotFound, NotUnderstood
from orrery.notify import tables
from orrery.timeline.event import Draft
from orrery.timeline.kinds import KINDS
from orrery.timeline.store import Timeline
from orrery.types import check_name, format_instant

Medium = Literal["chat", "hook"]
Wish = Literal["all", "reviews", "nothing"]
TOPICS = ("all", "reviews")
WISHES = ("all", "reviews", "nothing")
_ADDRESS = re.compile(r"[^@\s<>,;]{1,64}@[^@\s<>,;]{1,255}")


@dataclass(frozen=True)
class Channel:
    """A chat, or a program that is told by signed webhooks.

    Parameters
    ----------
    project, name, medium : whose (``*``: of orrery itself), what it is called, and ``chat`` or ``hook``.
    kinds : of a chat ``all`` or ``reviews``; of a hook kinds of events, or ``*``.
    place : what may be shown of its address.
    private : whether it may be within one's own network.
    since, by : when and by whom it was added.
    after : seq of the newest event then; what was before is not sent.
    dead : when it was given up; empty if it was not.
    """

    project: str
    name: str
    medium: str
    kinds: tuple[str, ...]
    place: str
    private: bool
    since: str
    by: str
    after: int
    dead: str

    @property
    def target(self) -> str:
        """What deliveries to it are filed under."""
        return f"{self.medium}/{self.project}/{self.name}"

    def wants(self, kind: str) -> bool:
        """Say whether a hook is told of a kind of event."""
        return "*" in self.kinds or kind in self.kinds


class Channels:
    """The channels of one orrery, and the wishes of its accounts; may be shared by threads.

    Parameters
    ----------
    timeline : where every change is written down, in the same transaction.
    vault : seals addresses and keys.
    """

    def __init__(self, timeline: Timeline, vault: Vault) -> None:
        self._timeline, self._vault = timeline, vault

    # --- channels --------------------------------------------------------------------------------------------------

    def all(self, project: str | None = None) -> list[Channel]:
        """Return the channels of a project, or of all, by name."""
        query = sa.select(tables.channels).order_by(tables.channels.c.project, tables.channels.c.name)
        if project is not None:
            query = query.where(tables.channels.c.project == project)
        with self._timeline.reading() as connection:
            return [_channel(row) for row in connection.execute(query)]

    def get(self, project: str, name: str) -> Channel:
        """Return a channel.

        Raises
        ------
        NotFound
            If there is none of this name.
        """
        found = next((one for one in self.all(project) if one.name == name), None)
        if found is None:
            raise NotFound(f"{project} has no channel or webhook {name!r}.", todo="`orrery channel list` names them.")
        return found

    def opened(self, channel: Channel) -> tuple[str, str]:
        """Return its address, and of a hook the key that is signed with."""
        query = sa.select(tables.channels).where(_is(channel.project, channel.name))
        with self._timeline.reading() as connection:
            row = connection.execute(query).one()
        return self._vault.opened(row.url, channel.target), self._vault.opened(row.secret, channel.target)

    def sealed_anew(self) -> int:
        """Encrypt all addresses and keys with the key that the home has now; return how many channels there are."""
        with self._timeline.writing() as connection:
            rows = list(connection.execute(sa.select(tables.channels)))
            for row in rows:
                use = _channel(row).target
                fresh = {
                    name: self._vault.seal(self._vault.opened(getattr(row, name), use), use)
                    for name in ("url", "secret")
                }
                connection.execute(sa.update(tables.channels).where(_is(row.project, row.name)).values(fresh))
        return len(rows)

    def add(
        self, project: str, name: str, medium: Medium, url: str, kinds: Sequence[str], private: bool, by: str, why: str
    ) -> tuple[Channel, str]:
        """Add a channel; the second of what is returned is the key of a hook, which is shown once.

        Raises
        ------
        NotUnderstood
            If the name, the address or a kind cannot be one.
        Conflict
            If the project has one of this name.
        """
        check_name(name, "name of a channel")
        if medium == "hook":
            _check_kinds(kinds)
            scheme, host, port = split(url, private=private)
            place = f"{scheme}://{host}" + (f":{port}" if urlsplit(url).port else "")
            secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        else:
            place, secret = f"{url.partition('://')[0]}://", ""
        with self._timeline.writing() as connection:
            if connection.execute(sa.select(tables.channels.c.name).where(_is(project, name))).first():
                raise Conflict(f"{project} has a channel or webhook {name!r} already.", safe="Nothing was changed.")
            facts = {"channel": name, "medium": medium, "place": place, "kinds": list(kinds), "private": private}
            (event,) = self._timeline.append(
                [Draft(kind="channel", actor=by, why=why, model=_model(project), data={**facts, "there": True})],
                connection=connection,
            )
            target = f"{medium}/{project}/{name}"
            row = {
                "project": project,
                "name": name,
                "medium": medium,
                "kinds": ",".join(kinds),
                "place": place,
                "url": self._vault.seal(url, target),
                "secret": self._vault.seal(secret, target),
                "private": private,
                "since": format_instant(datetime.now(UTC)),
                "by": by,
                "after": event.seq,
                "dead": "",
            }
            connection.execute(sa.insert(tables.channels).values(row))
            # Of one that was removed and is added again, what waited then is not sent.
            connection.execute(sa.delete(tables.deliveries).where(tables.deliveries.c.target == target))
        return self.get(project, name), secret

    def remove(self, project: str, name: str, by: str, why: str) -> None:
        """Send nothing there any more, also not what waits.

        Raises
        ------
        NotFound
            If there is none of this name.
        """
        gone = self.get(project, name)
        with self._timeline.writing() as connection:
            connection.execute(sa.delete(tables.channels).where(_is(project, name)))
            waits = (tables.deliveries.c.target == gone.target) & (tables.deliveries.c.state == "waiting")
            connection.execute(sa.delete(tables.deliveries).where(waits))
            facts = {"channel": name, "medium": gone.medium, "place": gone.place, "there": False}
            draft = Draft(kind="channel", actor=by, why=why, model=_model(project), data=facts)
            self._timeline.append([draft], connection=connection)

    def give_up(self, project: str, name: str) -> None:
        """Note that a hook cannot be reached: nothing is sent there any more, until it is added anew."""
        with self._timeline.engine.begin() as connection:
            now = format_instant(datetime.now(UTC))
            connection.execute(sa.update(tables.channels).where(_is(project, name)).values(dead=now))

    # --- accounts --------------------------------------------------------------------------------------------------

    def wishes(self) -> dict[str, tuple[Wish, str]]:
        """Return account -> what it wants to be told, and the address to tell it at, if it said so."""
        with self._timeline.reading() as connection:
            return {row.account: (row.wish, row.address) for row in connection.execute(sa.select(tables.wishes))}

    def wish(self, account: str, wish: str, *, by: str, why: str, address: str | None = None) -> None:
        """Say what an account wants to be told: all, reviews or nothing.

        Parameters
        ----------
        address : where; empty for the first that is linked to it, None for where it was.

        Raises
        ------
        NotUnderstood
            If that is no such wish, or no address.
        """
        if wish not in WISHES:
            raise NotUnderstood(f"{wish!r} cannot be told.", todo=f"Use {', '.join(WISHES)}.")
        if address and not _ADDRESS.fullmatch(address):
            raise NotUnderstood("This is not a mail address.", safe="Nothing was changed.")
        with self._timeline.writing() as connection:
            mine = tables.wishes.c.account == account
            held = connection.execute(sa.select(tables.wishes.c.address).where(mine)).scalar() or ""
            connection.execute(sa.delete(tables.wishes).where(mine))
            row = {"account": account, "wish": wish, "address": held if address is None else address}
            connection.execute(sa.insert(tables.wishes).values(row))
            facts = {"account": account, "change": "told", "wish": wish}
            self._timeline.append([Draft(kind="account", actor=by, why=why, data=facts)], connection=connection)


def address_of(links: Sequence[str], said: str = "") -> str:
    """Return the mail address of an account: what was said, else the first of its links that is one.

    Examples
    --------
    >>> address_of(("Mara Lind", "1+mara@users.noreply.github.com", "mara@example.org"))
    'mara@example.org'
    """
    fits = (one for one in links if _ADDRESS.fullmatch(one) and "noreply" not in one)
    return said or next(fits, "")


def _check_kinds(kinds: Sequence[str]) -> None:
    unknown = [one for one in kinds if one != "*" and one not in KINDS]
    if unknown or not kinds:
        raise NotUnderstood(
            f"{unknown[0]!r} is no kind of event." if unknown else "A webhook needs a kind of event.",
            todo="docs/reference/events.md names them; * is all.",
        )


def _model(project: str) -> str:
    """Return on whose timeline the events of a channel stand; of orrery's own they are of no model."""
    return "" if project == EVERYWHERE else project


def _is(project: str, name: str) -> sa.ColumnElement[bool]:
    return (tables.channels.c.project == project) & (tables.channels.c.name == name)


def _channel(row: sa.Row[Any]) -> Channel:
    fields = row._mapping
    known = ("project", "name", "medium", "place", "since", "by", "after", "dead")
    kinds = tuple(row.kinds.split(","))
    return Channel(**{one: fields[one] for one in known}, kinds=kinds, private=bool(row.private))
