"""Plays the year to an orrery, day by day: what a weather feed, an airline and a few people would do."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import Future
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx

from orrery.app import Orrery
from orrery.demo import flights
from orrery.demo.world import Apart, Model
from orrery.errors import NotAllowed, OrreryError, ProjectFailed
from orrery.settings import Settings
from orrery.timeline.clock import ReplayClock
from orrery.types import PRODUCTION

MORNING = 5  # o'clock: labels of yesterday are known, requests of today come in
TESTS = "tests/test_pipeline.py"
PATIENCE = 300.0  # seconds that a day may take before something is wrong


class Replay:
    """The year, played to one model of one orrery.

    Parameters
    ----------
    settings : of the home in which ``orrery up`` runs.
    model : what it is played to.
    """

    def __init__(self, settings: Settings, model: Model) -> None:
        self.orrery = Orrery(settings)
        assert isinstance(self.orrery.clock, ReplayClock)
        self.clock = self.orrery.clock
        self.model = model
        self.control = httpx.Client(base_url=settings.control_url, timeout=30)
        self.world = Apart(settings, model)

    def bring(self, trained_on: tuple[date, date]) -> Future[None]:
        """Begin to bring the first data, for which nothing needs to run."""
        return self.world.begin(*trained_on)

    def begin(self, brought: Future[None]) -> None:
        """Push the project once the first data are there, and let a second person approve the first version.

        Who pushed it tries, too: four eyes do not let her.
        """
        brought.result()
        self.push()
        self.settle()
        name = self.model.name
        (waiting,) = {version.number for version, _, _ in self.orrery.model(name).waiting()}
        try:
            self.orrery.approve(name, waiting, why="I wrote it, and I like it.", actor="ann")
        except NotAllowed as error:
            print(f"  {self.clock.now():%Y-%m-%d}  {name:14} v{waiting:<3} denied       {error.what}", flush=True)
        else:
            raise OrreryError("ann approved her own work, although production needs four eyes.")
        self.orrery.approve(name, waiting, why="Read the gates; good enough to learn from.", actor="mara")
        self.settle()
        if self.champion() is None:
            raise ProjectFailed(f"The first version of {name} did not reach production.")

    def day(self, day: date) -> None:
        """Play one day: the loop's morning, the requests, and overnight the day's labels and rows."""
        morning = datetime(day.year, day.month, day.day, MORNING, tzinfo=UTC)
        self.clock.set(morning)
        if self.model.incidents:
            self._incidents(day)
        self.settle()
        self.clock.set(morning + timedelta(hours=1))
        self.world.play(day, morning + timedelta(days=1)).result()

    def push(self, message: str = "The first model") -> str:
        """Commit what is in the working copy and push it; return what the push said."""
        model = self.model
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
        asked = resting = False
        while time.monotonic() < patience:
            head = self.orrery.timeline.head()
            if head != seen:
                seen, asked, resting = head, False, False
            elif not asked:  # nothing more was written since the last look
                asked, resting = True, self.orrery.settled()
            if resting and self.control.get("/api/status").json()["settled"]:
                return
            time.sleep(0.005 if not asked else 0.01)
        due = [action.key for action in self.orrery.due(self.model.name)]
        raise OrreryError(f"The loop did not come to rest in {PATIENCE:.0f} s.", todo=f"Still due: {due}.")

    def _incidents(self, day: date) -> None:
        model, note = self.model, self.orrery.event
        if day == flights.CELSIUS[0]:
            note(model.name, why="Injected incident: a weather feed gives Celsius for ten days.", actor="demo")
        if day == flights.ON_TIME_LABELS + timedelta(days=1):
            note(model.name, why="Injected incident: yesterday's labels all arrive as on time.", actor="demo")
        if day == flights.BAD_COMMIT:
            note(model.name, why="Injected incident: a commit whose feature leaks the target.", actor="demo")
            for name, change in (("pipeline.py", flights.bad_commit), (TESTS, flights.bad_test_data)):
                file = model.checkout / name
                file.write_text(change(file.read_text()))
            self.push("Use how long the aircraft waited at the gate")
        if day == flights.CORRECTION:
            for name in ("pipeline.py", TESTS):
                (model.checkout / name).write_text((project_folder() / name).read_text())
            self.push("Take the waiting time out again: no request has it")

    def champion(self) -> int | None:
        """Return the version that answers in production."""
        return self.orrery.model(self.model.name).lane(PRODUCTION).champion

    def close(self) -> None:
        """Close the connections."""
        self.world.close()
        self.control.close()
        self.orrery.timeline.engine.dispose()


def project_folder() -> Path:
    """Return the example project: in the repository, or as it was installed."""
    installed = Path(__file__).with_name("project")
    return installed if installed.is_dir() else Path(__file__).parents[3] / "examples" / "flight-delay"


def copy_project(target: Path) -> Path:
    """Copy the example project."""
    return Path(shutil.copytree(project_folder(), target, ignore=shutil.ignore_patterns("__pycache__", ".git")))


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
