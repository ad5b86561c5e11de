"""Plays the year to an orrery, day by day: what a weather feed, an airline and a few people would do."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl

from orrery.app import Orrery
from orrery.demo import flights
from orrery.errors import OrreryError, ProjectFailed
from orrery.timeline.clock import ReplayClock
from orrery.types import PRODUCTION

ROWS_PER_REQUEST = 250
MORNING = 5  # o'clock: labels of yesterday are known, requests of today come in
TESTS = "tests/test_pipeline.py"
PATIENCE = 300.0  # seconds that a day may take before something is wrong


@dataclass
class Model:
    """One of the two models that the year is played to.

    Parameters
    ----------
    name, dataset : as orrery knows them.
    told : the year as the feeds tell it.
    checkout : working copy of its project.
    incidents : whether the three incidents are injected.
    """

    name: str
    dataset: str
    told: pl.DataFrame
    checkout: Path
    incidents: bool

    def __post_init__(self) -> None:
        self._by_day = {day: flights.on(self.told, day) for day in flights.days(self.told)}

    def day(self, day: date) -> pl.DataFrame:
        """Return the flights of a day, none where the year has none."""
        return self._by_day.get(day, self.told.clear())


class Replay:
    """The year, an orrery, and the two models.

    Parameters
    ----------
    orrery : opened on the home in which ``orrery up`` runs.
    models : see :class:`Model`.
    """

    def __init__(self, orrery: Orrery, models: list[Model]) -> None:
        assert isinstance(orrery.clock, ReplayClock)
        self.orrery = orrery
        self.clock = orrery.clock
        self.models = models
        self.control = httpx.Client(base_url=orrery.settings.control_url, timeout=30)
        self.serving = httpx.Client(base_url=orrery.settings.serving_url, timeout=60)
        self.pool = ThreadPoolExecutor(len(models))

    def begin(self, truth: pl.DataFrame, trained_on: tuple[date, date]) -> None:
        """Bring the first data, push the project, and let a second person approve the first version."""
        for model in self.models:
            first = flights.on(model.told, *trained_on)
            self.orrery.add_data(
                model.dataset,
                first,
                why=f"Flights of {trained_on[0]:%B %Y}",
                actor="feed",
                key=f"{model.dataset}-first",
            )
        list(self.pool.map(self.push, self.models))
        self.settle()
        for model in self.models:
            (waiting,) = {version.number for version, _, _ in self.orrery.model(model.name).waiting()}
            self.orrery.approve(model.name, waiting, why="Read the gates; good enough to learn from.", actor="mara")
        self.settle()
        for model in self.models:
            if self.orrery.model(model.name).champion() is None:
                raise ProjectFailed(f"The first version of {model.name} did not reach production.")

    def day(self, day: date) -> None:
        """Play one day: yesterday's labels and rows, the loop's morning, today's requests; both models at once."""
        morning = datetime(day.year, day.month, day.day, MORNING, tzinfo=UTC)
        list(self.pool.map(lambda model: self._land(model, day - timedelta(days=1), morning), self.models))
        self.clock.set(morning)
        for model in self.models:
            self._incidents(model, day)
        self.settle()
        self.clock.set(morning + timedelta(hours=1))
        list(self.pool.map(lambda model: self.ask(model, flights.requests_for(model.day(day), day)), self.models))

    def _land(self, model: Model, yesterday: date, morning: datetime) -> None:
        """Bring what became known of a day: labels for its predictions, rows for the next training."""
        landed = model.day(yesterday)
        if not len(landed) or yesterday < self.first:
            return
        labels = flights.labels_for(landed, yesterday).select(
            entity="flight_id", label="late", at=pl.lit(morning).cast(pl.Datetime("us", "UTC"))
        )
        self.orrery.add_labels(model.name, labels, actor="feed", key=f"{model.name}-{yesterday}")
        self.orrery.add_data(
            model.dataset,
            landed,
            why=f"Flights of {yesterday}",
            actor="feed",
            key=f"{model.dataset}-{yesterday}",
            occurred_at=morning,
        )

    first: date = flights.SERVED[0]

    def ask(self, model: Model, requests: pl.DataFrame) -> None:
        """Send a day's requests to the inference server, and wait until the challengers have seen them too."""
        for number, part in enumerate(requests.iter_slices(ROWS_PER_REQUEST)):
            inputs = []
            for series in part.get_columns():
                kind = "BYTES" if series.dtype in (pl.String, pl.Datetime("us", "UTC")) else "FP64"
                if kind == "BYTES":
                    values = (
                        series.cast(pl.String)
                        if series.dtype == pl.String
                        else series.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
                    )
                else:
                    values = series.cast(pl.Float64)
                inputs.append({"name": series.name, "shape": [len(part)], "datatype": kind, "data": values.to_list()})
            body = {"id": f"{part['flight_id'][0]}.{number}", "inputs": inputs}
            answer = self.serving.post(f"/v2/models/{model.name}/infer", json=body, headers={"Prefer": "wait-shadow"})
            if answer.status_code != 200:
                raise OrreryError(f"{model.name} did not answer: {answer.status_code} {answer.text[:500]}")

    def push(self, model: Model, message: str = "The first model") -> str:
        """Commit what is in the working copy and push it; return what the push said."""
        url = f"{self.orrery.settings.control_url}/git/{model.name}.git"
        if not (model.checkout / ".git").exists():
            _git(model.checkout, "init", "-q", "-b", "main")
            _git(model.checkout, "remote", "add", "orrery", url)
        _git(model.checkout, "add", "-A")
        _git(model.checkout, "commit", "-q", "--allow-empty", "-m", message, at=self.clock.now())
        return _git(model.checkout, "-c", "http.extraHeader=X-Orrery-Actor: ann", "push", "-q", "orrery", "main")

    def settle(self) -> None:
        """Wait until nothing is due and the inference server serves what it should."""
        patience = time.monotonic() + PATIENCE
        seen: object = None
        resting = False
        while time.monotonic() < patience:
            head = self.orrery.timeline.head()
            if head != seen:
                seen, resting = head, self.orrery.settled()
            if resting and self.control.get("/api/status").json()["settled"]:
                return
            time.sleep(0.02)
        due = {model.name: [action.key for action in self.orrery.due(model.name)] for model in self.models}
        raise OrreryError(f"The loop did not come to rest in {PATIENCE:.0f} s.", todo=f"Still due: {due}.")

    def _incidents(self, model: Model, day: date) -> None:
        if not model.incidents:
            return
        note = self.orrery.event
        if day == flights.CELSIUS[0]:
            note(model.name, why="Injected incident: a weather feed gives Celsius for ten days.", actor="demo")
        if day == flights.ON_TIME_LABELS + timedelta(days=1):
            note(model.name, why="Injected incident: yesterday's labels all arrive as on time.", actor="demo")
        if day == flights.BAD_COMMIT:
            note(model.name, why="Injected incident: a commit whose feature leaks the target.", actor="demo")
            for name, change in (("pipeline.py", flights.bad_commit), (TESTS, flights.bad_test_data)):
                file = model.checkout / name
                file.write_text(change(file.read_text()))
            self.push(model, "Use how long the aircraft waited at the gate")
        if day == flights.CORRECTION:
            for name in ("pipeline.py", TESTS):
                (model.checkout / name).write_text((project_folder() / name).read_text())
            self.push(model, "Take the waiting time out again: no request has it")

    def champion(self, model: Model) -> int | None:
        """Return the version that answers in production."""
        return self.orrery.model(model.name).lane(PRODUCTION).champion

    def close(self) -> None:
        """Close the connections."""
        self.pool.shutdown()
        self.control.close()
        self.serving.close()
        self.orrery.timeline.engine.dispose()


def project_folder() -> Path:
    """Return the example project: in the repository, or as it was installed."""
    installed = Path(__file__).with_name("project")
    return installed if installed.is_dir() else Path(__file__).parents[3] / "examples" / "flight-delay"


def copy_project(target: Path, name: str, dataset: str) -> Path:
    """Copy the example project under another name and for another dataset."""
    shutil.copytree(project_folder(), target, ignore=shutil.ignore_patterns("__pycache__", ".git"))
    file = target / "orrery.toml"
    text = file.read_text().replace('name        = "flight-delay"', f'name        = "{name}"')
    file.write_text(text.replace('flights = "flights"', f'flights = "{dataset}"'))
    return target


def _git(folder: Path, *words: str, at: datetime | None = None) -> str:
    """Run git as ann; a commit is made at an instant of the replay, so that two runs make the same one."""
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    dates = {f"GIT_{who}_DATE": at.isoformat() for who in ("AUTHOR", "COMMITTER")} if at else {}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        ["git", *identity, *words],
        cwd=folder,
        env={**os.environ, **dates},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise ProjectFailed(f"git {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr
