"""Where anchors are put: a git repository, or an object store or folder that takes every name once.

A place never removes or replaces anything. Whether somebody else can is the place's own matter: a bucket with
retention, a branch that nobody may force, a disk that is written once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orrery.errors import NotFound, NotUnderstood, OrreryError
from orrery.timeline.anchor import Anchor, from_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore

BRANCH = "anchors"
GIT, STAMPS = "git+", ("tsa+https://", "tsa+http://")
STORES = ("s3://", "gs://", "az://", "abfss://", "file:///")
PATIENCE = 60.0
"""Seconds that a place may take for one step."""
_TRIES = 5


class Place(ABC):
    """Somewhere outside that keeps anchors.

    ``put`` may be called again with the same anchor, and then changes nothing; it returns only when the anchor is
    there. ``read`` returns every anchor that was ever put there, as far as the place still has it, oldest first. Both
    raise :class:`OrreryError` where the place does not answer or refuses.
    """

    @abstractmethod
    def put(self, anchor: Anchor) -> None:
        """Put an anchor there."""

    @abstractmethod
    def read(self) -> list[Anchor]:
        """Return the anchors that are there."""


def place(address: str, work: Path | None = None) -> Place:
    """Return the place with an address.

    Parameters
    ----------
    address : ``git+URL``, ``s3://``, ``gs://``, ``az://`` or ``file:///``, or the path of a folder.
    work : folder for a clone that is kept between two anchors; only who puts needs one.

    Raises
    ------
    NotUnderstood
        If it is none.
    """
    address = checked(address)
    if address.startswith(GIT):
        return GitPlace(address.removeprefix(GIT), work)
    if address.startswith(STAMPS):
        raise NotUnderstood(
            f"{address} gives time stamps and keeps none.", todo="Its stamps are in the anchors and on the timeline."
        )
    return StorePlace(address if "://" in address else Path(address).as_uri())


def checked(address: str) -> str:
    """Return an address that can be one; a path as it is seen from everywhere.

    Raises
    ------
    NotUnderstood
        If it cannot, or holds a password: addresses stand on the timeline.
    """
    known = (GIT, *STAMPS, *STORES)
    if not address.startswith(known) and "://" in address:
        raise NotUnderstood(
            f"Anchors cannot be put to {address!r}.",
            todo="Give git+URL, tsa+https://..., s3://..., gs://..., az://..., or the path of a folder.",
        )
    plain = address.removeprefix(GIT).removeprefix("tsa+")
    if urlsplit(plain).password:
        raise NotUnderstood(
            "An address of anchors holds a password, and addresses stand on the timeline.",
            safe="It was not used.",
            todo="Leave it to git's credential helper, an SSH key or the environment.",
        )
    return address if "://" in address else str(Path(address).expanduser().absolute())


class StorePlace(Place):
    """A bucket or a folder: an anchor is an object of its own, which is written only where there is none.

    Parameters
    ----------
    url : of a bucket or folder; credentials come from the environment.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def put(self, anchor: Anchor) -> None:
        """Put an anchor there, under a name that says what it is of."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        store, name = self._store(), f"{anchor.seq:012d}-{anchor.hash[:16]}.json"
        try:
            # If-None-Match: *. A bucket with retention also wants a checksum of what it is given.
            obstore.put(store, name, anchor.to_line().encode(), mode="create", use_multipart=False)
        except AlreadyExistsError:
            there = from_line(bytes(obstore.get(store, name).bytes()))
            if (there.seq, there.hash) != (anchor.seq, anchor.hash):
                raise OrreryError(f"{self._url} has another anchor as {name}.", safe="It was left alone.") from None
        except Exception as error:
            raise _refused(self._url, error) from error

    def read(self) -> list[Anchor]:
        """Return the anchors that are there."""
        import obstore

        try:
            store = self._store(make=False)
            names = [str(one["path"]) for batch in obstore.list(store) for one in batch]
            found = [bytes(obstore.get(store, name).bytes()) for name in sorted(names) if name.endswith(".json")]
        except OrreryError:
            raise
        except Exception as error:
            raise _refused(self._url, error) from error
        return [from_line(body) for body in found]

    def _store(self, make: bool = True) -> ObjectStore:
        from obstore.store import LocalStore, from_url

        if self._url.startswith("file://"):
            folder = Path(urlsplit(self._url).path)
            if not make and not folder.is_dir():
                raise NotFound(f"There is no folder {folder}.")
            return LocalStore(folder, mkdir=True)
        limits: Any = {"timeout": timedelta(seconds=PATIENCE), "connect_timeout": timedelta(seconds=10)}
        if os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true":
            limits["allow_http"] = True
        retry: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=PATIENCE)}
        if self._url.startswith("s3://"):
            return from_url(self._url, client_options=limits, retry_config=retry, checksum_algorithm="SHA256")
        return from_url(self._url, client_options=limits, retry_config=retry)


class GitPlace(Place):
    """A branch of a git repository: a file for each day, a line for each anchor, a commit for each line.

    Parameters
    ----------
    url : of the repository, as git takes it; git's own configuration says how one signs in.
    work : folder for the clone from which anchors are pushed.
    """

    def __init__(self, url: str, work: Path | None = None) -> None:
        self._url, self._work = url, work

    def put(self, anchor: Anchor) -> None:
        """Commit an anchor and push it; nothing is ever forced."""
        if self._work is None:
            raise NotUnderstood("A clone needs a folder.")
        folder = self._work / hashlib.sha256(self._url.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for attempt in range(_TRIES):
                if self._pushed(folder / "clone", anchor, last=attempt == _TRIES - 1):
                    return

    def read(self) -> list[Anchor]:
        """Return the anchors of every commit, also those that a later commit took away."""
        with tempfile.TemporaryDirectory(prefix="orrery-anchors-") as folder:
            self._git(Path(folder), "clone", "--quiet", "--bare", "--branch", BRANCH, self._url, "clone")
            words = ("log", "-m", "--reverse", "--format=", "--patch", "--unified=0", "--no-color", "--no-ext-diff")
            text = self._git(Path(folder, "clone"), *words, BRANCH)
        lines = (line[1:] for line in text.splitlines() if line.startswith("+{"))
        return [from_line(line) for line in dict.fromkeys(lines)]

    def _pushed(self, clone: Path, anchor: Anchor, last: bool) -> bool:
        """Put the anchor on top of what is there now; say whether nobody was faster."""
        if not (clone / ".git").is_dir():
            self._git(clone.parent, "init", "--quiet", f"--initial-branch={BRANCH}", str(clone))
        if self._git(clone, "ls-remote", "--heads", self._url, BRANCH).strip():
            self._git(clone, "fetch", "--quiet", self._url, BRANCH)
            self._git(clone, "reset", "--quiet", "--hard", "FETCH_HEAD")
        line, file = anchor.to_line(), clone / f"{anchor.at:%Y-%m-%d}.jsonl"
        if file.exists() and line in file.read_text().splitlines():
            return True
        with file.open("a") as day:
            day.write(f"{line}\n")
        self._git(clone, "add", file.name)
        self._git(clone, "commit", "--quiet", "--message", f"Event {anchor.seq} has the hash {anchor.hash}")
        try:
            self._git(clone, "push", "--quiet", self._url, f"HEAD:refs/heads/{BRANCH}")
        except OrreryError:
            if last:
                raise
            return False
        return True

    def _git(self, folder: Path, *words: str) -> str:
        said = {
            **os.environ,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20"),
            **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _SELF.items()},
        }
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            said.pop(name, None)
        quiet = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "gc.auto=0")
        try:
            done = subprocess.run(
                ["git", *quiet, *words], cwd=folder, env=said, capture_output=True, text=True, timeout=PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _refused(self._url, error) from error
        if done.returncode:
            raise _refused(self._url, done.stderr.strip() or f"git ended with {done.returncode}")
        return done.stdout


_SELF = {"NAME": "orrery", "EMAIL": "orrery@localhost"}


def _refused(url: str, error: object) -> OrreryError:
    said = str(error).strip().partition("\n\nDebug source")[0] or type(error).__name__
    return OrreryError(f"{url} does not take part: {' '.join(said.split())[:300]}.", safe="The timeline is as it was.")


def gathered(sources: Iterable[str]) -> list[Anchor]:
    """Return the anchors of several places, or files with one anchor a line.

    Raises
    ------
    NotUnderstood
        If one is no place, or holds something else.
    OrreryError
        If a place does not answer.
    """
    found: list[Anchor] = []
    for source in sources:
        if "://" not in source and Path(source).is_file():
            found += [from_line(line) for line in Path(source).read_bytes().splitlines() if line.strip()]
        else:
            found += place(source).read()
    return found


def split(text: str) -> Iterator[str]:
    """Yield the addresses of a setting, each once.

    Raises
    ------
    NotUnderstood
        If one cannot be one.
    """
    for address in dict.fromkeys(text.split()):
        yield checked(address)
