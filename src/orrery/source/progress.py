"""What a push prints: where to look, and each step until the candidate is judged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from orrery.errors import OrreryError
from orrery.settings import Settings, load
from orrery.source.git import MAIN, NOTHING, Source, record_push
from orrery.timeline.clock import clock_of
from orrery.timeline.event import Event
from orrery.timeline.store import Timeline, connect

if TYPE_CHECKING:
    from orrery.source.hooks import Update

LONGEST = 600.0
"""Seconds that a push is followed at most."""
AFTERWARDS = 2.0
"""Seconds to wait for what follows at once from a judgement."""

Say = Callable[[str], None]


def after_push(name: str, updates: Sequence[Update], say: Say, *, quiet: float) -> None:
    """Write the push down and follow what comes of it; called when the push is in and cannot be refused any more."""
    settings = load()
    for update in updates:
        branch = update.ref.removeprefix("refs/heads/")
        if update.ref.startswith("refs/heads/") and branch != MAIN and update.new != NOTHING:
            say(f"orrery: {branch} is kept; only {MAIN} starts the loop.")
    on_main = next((one for one in updates if one.ref == f"refs/heads/{MAIN}"), None)
    if on_main is None:
        return
    actor = os.environ.get("REMOTE_USER") or "git"
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[variable]  # Source says anew what git may see
    try:
        timeline = Timeline(connect(settings.database), clock_of(settings))
        event = record_push(Source(settings), timeline, name, on_main.old, on_main.new, actor)
        follow(timeline, settings, event, say, quiet=quiet)
    except (OrreryError, sa.exc.SQLAlchemyError) as error:
        say(f"orrery: The push is kept, but it cannot be written down now: {str(error).splitlines()[0]}")
        say("orrery: It starts by itself when orrery can reach its database again.")


def follow(
    timeline: Timeline,
    settings: Settings,
    pushed: Event,
    say: Say,
    *,
    quiet: float,
    longest: float = LONGEST,
) -> None:
    """Print a line for each step of a pushed commit, until it is judged, fails or waits for a dataset.

    Parameters
    ----------
    quiet : seconds without an event and without a worker that holds a lease, after which it ends and says so.
    longest : seconds after which it ends in any case.
    """
    commit = pushed.data["commit"]
    address = f"{settings.control_url}/{pushed.model}/commits/{commit[:7]}"
    say(f"orrery: {pushed.model} @ {commit[:7]}   {address}")
    theirs = _Theirs(commit)
    seen, started = pushed.seq, time.monotonic()
    heard, judged = started, False
    while True:
        for event in timeline.read(pushed.model, after=seen):
            seen = event.seq
            if theirs.has(event):
                heard = time.monotonic()
                for line in lines_of(event, address):
                    say(line)
                judged = judged or _ends(event)
        now = time.monotonic()
        if judged and now - heard > AFTERWARDS and not _somebody_works(timeline, commit):
            return
        if now - started > longest:
            say(f"orrery: Still at work after {longest / 60:.0f} minutes; it goes on without this terminal.")
            return
        if now - heard > quiet and not judged and not _somebody_works(timeline):
            say("orrery: No worker is running, so this waits: `orrery up` starts one. The push is kept.")
            return
        time.sleep(0.2)


def lines_of(event: Event, address: str) -> Iterator[str]:
    """Write an event as the lines of a push."""
    data = event.data
    if event.kind == "built":
        packages = data.get("packages")
        count = len(packages) if isinstance(packages, (list, dict)) else packages
        yield _line("environment", "locked, cached" if data.get("cached") else f"locked, {count} packages", data)
    elif event.kind == "tested":
        passed = data.get("passed")
        yield _line("tests", f"{passed} passed" if passed else event.why, data)
    elif event.kind == "trained":
        pins = "  ".join(f"{name}@v{number}" for name, number in (data.get("data") or {}).items())
        yield _line("train", f"version {event.version}  {pins}", data)
    elif event.kind == "gated":
        gates: dict[str, dict[str, Any]] = data.get("gates") or {}
        first = "gates" if data.get("passed") else "gates REFUSED"
        for name, verdict in gates.items():
            word = {"passed": "ok", "insufficient": "not enough data"}.get(verdict.get("verdict", ""), "refused")
            yield _line(first, f"{name} {word}: {verdict.get('why', '')}", {})
            first = ""
        if not gates:
            yield _line(first, event.why, {})
        if not data.get("passed"):
            yield _line("", f"evidence: {address}", {})
    elif event.kind == "not_triggered":
        yield _line("WAITS", event.why, {})
    elif event.kind == "failed":
        yield _line("FAILED", event.why, {})
        for line in str(data.get("output") or "").strip().splitlines()[-15:]:
            yield _line("", line, {})
        yield _line("", f"all of it: {address}", {})
    elif event.kind in ("promoted", "review_requested", "issue_opened", "challenged"):
        yield _line(f"version {event.version}" if event.version else "", event.why, {})


def _ends(event: Event) -> bool:
    """Whether nothing more comes of a commit by itself: it is judged, it failed, or it waits for its data."""
    return event.kind in ("gated", "not_triggered") or (event.kind == "failed" and event.data.get("final", True))


class _Theirs:
    """Tells which events of a model belong to one commit: those of it, of its runs, and of their versions."""

    def __init__(self, commit: str) -> None:
        self._commit = commit
        self._runs: set[str] = set()
        self._versions: set[int] = set()

    def has(self, event: Event) -> bool:
        mine = (
            event.data.get("commit") == self._commit
            or event.data.get("run") in self._runs
            or event.version in self._versions
        )
        if mine and event.data.get("run"):
            self._runs.add(event.data["run"])
        if mine and event.kind == "trained" and event.version is not None:
            self._versions.add(event.version)
        return mine


def _line(what: str, text: str, data: dict[str, Any]) -> str:
    seconds = data.get("seconds")
    took = f"{seconds:6.1f} s" if isinstance(seconds, (int, float)) else ""
    return f"  {what:<13} {text:<48} {took}".rstrip()


def _somebody_works(timeline: Timeline, commit: str = "") -> bool:
    """Whether any worker holds a lease; with a commit, one of an action on it, as its tests in an environment."""
    query = sa.text("SELECT 1 FROM leases WHERE until > :now AND action LIKE :of")
    with timeline.reading() as connection:
        held = connection.execute(query, {"now": time.time(), "of": f"%{commit}%"}).first()
    return held is not None
