"""Keys: tokens for programs, sessions of browsers, and links that work once.

A key is ``orrery_`` + a letter for its kind + its id + ``_`` + 256 random bits. Only the SHA-256 of it is stored: the
key itself is shown once. It is found by its id and compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from orrery.access import tables
from orrery.access.roles import SCOPES
from orrery.errors import NotAllowed, NotFound, NotUnderstood
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline
from orrery.types import check_name, format_instant, parse_instant

Kind = Literal["token", "session", "link"]
LONGEST = timedelta(days=366)
SESSION, IDLE = timedelta(hours=12), timedelta(hours=2)
"""How long a session lasts at most, and how long nobody may use it."""
LINK = timedelta(hours=24)
PROVIDER = "provider"
"""Label of a session that began at a provider of identities."""
_NOTE_AFTER = timedelta(minutes=5)
_LETTER = {"token": "t", "session": "s", "link": "l"}
_FORM = re.compile(r"orrery_([tsl])([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class Key:
    """What is known of a key; never the key itself.

    Parameters
    ----------
    id, kind, account : which, of which kind, and whose.
    label : what its owner calls it.
    scopes : entrances that it opens; all for a session.
    project : the one project that it is for; empty for all that the account may see.
    since, until, seen, revoked : when it was made, runs out, was used last (to some minutes), and was revoked.
    hash : SHA-256 of the key.
    """

    id: str
    kind: str
    account: str
    label: str
    scopes: tuple[str, ...]
    project: str
    since: datetime
    until: datetime
    seen: datetime | None
    revoked: datetime | None
    hash: str = ""

    def holds(self, now: datetime) -> bool:
        """Say whether it still opens anything."""
        idle = self.kind == "session" and now - (self.seen or self.since) > IDLE
        return self.revoked is None and now < self.until and not idle


class Keys:
    """The keys of one orrery; may be shared by threads.

    Parameters
    ----------
    timeline : where making and revoking is written down, in the same transaction.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def token(
        self,
        account: str,
        *,
        by: str,
        why: str,
        scopes: Sequence[str],
        lasts: timedelta = timedelta(days=90),
        project: str = "",
        label: str = "",
    ) -> tuple[str, Key]:
        """Make a token for a program; the first of what is returned is shown to its owner, and nowhere else.

        Raises
        ------
        NotUnderstood
            If a scope is unknown or none is named, or it would last longer than a year.
        NotFound, NotAllowed
            If there is no such account, or it is disabled.
        """
        unknown = [one for one in scopes if one not in SCOPES]
        if unknown or not scopes:
            what = f"{unknown[0]!r} is no scope." if unknown else "A token needs a scope."
            raise NotUnderstood(what, todo=f"Use one or more of {', '.join(SCOPES)}.")
        if not timedelta(0) < lasts <= LONGEST:
            raise NotUnderstood("A token lasts a year at most, and longer than nothing.")
        if project:
            check_name(project, "project")
        return self._make("token", account, by, why, lasts, scopes=scopes, project=project, label=label)

    def session(self, account: str, *, why: str, by_provider: bool = False) -> tuple[str, Key]:
        """Let a browser in: the first of what is returned is its cookie, new with every sign-in.

        Parameters
        ----------
        by_provider : whether a provider of identities says who it is; second factors are a matter of its own then.
        """
        return self._make("session", account, account, why, SESSION, label=PROVIDER if by_provider else "")

    def link(self, account: str, *, by: str, why: str) -> tuple[str, Key]:
        """Make a link by which an account chooses its password, once; earlier ones work no more."""
        self._revoke((tables.keys.c.account == account) & (tables.keys.c.kind == "link"))
        return self._make("link", account, by, why, LINK)

    def check(self, shown: str, kind: Kind, now: datetime | None = None) -> Key | None:
        """Return the key that was shown, if it is one of this kind that holds; else nothing, whatever the reason."""
        match = _FORM.fullmatch(shown)
        if match is None or match[1] != _LETTER[kind]:
            return None
        now = now or datetime.now(UTC)
        query = sa.select(tables.keys).where(tables.keys.c.id == match[2], tables.keys.c.kind == kind)
        with self._timeline.reading() as connection:
            row = connection.execute(query).first()
        known = _key(row) if row is not None else None
        same = hmac.compare_digest(digest(shown), known.hash if known else "0" * 64)
        if known is None or not same or not known.holds(now):
            return None
        if known.seen is None or now - known.seen > _NOTE_AFTER:
            self._note(known.id, now)
        return known

    def use(self, shown: str) -> Key | None:
        """Use a link up: return it the first time, nothing afterwards."""
        key = self.check(shown, "link")
        if key is None:
            return None
        return key if self._revoke(tables.keys.c.id == key.id) else None

    def all(self, account: str | None = None, kind: Kind = "token") -> list[Key]:
        """Return the keys of a kind, of one account or of all, oldest first."""
        query = sa.select(tables.keys).where(tables.keys.c.kind == kind).order_by(tables.keys.c.since)
        if account is not None:
            query = query.where(tables.keys.c.account == account)
        with self._timeline.reading() as connection:
            return [_key(row) for row in connection.execute(query)]

    def revoke(self, id_: str, *, by: str, why: str, account: str | None = None) -> Key:
        """Revoke a token.

        Parameters
        ----------
        account : whose it must be; None for anybody's.

        Raises
        ------
        NotFound
            If there is none of this id.
        NotAllowed
            If it was revoked before.
        """
        with self._timeline.writing() as connection:
            query = sa.select(tables.keys).where(tables.keys.c.id == id_, tables.keys.c.kind == "token")
            row = connection.execute(query).first()
            if row is None or account not in (None, row.account):
                raise NotFound(f"There is no token {id_!r}.", todo="`orrery token list` names them.")
            if row.revoked:
                raise NotAllowed(f"The token {id_} was revoked before.", safe="It opens nothing.")
            now = format_instant(datetime.now(UTC))
            connection.execute(sa.update(tables.keys).where(tables.keys.c.id == id_).values(revoked=now))
            self._tell(connection, by, why, {"account": row.account, "key": id_, "key_kind": "token", "revoked": True})
        return _key(row)

    def sign_out(self, account: str, *, by: str, why: str, key: str = "") -> int:
        """End a session, or all of an account; return how many.

        Parameters
        ----------
        key : id of the one session; empty for all of them, wherever they are.
        """
        held = (tables.keys.c.account == account) & (tables.keys.c.kind == "session")
        held &= tables.keys.c.revoked == ""
        if key:
            held &= tables.keys.c.id == key
        with self._timeline.writing() as connection:
            now = format_instant(datetime.now(UTC))
            ended = connection.execute(sa.update(tables.keys).where(held).values(revoked=now)).rowcount
            if ended:
                facts = {"account": account, "key_kind": "session", "revoked": True, "count": ended}
                self._tell(connection, by, why, facts)
        return ended

    def _make(
        self,
        kind: Kind,
        account: str,
        by: str,
        why: str,
        lasts: timedelta,
        *,
        scopes: Sequence[str] = (),
        project: str = "",
        label: str = "",
    ) -> tuple[str, Key]:
        id_ = secrets.token_hex(6)
        shown = f"orrery_{_LETTER[kind]}{id_}_{secrets.token_urlsafe(32)}"
        now = datetime.now(UTC)
        key = Key(id_, kind, account, label[:200], tuple(scopes), project, now, now + lasts, None, None, digest(shown))
        with self._timeline.writing() as connection:
            query = sa.select(tables.accounts.c.disabled).where(tables.accounts.c.name == account)
            disabled = connection.execute(query).scalar()
            if disabled is None:
                raise NotFound(f"There is no account {account!r}.", todo="`orrery user add` makes one.")
            if disabled:
                raise NotAllowed(f"The account {account} is disabled.")
            row = {
                "id": id_,
                "kind": kind,
                "account": account,
                "hash": key.hash,
                "label": key.label,
                "scopes": ",".join(scopes),
                "project": project,
                "since": format_instant(now),
                "until": format_instant(key.until),
                "seen": "",
                "revoked": "",
            }
            connection.execute(sa.insert(tables.keys).values(row))
            facts: dict[str, object] = {
                "account": account,
                "key": id_,
                "key_kind": kind,
                "until": format_instant(key.until),
            }
            if kind == "token":
                facts |= {"scopes": list(scopes), "project": project, "label": key.label}
            if kind == "session":
                self._timeline.append([Draft(kind="signed_in", actor=by, why=why, data=facts)], connection=connection)
            else:
                self._tell(connection, by, why, facts)
        return shown, key

    def _revoke(self, which: sa.ColumnElement[bool]) -> int:
        now = format_instant(datetime.now(UTC))
        with self._timeline.engine.begin() as connection:
            held = sa.update(tables.keys).where(which, tables.keys.c.revoked == "")
            return connection.execute(held.values(revoked=now)).rowcount

    def _note(self, id_: str, now: datetime) -> None:
        with self._timeline.engine.begin() as connection:
            held = sa.update(tables.keys).where(tables.keys.c.id == id_)
            connection.execute(held.values(seen=format_instant(now)))

    def _tell(self, connection: sa.Connection, by: str, why: str, data: Mapping[str, object]) -> None:
        self._timeline.append([Draft(kind="key", actor=by, why=why, data=dict(data))], connection=connection)


def digest(shown: str) -> str:
    """Return what is stored of a key: it is random, so a plain hash cannot be turned back."""
    return hashlib.sha256(shown.encode()).hexdigest()


def csrf_of(session: str) -> str:
    """Return what a form of a session carries; nobody can make it who does not have the session."""
    return hashlib.sha256(f"csrf/{session}".encode()).hexdigest()


def _key(row: sa.Row[tuple[str, ...]]) -> Key:
    return Key(
        row.id,
        row.kind,
        row.account,
        row.label,
        tuple(row.scopes.split(",")) if row.scopes else (),
        row.project,
        parse_instant(row.since),
        parse_instant(row.until),
        parse_instant(row.seen) if row.seen else None,
        parse_instant(row.revoked) if row.revoked else None,
        row.hash,
    )
