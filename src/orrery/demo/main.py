"""``orrery demo``: a private orrery, the example project, and the year 2013 played to it day by day."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import polars as pl

from orrery.app import Orrery
from orrery.demo import flights
from orrery.demo.replay import Replay, copy_project
from orrery.demo.report import Row, as_json, costs_of, of_baseline, of_orrery, table, verdicts
from orrery.demo.world import Model, end_with_parent
from orrery.errors import NotAllowed, NotUnderstood, OrreryError
from orrery.settings import SETTINGS, load
from orrery.timeline.clock import ReplayClock

FAST = (date(2013, 4, 1), date(2013, 5, 1), date(2013, 7, 31))
"""``--fast``: trained on April, May to July served; of the incidents only the Celsius feed lies in it."""


def run(
    home: Path | None = None, *, keep: bool = False, fast: bool = False, until: date | None = None, seed: int = 0
) -> int:
    """Play the main job and print what it measured; return the exit code.

    Parameters
    ----------
    home : empty or new folder for the private orrery; a temporary one if none is given.
    keep : leave the orrery running at the end, so that its pages can be looked at, until Ctrl-C.
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
    port, serving_port = _free_ports(2)
    settings = load(folder, port=port, serving_port=serving_port, workers=2, replay=True)
    print(f"The pages of this run: {settings.control_url}/", flush=True)
    print(f"Its folder: {folder}", flush=True)
    platform = _up(folder, port, serving_port)
    try:
        truth = flights.load_flights(sample=1 / 3 if fast else 1.0, seed=seed)
        trained_on = (trained_from, first - timedelta(days=1))
        served = [day for day in flights.days(truth) if first <= day <= last]
        truth = flights.on(truth, trained_from, last)
        models = [
            Model("flight-delay", "flights", _with_incidents(truth), folder / "work" / "flight-delay", True),
            Model("flight-delay-calm", "flights-calm", truth, folder / "work" / "flight-delay-calm", False),
        ]
        for model in models:
            copy_project(model.checkout, model.name, model.dataset)
        replay = Replay(Orrery(settings), models)
        rows = _year(replay, platform, folder, truth, served, trained_on, began)
        (folder / "demo.json").write_text(json.dumps(as_json(rows), indent=1))
        _say(rows, began)
        replay.close()
        if keep:
            print(f"The pages stay at {settings.control_url}/ until Ctrl-C.", flush=True)
            platform.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        _stop(platform)
    return 0


def _year(
    replay: Replay,
    platform: subprocess.Popen[bytes],
    folder: Path,
    truth: pl.DataFrame,
    served: list[date],
    trained_on: tuple[date, date],
    began: float,
) -> list[Row]:
    """Play the year to the orrery, and to the blind calendars beside it; return the rows of the table."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # a fork would inherit held locks
        brought = replay.bring(trained_on)
        baselines = _baselines(pool, folder, truth, served)
        _wait_for(replay, platform)
        replay.begin(brought)
        _play(replay, served, began)
        costs = costs_of(replay.orrery, [model.name for model in replay.models])
        rows = [of_orrery(replay.orrery, model.name, truth, model.incidents, costs) for model in replay.models]
        return rows + [row for future in baselines for row in future.result()]


def _play(replay: Replay, served: list[date], began: float) -> None:
    """Play every day; a line says where the year stands and what happened."""
    seen = replay.orrery.timeline.head()[0]
    for number, day in enumerate(served):
        replay.day(day)
        loud = ("alarmed", "promoted", "rolled_back", "gated", "quarantined", "business", "triggered", "failed")
        for event in replay.orrery.timeline.read(after=seen, kinds=loud):
            seen = max(seen, event.seq)
            if event.kind == "promoted" and event.environment != "production":
                continue
            if event.kind == "gated" and event.data["passed"]:
                continue
            version = f"v{event.version}" if event.version else ""
            print(f"  {event.occurred_at:%Y-%m-%d}  {event.model:18} {version:4} {event.kind:12} {event.why[:150]}")
        champions = "  ".join(f"{model.name} v{replay.champion(model)}" for model in replay.models)
        bar = "#" * (20 * (number + 1) // len(served))
        line = f"{day}  [{bar:20}]  {champions}  {time.monotonic() - began:.0f} s"
        print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True) if (
            sys.stdout.isatty() or number % 14 == 0
        ) else None
    replay.day(served[-1] + timedelta(days=1))


def _with_incidents(truth: pl.DataFrame) -> pl.DataFrame:
    return flights.with_on_time_labels(flights.with_celsius_feed(truth))


def _baselines(
    pool: ProcessPoolExecutor, folder: Path, truth: pl.DataFrame, served: list[date]
) -> list[Future[list[Row]]]:
    bad = folder / "work" / "bad-commit"
    copy_project(bad, "flight-delay", "flights")
    (bad / "pipeline.py").write_text(flights.bad_commit((bad / "pipeline.py").read_text()))
    path = folder / "work" / "truth.parquet"
    truth.write_parquet(path)
    work = (path, folder / "work" / "flight-delay", bad, folder / "cache", served)
    return [pool.submit(_play_baselines, *work, incidents) for incidents in (True, False)]


def _play_baselines(
    path: Path, project: Path, bad: Path, cache: Path, served: list[date], incidents: bool
) -> list[Row]:
    """Run in a process of its own, behind the replay."""
    os.environ["OMP_NUM_THREADS"] = "1"  # two idle-waiting threads behind a busy replay would cost it a core
    os.nice(10)
    end_with_parent()
    from orrery.demo.baselines import play_all

    truth = pl.read_parquet(path)
    return [
        of_baseline(outcome, truth, incidents)
        for outcome in play_all(truth, project, bad, cache / "baselines", served, incidents)
    ]


def _up(folder: Path, port: int, serving_port: int) -> subprocess.Popen[bytes]:
    """Start ``orrery up`` as anybody would, with its output in a file."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    words = [sys.executable, "-m", "orrery.cli.main", "up", "--home", str(folder), "--workers", "2"]
    words += ["--port", str(port), "--serving-port", str(serving_port)]
    with (folder / "up.log").open("wb") as log:
        return subprocess.Popen(
            words,
            stdout=log,
            stderr=log,
            env={**environment, "ORRERY_CLOCK": "replay"},
            start_new_session=True,
            preexec_fn=end_with_parent,
        )


def _wait_for(replay: Replay, platform: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if platform.poll() is not None:
            log = (replay.orrery.settings.home / "up.log").read_text()
            raise OrreryError(f"orrery up ended at once: {log[-2000:]}")
        try:
            if (
                replay.control.get("/api/status").status_code == 200
                and replay.serving.get("/v2/health/live").is_success
            ):
                return
        except Exception:  # not up yet: the next try tells
            time.sleep(0.1)
    raise OrreryError("orrery up does not answer.", todo=f"See {replay.orrery.settings.home / 'up.log'}.")


def _stop(platform: subprocess.Popen[bytes]) -> None:
    if platform.poll() is None:
        platform.send_signal(signal.SIGTERM)
        try:
            platform.wait(30)
        except subprocess.TimeoutExpired:
            platform.kill()


def _say(rows: list[Row], began: float) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print()
    console.print(table(rows))
    for sentence in verdicts(rows):
        console.print(sentence)
    console.print(f"One year in {time.monotonic() - began:.0f} s.")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
