"""Secrets of projects: what their code needs to reach something, encrypted at rest and shown to nobody again.

Each secret is sealed with a random key of its own, and that key with the first line of the key file. The other lines of
that file still open what was sealed with them, so that it can be changed without a moment in which nothing can be read.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets as random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orrery.access.guarded import Of, needs
from orrery.access.roles import Principal
from orrery.errors import Damaged, NotAllowed, NotFound, NotUnderstood
from orrery.timeline.event import Draft, Event
from orrery.types import check_name

if TYPE_CHECKING:
    from orrery.timeline.store import Timeline

SHORTEST, LONGEST = 8, 64 << 10
_TABLE = """
CREATE TABLE IF NOT EXISTS secrets (
    project TEXT, name TEXT, sealed TEXT, whose TEXT, line TEXT, by TEXT, at TEXT, PRIMARY KEY (project, name)
) WITHOUT ROWID
"""


class Box(Protocol):
    """What encrypts values, as :class:`orrery.data.sealed.Sealed` does."""

    def seal(self, whose: Sequence[str], values: Sequence[Any]) -> list[str | None]:
        """Return each value encrypted with the key of whose it is."""

    def opened(self, whose: Sequence[str], values: Sequence[str | None]) -> list[Any]:
        """Return what was encrypted; nothing where the key is gone."""

    def forget(self, whose: str) -> bool:
        """Destroy a key."""


@dataclass(frozen=True)
class Secret:
    """What is known of a secret; never its value.

    Parameters
    ----------
    project, name : whose, and which.
    by, at : who set it last, and when.
    """

    project: str
    name: str
    by: str
    at: str


class Secrets:
    """The secrets of one orrery; any number of processes may share the folder.

    Parameters
    ----------
    folder : where they are kept.
    key_file : file of the keys; empty for one in the folder, which is made where it is needed.
    box : makes what encrypts, from a file and 32 bytes.
    """

    def __init__(self, folder: Path, key_file: str, box: Callable[[Path, bytes], Box]) -> None:
        self._file, self._box = folder / "secrets.db", box
        self._own = not key_file
        self._keys = Path(key_file) if key_file else folder / "key"

    def all(self, project: str = "") -> list[Secret]:
        """Return what is known of the secrets of a project, or of all."""
        rows = self._rows("SELECT project, name, by, at FROM secrets WHERE ? IN ('', project) ORDER BY 1, 2", project)
        return [Secret(*row) for row in rows]

    def values(self, project: str) -> dict[str, str]:
        """Return the secrets of a project in the clear.

        Raises
        ------
        NotAllowed
            If a key that they were sealed with is not in the key file.
        """
        rows = self._rows("SELECT name, sealed, whose, line FROM secrets WHERE project = ?", project)
        return {name: self._opened(sealed, whose, line) for name, sealed, whose, line in rows}

    def put(self, project: str, name: str, value: str, by: str, at: str) -> bool:
        """Keep a value; returns whether there was another one."""
        whose, (line, secret) = f"{project}/{name}/{random.token_hex(8)}", self._first(make=True)
        sealed = self._box(self._file, secret).seal([whose], [value])[0]
        with self._open() as database:
            before = database.execute(
                "SELECT whose, line FROM secrets WHERE project = ? AND name = ?", [project, name]
            ).fetchone()
            database.execute(
                "INSERT OR REPLACE INTO secrets VALUES (?, ?, ?, ?, ?, ?, ?)",
                [project, name, sealed, whose, line, by, at],
            )
        if before is not None:
            self._box(self._file, secret).forget(before[0])
        return before is not None

    def drop(self, project: str, name: str) -> bool:
        """Remove a secret, and destroy its key; returns whether it was there."""
        rows = self._rows("SELECT whose FROM secrets WHERE project = ? AND name = ?", project, name)
        for (whose,) in rows:
            self._box(self._file, self._first()[1]).forget(whose)
        with self._open() as database:
            return database.execute("DELETE FROM secrets WHERE project = ? AND name = ?", [project, name]).rowcount > 0

    def salt(self, project: str) -> str:
        """Return what makes digests that a project's programs write different from those of anybody else."""
        return hmac.digest(self._first()[1], f"salt/{project}".encode(), "sha256").hex()

    def rotate(self, project: str = "") -> list[Secret]:
        """Encrypt the secrets of a project anew with new keys.

        Without a project it is all of them, and in the home folder under a new line of the key file, which then is the
        only one. Killed at any moment, everything can still be read, and the next call ends it.
        """
        found, keys = self.all(project), self._own and not project and self._keys.exists()
        if keys:
            self._write([random.token_urlsafe(48), *self._lines()])
        for one in found:
            self.put(one.project, one.name, self.values(one.project)[one.name], one.by, one.at)
        if keys:
            self._write(self._lines()[:1])
        return found

    def _opened(self, sealed: str, whose: str, line: str) -> str:
        known = {_mark(text): _key(text) for text in self._lines()}
        if line not in known:
            raise NotAllowed(
                f"The key that secrets were encrypted with is not in {self._keys}.",
                safe="They are still there, encrypted.",
                todo="Bring the key back as a line of that file, or set the secrets anew.",
            )
        value = self._box(self._file, known[line]).opened([whose], [sealed])[0]
        if value is None:
            raise Damaged("A secret cannot be read: its own key is gone.", todo="Set it anew: `orrery secret set`.")
        return str(value)

    def _first(self, make: bool = False) -> tuple[str, bytes]:
        if make and self._own and not self._keys.exists():
            self._write([random.token_urlsafe(48)], new=True)
        first = self._lines()[0]
        return _mark(first), _key(first)

    def _lines(self) -> list[str]:
        try:
            found = self._keys.read_text().split()
        except OSError as error:
            raise NotAllowed(
                f"The key of secrets in {self._keys} cannot be read: {error.strerror}.",
                safe="Nothing was written in the clear.",
                todo="Bring the file back: without it nothing that it encrypted can be read.",
            ) from None
        if not found or any(len(line) < 32 for line in found):
            raise NotUnderstood(
                f"{self._keys} has a line shorter than 32 characters, or none.", todo="openssl rand -base64 48 > FILE"
            )
        return found

    def _write(self, lines: list[str], new: bool = False) -> None:
        """Write the key file whole or not at all; a new one never over another's."""
        self._keys.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._keys.with_name(f"{self._keys.name}.{random.token_hex(4)}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if not new:
            fresh.replace(self._keys)
            return
        with contextlib.suppress(FileExistsError):
            os.link(fresh, self._keys)
        fresh.unlink()

    def _rows(self, query: str, *values: str) -> list[Any]:
        if not self._file.exists():
            return []
        with self._open() as database:
            return database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, timeout=60)
        try:
            database.execute("PRAGMA secure_delete = ON")
            with database:
                database.execute(_TABLE)
                yield database
        finally:
            database.close()


