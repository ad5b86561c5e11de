"""Bare git repositories, and read-only checkouts of their commits.

Git runs with an environment of its own: no configuration of the machine or of the user, no hook but ours, and nothing
that came in by a push is ever executed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orrery.errors import NotFound, NotUnderstood
from orrery.settings import Settings
from orrery.spec import parse, to_dict
from orrery.timeline.event import Draft, Event
from orrery.types import address_mark, check_name, digest, parse_instant

if TYPE_CHECKING:
    from orrery.timeline.store import Timeline

MAIN = "main"
"""The branch that starts the loop."""
SPEC = "orrery.toml"
NOTHING = "0" * 40
"""What git calls a branch that is not there."""
LONGEST_DIFF = 1_000_000

_MOVED = "orrery-moved.json"
_log = logging.getLogger(__name__)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HANDED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


@dataclass(frozen=True)
class Commit:
    """One commit: its full id, who wrote it, when (UTC), and the message."""

    id: str
    author: str
    at: datetime
    message: str


@dataclass(frozen=True)
class File:
    """One file of a commit: its path, and its size in bytes."""

    path: str
    size: int


class Source:
    """The repositories of one orrery; may be shared by threads and processes.

    Parameters
    ----------
    settings : whose home has the folders ``repos`` and ``checkouts``.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.repos = settings.home / "repos"
        self.checkouts = settings.home / "checkouts"

    def names(self) -> list[str]:
        """Return the names of all repositories."""
        return sorted(path.stem for path in self.repos.glob("*.git") if path.is_dir())

    def path(self, name: str) -> Path:
        """Return where a repository is.

        Raises
        ------
        NotUnderstood
            If it cannot be a name.
        NotFound
            If there is no such repository.
        """
        path = self.repos / f"{check_name(name)}.git"
        if not path.is_dir():
            raise NotFound(f"There is no repository {name}.", todo="It is made by the first push to its address.")
        return path

    def create(self, name: str) -> Path:
        """Return where a repository is, made empty if it is not there.

        Raises
        ------
        NotUnderstood
            If it cannot be a name.
        """
        path = self.repos / f"{check_name(name)}.git"
        if path.is_dir():
            return path
        fresh = self.repos / f".new-{uuid.uuid4().hex}"
        self.settings.folder("repos")
        command = ["git", "init", "--quiet", "--bare", "--template=", f"--initial-branch={MAIN}", str(fresh)]
        subprocess.run(command, env=environment(self.settings), check=True, capture_output=True)
        try:
            fresh.rename(path)
        except OSError:
            shutil.rmtree(fresh)
            if not path.is_dir():  # else another push was faster
                raise
        return path

    def tip(self, name: str, branch: str = MAIN) -> str | None:
        """Return the newest commit of a branch, or None where there is none."""
        done = self._run(name, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}", check=False)
        return done.decode().strip() or None

    def checkout(self, name: str, commit: str) -> Path:
        """Return a folder with the files of a commit, read-only, made if it is not there.

        Raises
        ------
        NotFound
            If there is no such commit.
        NotUnderstood
            If the commit holds a symbolic link that leads outside of it.
        """
        commit = self.resolve(name, commit)
        path = self.checkouts / name / commit
        if path.is_dir():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.parent / f".new-{uuid.uuid4().hex}"
        index = {"GIT_INDEX_FILE": str(fresh.with_suffix(".index")), "GIT_WORK_TREE": str(fresh)}
        try:
            fresh.mkdir()
            self._run(name, "read-tree", commit, more=index)
            self._run(name, "checkout-index", "--all", more=index)
            _refuse_ways_out(fresh)
            _make_read_only(fresh)
            try:
                fresh.rename(path)
            except OSError:
                if not path.is_dir():  # else somebody else was faster
                    raise
        finally:
            _remove(fresh)
            fresh.with_suffix(".index").unlink(missing_ok=True)
        return path

    def resolve(self, name: str, commit: str) -> str:
        """Return the full id of a commit that is named by its id, the beginning of it, or a branch.

        Raises
        ------
        NotFound
            If there is no such commit, or the beginning fits several.
        """
        if _COMMIT.fullmatch(commit) and (self.checkouts / name / commit).is_dir():
            return commit
        named = f"{commit}^{{commit}}"
        done = self._run(name, "rev-parse", "--verify", "--quiet", "--end-of-options", named, check=False)
        found = done.decode().split()[-1:]  # git repeats the option before the id
        if not found or not _COMMIT.fullmatch(found[0]):
            raise NotFound(f"There is no commit {commit!r} in {name}.")
        return found[0]

    def files(self, name: str, commit: str) -> list[File]:
        """Return the files of a commit."""
        listed = self._run(name, "ls-tree", "-r", "-z", "--long", self.resolve(name, commit)).decode(errors="replace")
        files = []
        for entry in filter(None, listed.split("\0")):
            about, _, path = entry.partition("\t")
            size = about.split()[-1]
            if size != "-":  # another repository, which is not fetched
                files.append(File(path=path, size=int(size)))
        return files

    def text(self, name: str, commit: str, path: str) -> str:
        """Return the content of one file of a commit.

        Raises
        ------
        NotFound
            If there is no such file.
        """
        commit = self.resolve(name, commit)
        done = self._run(name, "cat-file", "blob", f"{commit}:{path}", check=False)
        if done == b"" and path not in {file.path for file in self.files(name, commit)}:
            raise NotFound(f"There is no file {path} in {name} @ {commit[:7]}.")
        return done.decode(errors="replace")

    def diff(self, name: str, a: str, b: str) -> str:
        """Return what changed from one commit to another, as a unified diff; a very long one is cut."""
        ids = (self.resolve(name, a), self.resolve(name, b))
        done = self._run(name, "diff", "--no-ext-diff", "--no-textconv", "--no-color", *ids).decode(errors="replace")
        return done if len(done) <= LONGEST_DIFF else done[:LONGEST_DIFF] + "\n(the rest is not shown)\n"

    def log(self, name: str, commit: str = MAIN, *, limit: int = 100) -> list[Commit]:
        """Return a commit and those before it, the newest first; none where the branch is empty."""
        if commit == MAIN and self.tip(name) is None:
            return []
        form = "--format=%H%x1f%an%x1f%cI%x1f%B%x1e"
        done = self._run(name, "log", f"--max-count={limit}", form, self.resolve(name, commit))
        commits = []
        for record in filter(None, (part.strip() for part in done.decode(errors="replace").split("\x1e"))):
            id_, author, at, message = record.split("\x1f", 3)
            commits.append(Commit(id=id_, author=author, at=parse_instant(at), message=message.strip()))
        return commits

    def authors(self, name: str, old: str, new: str) -> list[str]:
        """Return who wrote the commits that a push brought, 200 at most: names, and marks of their addresses."""
        reach = new if old == NOTHING else f"{old}..{new}"
        done = self._run(name, "log", "--max-count=1000", "--format=%an%x1f%ae", reach, "--", check=False)
        written = dict.fromkeys(done.decode(errors="replace").splitlines())
        pairs = (line.partition("\x1f")[::2] for line in written)
        return list(dict.fromkeys(one for author, mail in pairs for one in (author, address_mark(mail))))[:200]

    def reaches(self, name: str, a: str, b: str) -> bool:
        """Say whether a commit is another one, or before it."""
        first = self.resolve(name, a)
        return self._run(name, "merge-base", first, self.resolve(name, b), check=False).decode().strip() == first

    def move(self, name: str, old: str, new: str, actor: str, why: str) -> bool:
        """Move main from a commit to another, if it is there; who did it is kept until it is written down."""
        note = self.path(name) / _MOVED
        fresh = note.with_suffix(".new")
        fresh.write_text(json.dumps({"commit": new, "actor": actor, "why": why}))
        fresh.replace(note)
        self._run(name, "update-ref", f"refs/heads/{MAIN}", new, old, check=False)
        return self.tip(name) == new

    def moved_by(self, name: str, commit: str) -> tuple[str, str]:
        """Return who moved main to a commit that was fetched, and why; empty if nobody did."""
        try:
            found = json.loads((self.path(name) / _MOVED).read_text())
        except (OSError, ValueError):
            return "", ""
        return (found["actor"], found["why"]) if found["commit"] == commit else ("", "")

    def _run(
        self,
        name: str,
        *command: str,
        more: dict[str, str] | None = None,
        check: bool = True,
    ) -> bytes:
        """Run git in a repository and return what it prints; an expected failure without ``check`` prints nothing."""
        path = self.path(name)
        done = subprocess.run(
            ["git", f"--git-dir={path}", *command],
            env=environment(self.settings, path) | (more or {}),
            cwd=(more or {}).get("GIT_WORK_TREE", path),
            capture_output=True,
        )
        if done.returncode == 0:
            return done.stdout
        if check:
            said = done.stderr.decode(errors="replace").strip()
            raise NotFound(f"git {command[0]} in {name} failed: {said}")
        return b""


