"""``orrery demo``: a private orrery, the example project, and the year 2013 played to it day by day."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl

from orrery.demo import flights
from orrery.demo.platform import Platform, copy_home
from orrery.demo.replay import Replay, copy_project
from orrery.demo.report import Row, as_json, of_baseline, of_orrery, table, verdicts
from orrery.demo.world import Model, end_with_parent
from orrery.errors import NotAllowed, NotUnderstood
from orrery.timeline.clock import ReplayClock
from orrery.timeline.event import Event
from orrery.types import PRODUCTION

NAME, DATASET = "flight-delay", "flights"
CALM = "without-incidents"
"""Folder in the home with the orrery that has the year without incidents."""
LOUD = ("alarmed", "promoted", "rolled_back", "gated", "quarantined", "business", "triggered", "failed")
"""Kinds of events that the demo tells while the year passes."""

FAST = (date(2013, 4, 1), date(2013, 5, 1), date(2013, 7, 31))
"""``--fast``: trained on April, May to July served; of the incidents only the Celsius feed lies in it."""


def run(
    home: Path | None = None, *, keep: bool = False, fast: bool = False, until: date | None = None, seed: int = 0
) -> int:
    """Play the main job and print what it measured; return the exit code.

    Up to the first incident a year with incidents and one without are the same. There the home is copied, and two
    orreries go on from it, each on its own clock: the copy, in the folder :data:`CALM`, has the year without them.

    Parameters
    ----------
    home : empty or new folder for the private orrery; a temporary one if none is given.
    keep : leave the orreries running at the end, so that their pages can be looked at, until Ctrl-C.
    fast : three months and one incident.
    until : last day to play, where the whole is too long; the days before it are played as they would be in the whole.
    seed : of the draw of flights in ``fast`` mode, which plays a third of them.

    Raises
    ------
    NotAllowed
        If the home holds something already.
    NotUnderstood
        If ``until`` is not one of the days that are played.
    """
    trained_from, first, last = FAST if fast else (flights.TRAINED_ON[0], *flights.SERVED)
    if until is not None and not first <= until <= last:
        raise NotUnderstood(f"{until} is not played.", todo=f"Give a day from {first} to {last}.")
    last = until or last
    folder = Path(home or tempfile.mkdtemp(prefix="orrery-demo-")).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise NotAllowed(f"The folder {folder} is not empty.", safe="Nothing was changed.", todo="Name a new one.")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    ReplayClock(folder / "clock").set(datetime(first.year, first.month, first.day, 4, tzinfo=UTC))
    platforms = [Platform(folder)]
    print(f"The pages of this run: {platforms[0].settings.control_url}/", flush=True)
    print(f"Its folder: {folder}", flush=True)
    try:
        truth = flights.load_flights(sample=1 / 3 if fast else 1.0, seed=seed)
        served = [day for day in flights.days(truth) if first <= day <= last]
        truth = flights.on(truth, trained_from, last)
        rows = Year(folder, truth, served, platforms, began).play((trained_from, first - timedelta(days=1)))
        (folder / "demo.json").write_text(json.dumps(as_json(rows), indent=1))
        _say(rows, began)
        if keep:
            pages = " and ".join(f"{platform.settings.control_url}/" for platform in platforms)
            print(f"The pages stay at {pages} until Ctrl-C.", flush=True)
            platforms[0].wait()
    except KeyboardInterrupt:
        return 130
    finally:
        for platform in platforms:
            platform.stop()
    return 0


class Year:
    """The year, as it is played to one orrery, then to two, and to the blind calendars beside them.

    Parameters
    ----------
    folder : home of the first orrery.
    truth : the flights that are played, as they were.
    served : days to play.
    platforms : the first orrery, running; the second is added.
    began : instant of the monotonic clock.
    """

    def __init__(
        self, folder: Path, truth: pl.DataFrame, served: list[date], platforms: list[Platform], began: float
    ) -> None:
        self._folder, self._truth, self._served, self._platforms = folder, truth, served, platforms
        self._began = began
        self._checkout = copy_project(folder / "work" / NAME)
        self._over = threading.Event()

    def play(self, trained_on: tuple[date, date]) -> list[Row]:
        """Play it all; return the rows of the table."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # a fork would inherit held locks
            told = Model(NAME, DATASET, flights.with_incidents(self._truth), self._checkout, True)
            replay = Replay(self._platforms[0].settings, told)
            brought = replay.bring(trained_on)
            baselines = _baselines(pool, self._folder, self._truth, self._served)
            self._platforms[0].await_up()
            replay.begin(brought)
            one = bisect_left(self._served, flights.CELSIUS[0])
            self._days(replay, NAME, range(one))
            calm = replay if one == len(self._served) else self._apart(replay, one)
            rows = [
                of_orrery(each.orrery, NAME, self._truth, incidents)
                for each, incidents in ((replay, True), (calm, False))
            ]
            for each in {replay, calm}:
                each.close()
            return rows + baselines.result()

    def _apart(self, replay: Replay, one: int) -> Replay:
        """Play the rest of the year twice at the same time: with the incidents, and in a copy without them."""
        replay.settle()
        replay.orrery.ship_journal()
        home = self._folder / CALM
        copy_home(self._folder, home, "work", "baselines")
        with ThreadPoolExecutor(2) as together:
            rest = range(one, len(self._served))
            copied = together.submit(self._copied, home, rest)
            playing: list[Future[Any]] = [together.submit(self._days, replay, "with incidents", rest), copied]
            try:
                for future in as_completed(playing):
                    future.result()
            finally:  # also when somebody presses Ctrl-C, or one of the two fails: the other ends after its day
                self._over.set()
        return copied.result()

    def _copied(self, home: Path, rest: range) -> Replay:
        """Start a second orrery on a copy of the home, and play the rest of the year to it as it was."""
        platform = Platform(home)
        self._platforms.append(platform)
        replay = Replay(platform.settings, Model(NAME, DATASET, self._truth, self._checkout, False))
        platform.await_up()
        print(f"From {self._served[rest[0]]} on also without incidents: {platform.settings.control_url}/", flush=True)
        note = "From here on a copy, which is told the year as it was: the incidents are injected into the other one."
        replay.orrery.event(NAME, why=note, actor="demo")
        self._days(replay, "without", rest)
        return replay

    def _days(self, replay: Replay, who: str, days: range) -> None:
        """Play days to one orrery; a line says where it stands, and others what happened."""
        seen = replay.orrery.timeline.head()[0]
        for number in days:
            if self._over.is_set():
                return
            day = self._served[number]
            replay.day(day)
            for event in replay.orrery.timeline.read(after=seen, kinds=LOUD):
                seen = max(seen, event.seq)
                if not _silent(event):
                    version = f"v{event.version}" if event.version else ""
                    print(f"  {event.occurred_at:%Y-%m-%d}  {who:14} {version:4} {event.kind:12} {event.why[:150]}")
            bar = "#" * (20 * (number + 1) // len(self._served))
            line = f"{day}  [{bar:20}]  {who:14} v{replay.champion()}  {time.monotonic() - self._began:.0f} s"
            if sys.stdout.isatty() or number % 14 == 0:
                print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)
        if days[-1] + 1 == len(self._served):
            replay.day(self._served[-1] + timedelta(days=1))


