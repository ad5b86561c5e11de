"""A copy of one orrery that can be brought back: taken while it runs, whole or not at all, without the keys.

What keeps it consistent is the order. The timeline is copied first, in one state of the database. Everything else is
written before the event that speaks of it, and nothing is removed within a day of being replaced; so whatever the
copied timeline speaks of is in what is copied after it, and what came later is announced when the copy is started.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import sqlalchemy as sa

from orrery.errors import Damaged, NotAllowed, NotFound, OrreryError
from orrery.settings import Settings
from orrery.timeline.anchor import Anchor
from orrery.timeline.store import Timeline
from orrery.timeline.verify import verify
from orrery.types import format_instant

MANIFEST, HOME, LAKE, DUMP = "manifest.json", "home", "lake", "database.dump"
LEFT_OUT = {
    *(
        "cache",
        "checkouts",
        "hooks",
        "logs",
        "serving",
        "anchors",
        "lake",
        "run",
    ),  # made anew, shipped, or copied apart
    *("lock", "processes.json", "address.json", "up.log", "orrery.db"),
}
"""What of the home is not copied as it is: what is made anew, and what is copied in another way."""
KEYS = ("key", "privacy/key", "privacy/key.wrapped", "privacy/key.wrapping", "privacy/keys.db", "secrets/key")
"""What opens what is encrypted. It is never in a backup: who finds one finds neither names nor secrets in it."""


_TRIES = 3


class Kept(msgspec.Struct, frozen=True):
    """One file of a backup: its bytes, and their SHA-256."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is; written last, so that one without it is none.

    Parameters
    ----------
    orrery : version that made it.
    at : when it was begun.
    seq, hash : the newest event that it has.
    database : ``sqlite`` or ``postgresql``.
    lake : where the lake was, if it is not in the backup; empty if it is.
    keys : the keys that were there, and are not in it.
    files : path -> what is there.
    """

    orrery: str
    at: datetime
    seq: int
    hash: str
    database: str
    lake: str
    keys: list[str]
    files: dict[str, Kept]

    @property
    def bytes(self) -> int:
        """How large it is."""
        return sum(one.size for one in self.files.values())


def back_up(settings: Settings, target: Path, at: datetime, keys: Path | None = None) -> Manifest:
    """Copy an orrery to a folder that is not there yet.

    Parameters
    ----------
    settings : of which orrery.
    target : the folder.
    at : when.
    keys : another folder, for the keys; without one they are not copied.

    Raises
    ------
    NotAllowed
        If there is something at the target.
    OrreryError
        If the database cannot be copied.
    """
    if target.exists() or (keys is not None and keys.exists()):
        raise NotAllowed(f"{target if target.exists() else keys} is there already.", todo="Name another folder.")
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    fresh.mkdir(mode=0o700, parents=True)
    try:
        seq, hash_ = _database(settings, fresh)
        _folder(settings.home, fresh / HOME, LEFT_OUT, set(KEYS))
        outside = "://" in settings.lake
        if not outside:
            _folder(Path(settings.lake), fresh / LAKE)
        manifest = Manifest(
            orrery=version("orrery-ml"),
            at=at,
            seq=seq,
            hash=hash_,
            database=_kind(settings),
            lake=settings.lake if outside else "",
            keys=[name for name in KEYS if (settings.home / name).exists()],
            files={path: kept for path, kept in _files(fresh)},
        )
        (fresh / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        if keys is not None:
            _keys(settings.home, keys)
        fresh.rename(target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return manifest


def manifest_of(source: Path) -> Manifest:
    """Return what a backup is.

    Raises
    ------
    NotFound
        If it is none.
    Damaged
        If a file is missing, changed, or was put in.
    """
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise NotFound(f"{source} is no backup: {error}.", todo="Name the folder that has manifest.json.") from None
    there = dict(_files(source))
    for path in sorted(manifest.files.keys() | there.keys()):
        if manifest.files.get(path) != there.get(path):
            what = "was put in" if path not in manifest.files else "is missing" if path not in there else "was changed"
            raise Damaged(f"{path} of the backup {what}.", safe="Nothing was restored.", todo="Use another backup.")
    return manifest


def restore(source: Path, settings: Settings, keys: Path | None = None) -> Manifest:
    """Bring a backup back as the home of the settings, whole or not at all.

    Parameters
    ----------
    source : the backup.
    settings : whose home is not there yet, and whose database is empty.
    keys : folder with the keys; without one who knows them puts them there.

    Raises
    ------
    NotAllowed
        If there is something at the home.
    NotFound, Damaged
        If it is no backup, or not what was written.
    """
    manifest, home = manifest_of(source), settings.home
    if home.exists() and any(home.iterdir()):
        raise NotAllowed(f"{home} is not empty.", safe="It was left alone.", todo="Name another folder with --home.")
    if manifest.database != _kind(settings):
        raise NotAllowed(
            f"The backup is of {manifest.database}, and ORRERY_DATABASE is {_kind(settings)}.",
            safe="Nothing was restored.",
        )
    inside = not manifest.lake and Path(settings.lake) == home / "lake"
    if not manifest.lake and not inside and Path(settings.lake).exists():
        raise NotAllowed(f"{settings.lake} is there already.", todo="Name another folder with ORRERY_LAKE.")
    fresh = home.with_name(f".{home.name}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(source / HOME, fresh, symlinks=True)
        if keys is not None:
            shutil.copytree(keys, fresh, dirs_exist_ok=True)
        if not manifest.lake and (source / LAKE).is_dir():
            shutil.copytree(source / LAKE, fresh / "lake" if inside else Path(settings.lake))
        if manifest.database == "sqlite":
            file = Path(str(sa.make_url(settings.database).database))
            within = file.is_relative_to(home)
            shutil.copy2(source / "orrery.db", fresh / file.relative_to(home) if within else _not_there(file))
        if home.exists():
            home.rmdir()
        fresh.rename(home)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if manifest.database == "postgresql":
        _postgresql(settings, "pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", source / DUMP)
    return manifest


def check(timeline: Timeline, manifest: Manifest) -> None:
    """Check what was restored: its chain holds, and has the newest event that the backup is of.

    Raises
    ------
    Damaged
        If it does not.
    """
    anchor = Anchor(seq=manifest.seq, hash=manifest.hash, at=manifest.at)
    verdict = verify((event.to_json() for event in timeline.read()), anchors=[anchor])
    if not verdict.holds:
        raise Damaged(verdict.faults[0], todo="Use another backup.")


def end_sessions(timeline: Timeline, at: datetime) -> None:
    """End all sessions and links that the backup brought back: some were ended since, and nobody knows which."""
    from orrery.access import tables

    brought = tables.keys.c.kind.in_(("session", "link")) & (tables.keys.c.revoked == "")
    with timeline.writing() as connection:
        connection.execute(sa.update(tables.keys).where(brought).values(revoked=format_instant(at)))


def _not_there(path: Path) -> Path:
    if path.exists():
        raise NotAllowed(f"{path} is there already.", safe="It was left alone.", todo="Name another database.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# --- the parts ---------------------------------------------------------------------------------------------------


def _kind(settings: Settings) -> str:
    return sa.make_url(settings.database).get_backend_name()


def _database(settings: Settings, into: Path) -> tuple[int, str]:
    """Copy the database in one state; return the newest event that the copy has at the least."""
    if _kind(settings) == "postgresql":
        from orrery.timeline.store import connect

        engine = connect(settings.database)
        with engine.connect() as connection:
            head = connection.execute(sa.text("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")).one()
        engine.dispose()
        _postgresql(settings, "pg_dump", "--format=custom", "--no-owner", f"--file={into / DUMP}")
        return int(head.seq), str(head.hash)
    _sqlite(Path(str(sa.make_url(settings.database).database)), into / "orrery.db")
    copy = sqlite3.connect(f"{(into / 'orrery.db').as_uri()}?mode=ro", uri=True)
    try:
        seq, hash_ = copy.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    finally:
        copy.close()
    return int(seq), str(hash_)


def _sqlite(path: Path, into: Path) -> None:
    """Copy a SQLite database with all that is committed, and nothing of what is not."""
    source, target = sqlite3.connect(path, timeout=60), sqlite3.connect(into)
    try:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
    finally:
        target.close()
        source.close()


def _postgresql(settings: Settings, program: str, *words: object) -> None:
    url = sa.make_url(settings.database)
    secret = {"PGPASSWORD": str(url.password)} if url.password else {}
    plain = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    try:
        done = subprocess.run(
            [program, f"--dbname={plain}", *map(str, words)],
            env={**os.environ, **secret},
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise OrreryError(f"There is no {program} here.", todo="Install the client programs of PostgreSQL.") from None
    if done.returncode:
        raise OrreryError(f"{program}: {done.stderr.strip()[:500]}", safe="The database was left alone.")


def _folder(source: Path, into: Path, without: set[str] | None = None, never: set[str] | None = None) -> None:
    """Copy a folder that is being written to."""
    into.mkdir(parents=True)
    if not source.is_dir():
        return
    for path in sorted(source.iterdir()):
        if path.name not in (without or ()) and not path.name.startswith("orrery.db"):
            _any(path, into / path.name, {name.partition("/")[2] for name in never or () if _below(name, path.name)})


def _below(name: str, first: str) -> bool:
    return name.partition("/")[0] == first


def _any(path: Path, into: Path, never: set[str]) -> None:
    """Copy one thing, as what it is; what is gone by then was not spoken of."""
    if "" in never or path.name.startswith((".new-", ".gone-", ".locks", "incoming-")):
        return
    try:
        if path.is_symlink():
            into.symlink_to(os.readlink(path))
        elif path.suffix == ".git":
            _repository(path, into)
        elif (path / "_delta_log").is_dir():
            _settled(path, into)
        elif path.is_dir():
            into.mkdir()
            for one in sorted(path.iterdir()):
                _any(one, into / one.name, {name.partition("/")[2] for name in never if _below(name, one.name)})
        elif path.suffix == ".db" and path.read_bytes()[:16] == b"SQLite format 3\0":
            _sqlite(path, into)
        elif path.is_file() and not path.name.endswith((".db-wal", ".db-shm")):
            shutil.copy2(path, into)
    except FileNotFoundError:
        if path.exists():
            raise


def _repository(path: Path, into: Path) -> None:
    """Copy a git repository with every branch; a push that is not over is not in it."""
    words = ("clone", "--quiet", "--mirror", "--no-hardlinks", str(path), str(into))
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    if done.returncode:
        raise OrreryError(f"The repository {path.name} cannot be copied: {done.stderr.strip()[:300]}")
    subprocess.run(["git", "-C", str(into), "remote", "remove", "origin"], check=True, capture_output=True)


def _settled(path: Path, into: Path) -> None:
    """Copy a Delta table, anew if files that its log named were removed meanwhile."""
    for attempt in range(_TRIES):
        try:
            return _table(path, into)
        except FileNotFoundError:
            shutil.rmtree(into)
            if attempt == _TRIES - 1 or not path.exists():
                raise


def _table(path: Path, into: Path) -> None:
    """Copy a Delta table: its log as it is now, then the files, all that the log names among them."""
    log = path / "_delta_log"
    names = sorted(one.name for one in log.iterdir())
    commits = [name for name in names if name.endswith(".json") and name.removesuffix(".json").isdigit()]
    whole = set(_without_gaps(commits))
    (into / "_delta_log").mkdir(parents=True)
    for name in names:
        if (name not in commits or name in whole) and name != "_last_checkpoint" and "#" not in name:
            shutil.copy2(log / name, into / "_delta_log" / name)
    for one in sorted(path.rglob("*")):
        part = one.relative_to(path)
        if one.is_file() and part.parts[0] != "_delta_log" and "#" not in one.name:  # else it is being written
            (into / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(one, into / part)


def _without_gaps(commits: list[str]) -> Iterator[str]:
    """Yield the commits up to the first gap: a listing that others write to may have the second of two alone."""
    last: int | None = None
    for name in commits:
        number = int(name.partition(".")[0])
        if last is not None and number != last + 1:
            return
        last = number
        yield name


def _keys(home: Path, into: Path) -> None:
    into.mkdir(mode=0o700, parents=True)
    for name in KEYS:
        if (home / name).exists():
            (into / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _any(home / name, into / name, set())
            (into / name).chmod(0o600)


def _files(folder: Path) -> Iterator[tuple[str, Kept]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield name, Kept(0, hashlib.sha256(os.readlink(path).encode()).hexdigest())
        elif path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                yield name, Kept(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