def record_push(source: Source, timeline: Timeline, name: str, old: str, new: str, actor: str, why: str = "") -> Event:
    """Write down that a commit arrived on main, once: a second telling gives the event that is there.

    Parameters
    ----------
    old, new : what main was before, 40 zeros if nothing; and what it is.

    Raises
    ------
    NotUnderstood
        If the commit has no readable ``orrery.toml``.
    """
    events = timeline.read(name, kinds=["pushed"])
    pushes = [event for event in events if event.data.get("branch") == MAIN]
    if pushes and pushes[-1].data["commit"] == new:
        return pushes[-1]
    commit = source.log(name, new, limit=1)[0]
    spec = to_dict(parse(source.text(name, new, SPEC)))
    subject = commit.message.partition("\n")[0][:200]
    draft = Draft(
        # the number of pushes so far: going back to an earlier commit is a push of its own
        id=digest(["pushed", name, MAIN, old, new, len(pushes)]),
        kind="pushed",
        actor=actor,
        why=why or f"Pushed to {MAIN}: {subject}",
        model=name,
        data={
            "commit": new,
            "branch": MAIN,
            "message": commit.message[:10_000],
            "author": commit.author,
            "authors": source.authors(name, old, new),
            "spec": spec,
        },
    )
    return timeline.append([draft])[0]


def announce(source: Source, timeline: Timeline) -> list[Event]:
    """Write down the pushes whose event is missing: git cannot take a push back when the database is away.

    A repository whose newest commit cannot be read is passed over: its push was refused in words then.
    """
    told = []
    for name in source.names():
        tip = source.tip(name)
        newest = next((e for e in timeline.read(name, kinds=["pushed"], newest_first=True, limit=1)), None)
        if tip is None or (newest is not None and newest.data["commit"] == tip):
            continue
        old = newest.data["commit"] if newest else NOTHING
        why = f"Found on {MAIN} without an event: the push was kept, but it could not be written down then."
        actor, said = source.moved_by(name, tip)
        try:
            told.append(record_push(source, timeline, name, old, tip, actor or "orrery/source", said or why))
        except NotUnderstood as error:
            _log.warning("%s @ %s is not started: %s", name, tip[:7], error)
    return told


def environment(
    settings: Settings, repository: Path | None = None, more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment that git runs in, and with it our hooks: nothing of the machine's or the user's.

    Parameters
    ----------
    more : configuration besides ours.
    """
    configured = {
        "core.hooksPath": str(settings.home / "hooks"),
        "safe.directory": str(repository or "*"),
        "http.receivepack": "true",
        "receive.fsckObjects": "true",
        "receive.autogc": "false",  # what a forced push leaves behind is still named by the timeline
        "gc.auto": "0",
        "transfer.fsckObjects": "true",
        "core.fsmonitor": "false",
        **(more or {}),
    }
    variables = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    variables |= {
        "HOME": str(settings.home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(configured)),
    }
    for number, (name, value) in enumerate(configured.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def _refuse_ways_out(folder: Path) -> None:
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise NotUnderstood(
                f"The symbolic link {path.relative_to(folder)} leads outside of the project.",
                todo="Replace it by a file of the project.",
            )


def _make_read_only(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o555)


def _remove(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