def _mark(line: str) -> str:
    """Return what names a line of the key file, and does not tell it."""
    return hashlib.sha256(f"orrery/secrets/line/{line}".encode()).hexdigest()[:16]


def _key(line: str) -> bytes:
    return hashlib.sha256(f"orrery/secrets/key/{line}".encode()).digest()


class SecretOrders:
    """What people order of secrets: the part of :class:`orrery.app.Orrery` that is about them."""

    principal: Principal
    timeline: Timeline

    if TYPE_CHECKING:

        def allow(self, permission: str, name: str, of: Of = "project") -> None:
            """Raise unless the principal may."""

        @property
        def secrets(self) -> Secrets:
            """The secrets of all projects."""

    @needs("secrets")
    def set_secret(self, name: str, secret: str, value: str, *, why: str, actor: str) -> list[Event]:
        """Keep a secret of a project, or put another value in its place; it is never shown again.

        Raises
        ------
        NotUnderstood
            If the name is none, or the value is too short to be taken out of text, or too long for a variable.
        """
        check_name(name, "name of a project")
        check_name(secret, "name of a secret")
        if len(value.strip()) < SHORTEST or len(value) > LONGEST or "\0" in value:
            raise NotUnderstood(
                f"A secret has {SHORTEST} to {LONGEST} characters, and no NUL.",
                safe="Nothing was kept.",
                todo="A shorter one could not be told from other text in the output of a program.",
            )
        known = any(one.name == secret for one in self.secrets.all(name))
        draft = self._about(name, secret, "replaced" if known else "set", why, actor)
        self.secrets.put(name, secret, value, actor, self.timeline.clock.now().isoformat())
        return self.timeline.append([draft])

    @needs("secrets")
    def remove_secret(self, name: str, secret: str, *, why: str, actor: str) -> list[Event]:
        """Destroy a secret of a project.

        Raises
        ------
        NotFound
            If there is none of that name.
        """
        draft = self._about(name, secret, "removed", why, actor)
        if not self.secrets.drop(name, secret):
            raise NotFound(f"{name} has no secret {secret!r}.", todo=f"`orrery secret list {name}` names them.")
        return self.timeline.append([draft])

    @needs("secrets")
    def rotate_secrets(self, name: str, *, why: str, actor: str) -> list[Event]:
        """Encrypt the secrets of a project anew; without a name all of them, under a new key.

        Raises
        ------
        NotAllowed
            If a key that they were encrypted with is not at hand.
        """
        self._about(name, "", "encrypted anew", why, actor)
        found = self.secrets.rotate(name)
        return self.timeline.append([self._about(one.project, one.name, "encrypted anew", why, actor) for one in found])

    def _about(self, project: str, secret: str, change: str, why: str, actor: str) -> Draft:
        if not why.strip():
            raise NotUnderstood("This needs a reason.", safe="Nothing was changed.", todo="Say why.")
        of = project if project in self.timeline.models() else ""
        data = {"project": project, "secret": secret, "change": change}
        return Draft(kind="secret", actor=actor, why=why, model=of, data=data)
