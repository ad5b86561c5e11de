"""Second factors: codes that a device shows for half a minute (TOTP, RFC 6238), and codes for who has lost the device.

A code opens once: the step of the newest one that was used is in the database, so that neither a restart nor a second
process takes it again. The secret is sealed; of the codes for recovery only digests are kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from orrery.access import tables
from orrery.access.accounts import accounts_in
from orrery.access.roles import ROLES, Principal
from orrery.access.vault import Vault
from orrery.errors import Conflict, NotAllowed, NotFound, NotUnderstood
from orrery.timeline.event import Draft
from orrery.timeline.store import Timeline
from orrery.types import format_instant

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.twofactor.totp import TOTP

STEP = 30
"""Seconds of a code."""
EARLY, LATE = 1, 1
"""Steps by which the clock of a device may be wrong."""
RECOVERY = 10
"""Codes for recovery that somebody gets; each opens once."""
_CODE = re.compile(r"[0-9]{6}")
_RECOVERY = re.compile(r"[A-Z2-7]{24}")


@dataclass(frozen=True)
class Offer:
    """What a device must know to show codes; shown until a code of it has come, and never again.

    Parameters
    ----------
    secret : in the letters in which people type it.
    uri : the same as an address that devices read as a picture.
    """

    secret: str
    uri: str


def roles_of(text: str) -> frozenset[str]:
    """Return the roles that ``ORRERY_SECOND_FACTOR`` names.

    Raises
    ------
    NotUnderstood
        If one is none.

    Examples
    --------
    >>> sorted(roles_of("reviewer administrator"))
    ['administrator', 'reviewer']
    """
    found = frozenset(text.replace(",", " ").split())
    if unknown := sorted(found - set(ROLES)):
        raise NotUnderstood(
            f"ORRERY_SECOND_FACTOR names {unknown[0]!r}.", todo=f"Use roles: {', '.join(ROLES)}; or leave it away."
        )
    return found


class Factors:
    """The second factors of one orrery; may be shared by threads, and by processes.

    Parameters
    ----------
    timeline : where every change is written down, in the same transaction; never a secret or a code.
    vault : seals the secrets.
    roles : who has one of these must have a second factor to sign in with a password.
    now : tells the time, in seconds.
    """

    def __init__(
        self, timeline: Timeline, vault: Vault, roles: frozenset[str], now: Callable[[], float] = time.time
    ) -> None:
        self._timeline, self._vault, self._roles, self._now = timeline, vault, roles, now

    def has(self, name: str) -> bool:
        """Say whether an account has one."""
        held = tables.factors.c
        query = sa.select(held.account).where(held.account == name, held.confirmed != "")
        with self._timeline.reading() as connection:
            return connection.execute(query).first() is not None

    def all(self) -> frozenset[str]:
        """Return the accounts that have one."""
        query = sa.select(tables.factors.c.account).where(tables.factors.c.confirmed != "")
        with self._timeline.reading() as connection:
            return frozenset(connection.execute(query).scalars())

    def must(self, principal: Principal) -> bool:
        """Say whether a role of theirs, wherever they have it, is one of those that need a second factor."""
        return any(one.kind in self._roles for one in principal.grants)

    def left(self, name: str) -> int:
        """Return how many codes for recovery an account has."""
        query = sa.select(sa.func.count()).select_from(tables.recovery).where(tables.recovery.c.account == name)
        with self._timeline.reading() as connection:
            return connection.execute(query).scalar() or 0

    def begin(self, name: str, issuer: str) -> Offer:
        """Make a secret for somebody who has no second factor yet; nothing is asked for until a code of it has come.

        Parameters
        ----------
        issuer : what this orrery is called on the device.

        Raises
        ------
        Conflict
            If they have one.
        NotFound, NotAllowed
            If there is no such person.
        """
        text = base64.b32encode(secrets.token_bytes(20)).decode()
        now = format_instant(datetime.now(UTC))
        row = {"account": name, "secret": self._vault.seal(text, _use(name)), "step": 0, "since": now, "confirmed": ""}
        with self._timeline.writing() as connection:
            account = next(accounts_in(connection, name), None)
            if account is None:
                raise NotFound(f"There is no account {name!r}.")
            if account.kind != "person" or account.disabled:
                raise NotAllowed(f"{name} is {'disabled' if account.disabled else 'a service, which uses tokens'}.")
            held = self._row(connection, name)
            if held is not None and held.confirmed:
                raise Conflict(f"{name} has a second factor.", safe="It holds.", todo="Remove it first.")
            connection.execute(sa.delete(tables.factors).where(tables.factors.c.account == name))
            connection.execute(sa.insert(tables.factors).values(row))
        return _offer(name, text, issuer)

    def offered(self, name: str, issuer: str) -> Offer | None:
        """Return what was made and not confirmed yet."""
        with self._timeline.reading() as connection:
            held = self._row(connection, name)
        if held is None or held.confirmed:
            return None
        return _offer(name, self._vault.opened(held.secret, _use(name)), issuer)

    def confirm(self, name: str, code: str) -> list[str]:
        """Ask for codes from now on, if this is one; return the codes for recovery, nothing if it is none.

        Raises
        ------
        NotAllowed
            If there is nothing to confirm.
        """
        now = format_instant(datetime.now(UTC))
        with self._timeline.writing() as connection:
            held = self._row(connection, name)
            if held is None or held.confirmed:
                raise NotAllowed("There is no second factor to confirm.", todo="Begin anew.")
            step = self._step(held.secret, name, code, after=0)
            if step is None:
                return []
            change = sa.update(tables.factors).where(tables.factors.c.account == name)
            connection.execute(change.values(step=step, confirmed=now))
            codes = self._codes(connection, name)
            self._tell(connection, name, "A code of the device has come.", name, "factor_added")
        return codes

    def fits(self, name: str, code: str) -> bool:
        """Say whether this is a code of theirs that was not used; it is now."""
        given = code.replace("-", "").replace(" ", "").upper()
        with self._timeline.writing() as connection:
            held = self._row(connection, name)
            if held is None or not held.confirmed:
                return False
            if _RECOVERY.fullmatch(given):
                return self._recover(connection, name, given)
            step = self._step(held.secret, name, given, after=held.step)
            if step is None:
                return False
            connection.execute(sa.update(tables.factors).where(tables.factors.c.account == name).values(step=step))
        return True

    def renew(self, name: str, *, why: str) -> list[str]:
        """Return new codes for recovery; those before open nothing any more.

        Raises
        ------
        NotFound
            If there is no second factor.
        """
        with self._timeline.writing() as connection:
            self._must_have(connection, name)
            codes = self._codes(connection, name)
            self._tell(connection, name, why, name, "recovery_renewed")
        return codes

    def remove(self, name: str, *, by: str, why: str) -> None:
        """Ask an account for no codes any more.

        Raises
        ------
        NotFound
            If it has no second factor.
        """
        with self._timeline.writing() as connection:
            self._must_have(connection, name)
            connection.execute(sa.delete(tables.factors).where(tables.factors.c.account == name))
            connection.execute(sa.delete(tables.recovery).where(tables.recovery.c.account == name))
            self._tell(connection, by, why, name, "factor_removed")

    def _must_have(self, connection: sa.Connection, name: str) -> None:
        held = self._row(connection, name)
        if held is None or not held.confirmed:
            raise NotFound(f"{name} has no second factor.", safe="Nothing was changed.")

    def sealed_anew(self) -> int:
        """Encrypt all secrets with the key that the home has now; return how many there are."""
        table = tables.factors
        with self._timeline.writing() as connection:
            rows = list(connection.execute(sa.select(table)))
            for row in rows:
                use = _use(row.account)
                fresh = self._vault.seal(self._vault.opened(row.secret, use), use)
                connection.execute(sa.update(table).where(table.c.account == row.account).values(secret=fresh))
        return len(rows)

    def _row(self, connection: sa.Connection, name: str) -> sa.Row[tuple[object, ...]] | None:
        return connection.execute(sa.select(tables.factors).where(tables.factors.c.account == name)).first()

    def _step(self, sealed: str, name: str, code: str, *, after: int) -> int | None:
        """Return the step whose code this is, if it is near now and newer than the one that was used."""
        if not _CODE.fullmatch(code):
            return None
        totp, current = _totp(self._vault.opened(sealed, _use(name))), int(self._now()) // STEP
        found = None
        for step in range(current - LATE, current + EARLY + 1):
            if hmac.compare_digest(totp.generate(step * STEP), code.encode()) and step > after:
                found = step
        return found

    def _recover(self, connection: sa.Connection, name: str, given: str) -> bool:
        table = tables.recovery
        which = (table.c.hash == _digest(name, given)) & (table.c.account == name)
        if connection.execute(sa.delete(table).where(which)).rowcount != 1:
            return False
        left = connection.execute(sa.select(sa.func.count()).select_from(table).where(table.c.account == name)).scalar()
        why = "A code for recovery was used in place of the device."
        self._tell(connection, name, why, name, "recovery_used", left=left or 0)
        return True

    def _codes(self, connection: sa.Connection, name: str) -> list[str]:
        connection.execute(sa.delete(tables.recovery).where(tables.recovery.c.account == name))
        codes = [base64.b32encode(secrets.token_bytes(15)).decode() for _ in range(RECOVERY)]
        rows = [{"hash": _digest(name, one), "account": name} for one in codes]
        connection.execute(sa.insert(tables.recovery), rows)
        return ["-".join(one[at : at + 4] for at in range(0, 24, 4)) for one in codes]

    def _tell(self, connection: sa.Connection, by: str, why: str, name: str, change: str, **more: object) -> None:
        data: Mapping[str, object] = {"account": name, "change": change, **more}
        self._timeline.append([Draft(kind="account", actor=by, why=why, data=dict(data))], connection=connection)


def _totp(text: str) -> TOTP:
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.twofactor.totp import TOTP

    return TOTP(base64.b32decode(text), 6, SHA1(), STEP)  # nosec B303 - HMAC-SHA1 is what devices know, and sound


def _offer(name: str, text: str, issuer: str) -> Offer:
    return Offer(text, _totp(text).get_provisioning_uri(name, issuer))


def _use(name: str) -> str:
    return f"factor/{name}"


def _digest(name: str, given: str) -> str:
    """Return what is stored of a code: it has 120 random bits, so a plain hash cannot be turned back."""
    return hashlib.sha256(f"recovery/{name}/{given}".encode()).hexdigest()
