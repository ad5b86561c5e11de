"""What git calls when somebody pushes: first to accept or refuse, then to write it down and tell how it goes.

``pre-receive`` must be quick: nothing is imported for it but the reader of ``orrery.toml``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from orrery.errors import NotUnderstood, OrreryError
from orrery.settings import Settings

MAIN_REF = "refs/heads/main"
LARGEST_SPEC = 262_144  # bytes
QUIET = "ORRERY_STEP_PUSH_QUIET"
"""Variable that hands ``quiet`` of :func:`orrery.source.http.git_app` on to the hook."""
_ZEROS = "0" * 40


class Update(NamedTuple):
    """A branch or tag that a push moves: from, to (40 zeros: nothing), and its full name."""

    old: str
    new: str
    ref: str


def install(settings: Settings) -> Path:
    """Write the two hooks for this interpreter and return their folder; git finds it by its environment alone."""
    folder = settings.folder("hooks")
    for name in ("pre-receive", "post-receive"):
        fresh = folder / f".{name}.{os.getpid()}"
        fresh.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -m orrery.source.hooks {name}\n")
        fresh.chmod(0o755)
        fresh.replace(folder / name)
    return folder


def main(arguments: list[str], lines: Iterable[str], say: Callable[[str], None]) -> int:
    """Run one hook in a repository; its exit code decides, for ``pre-receive``, about the push."""
    updates = [Update(*line.split()) for line in lines]
    name = Path.cwd().name.removesuffix(".git")
    if arguments == ["pre-receive"]:
        try:
            for update in updates:
                check(name, update)
        except OrreryError as error:
            for sentence in (error.what, error.safe or "Nothing was changed.", error.todo):
                if sentence:
                    say(f"orrery: {sentence}")
            return 1
        return 0
    from orrery.source.progress import after_push

    after_push(name, updates, say, quiet=float(os.environ.get(QUIET, 15)))
    return 0


def check(name: str, update: Update) -> None:
    """Refuse a push that the loop could not start from.

    Raises
    ------
    NotUnderstood
        If it moves something else than branches and tags, removes main, or brings no readable ``orrery.toml`` to it.
    """
    if not update.ref.startswith(("refs/heads/", "refs/tags/")):
        raise NotUnderstood(f"{update.ref} is neither a branch nor a tag.")
    if update.ref != MAIN_REF:
        return
    if update.new == _ZEROS:
        raise NotUnderstood("The branch main cannot be removed: the timeline names its commits.")
    from orrery.spec import parse

    spec = parse(_spec(update.new))
    if spec.model.name != name:
        raise NotUnderstood(
            f"orrery.toml says that the model is {spec.model.name!r}, and this is the repository of {name!r}.",
            todo=f"Push to .../git/{spec.model.name}.git, or change the name in orrery.toml.",
        )


def _spec(commit: str) -> str:
    listed = _git("ls-tree", "-l", commit, "orrery.toml").split()
    if not listed:
        raise NotUnderstood(
            f"The commit {commit[:7]} has no orrery.toml.",
            todo="Write one (`orrery init` makes a project that works as it is), commit it, and push again.",
        )
    if listed[0] not in ("100644", "100755"):
        raise NotUnderstood("orrery.toml is not a plain file.")
    if int(listed[3]) > LARGEST_SPEC:
        raise NotUnderstood(f"orrery.toml has {listed[3]} bytes; {LARGEST_SPEC} is the most that is read.")
    return _git("cat-file", "blob", f"{commit}:orrery.toml")


def _git(*command: str) -> str:
    # The environment is git's own: the new commits are still in quarantine, and only it says where.
    done = subprocess.run(["git", *command], capture_output=True)
    if done.returncode != 0:
        raise NotUnderstood(f"git {command[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    try:
        return done.stdout.decode()
    except UnicodeDecodeError:
        raise NotUnderstood("orrery.toml is not UTF-8 text.") from None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], sys.stdin, lambda line: print(line, flush=True)))