def _silent(event: Event) -> bool:
    """Say whether an event is one of the many that need no line of their own."""
    return (event.kind == "promoted" and event.environment != PRODUCTION) or (
        event.kind == "gated" and bool(event.data["passed"])
    )


def _baselines(pool: ProcessPoolExecutor, folder: Path, truth: pl.DataFrame, served: list[date]) -> Future[list[Row]]:
    bad = folder / "work" / "bad-commit"
    copy_project(bad)
    (bad / "pipeline.py").write_text(flights.bad_commit((bad / "pipeline.py").read_text()))
    path = folder / "work" / "truth.parquet"
    truth.write_parquet(path)
    return pool.submit(_play_baselines, path, folder / "work" / NAME, bad, folder / "cache", served)


def _play_baselines(path: Path, project: Path, bad: Path, cache: Path, served: list[date]) -> list[Row]:
    """Run in a process of its own, behind the replay."""
    os.environ["OMP_NUM_THREADS"] = "1"  # two idle-waiting threads behind a busy replay would cost it a core
    os.nice(10)
    end_with_parent()
    from orrery.demo.baselines import play_all

    truth = pl.read_parquet(path)
    return [
        of_baseline(outcome, truth, incidents)
        for outcome, incidents in play_all(truth, project, bad, cache / "baselines", served)
    ]


def _say(rows: list[Row], began: float) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print()
    console.print(table(rows))
    for sentence in verdicts(rows):
        console.print(sentence)
    console.print(f"One year in {time.monotonic() - began:.0f} s.")
