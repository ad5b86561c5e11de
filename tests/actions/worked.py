"""An orrery whose worker runs in the test: what is pushed is built, tested and trained, by the real programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acceptance.support import PIPELINE, QUIET, TESTS, git, tides, write_project
from orrery.actions.worker import Worker
from orrery.app import Orrery
from orrery.settings import Settings
from orrery.source.git import Source
from orrery.timeline.event import Event


class Worked:
    """A home with data of tides, and a worker that does what is due when it is told to.

    Parameters
    ----------
    settings : of the home.
    folder : where projects are written.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.orrery, self.folder = Orrery(settings), folder
        self.worker = Worker(self.orrery, "test")
        self.source = Source(settings)
        self.orrery.add_data("tides", tides(), why="Rows.", actor="feed")

    def push(self, project: str = "tides", *, more: str = "", **files: str) -> None:
        """Push a commit of a project; ``more`` ends its orrery.toml."""
        checkout = self.folder / project
        toml = files.pop("toml", QUIET).replace('name = "tides"', f'name = "{project}"') + more
        write_project(checkout, **{"toml": toml, "pipeline": PIPELINE, "tests": TESTS, **files})
        if not (checkout / ".git").exists():
            git(checkout, "init", "-q", "-b", "main")
        git(checkout, "add", "-A")
        git(checkout, "commit", "-q", "--allow-empty", "-m", "a change")
        git(checkout, "push", "-q", str(self.source.create(project)), "HEAD:refs/heads/main")
        self.worker.catch_up()

    def work(self, *kinds: str, project: str = "tides", most: int = 40) -> list[Event]:
        """Do what is due until one of these events is there; return those of these kinds, the newest last."""
        for _ in range(most):
            found = list(self.orrery.timeline.read(project, kinds=kinds))
            if found or not self.worker.step():
                return found
        raise AssertionError(f"none of {kinds} came")

    def told(self, project: str = "tides") -> str:
        """Return all that the timeline says."""
        return "".join(str(event.to_json()) for event in self.orrery.timeline.read(project))

    def written(self) -> bytes:
        """Return all that is on the disk below the home folder."""
        root = self.orrery.settings.home
        return b"\0".join(path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink())

    def close(self) -> None:
        """Let go of everything."""
        self.worker.desk.let_go()
        if self.worker.desk.warm is not None:
            self.worker.desk.warm.close()
        self.orrery.timeline.engine.dispose()


def line_of(events: list[Event]) -> dict[str, Any]:
    """Return the data of the only event."""
    (event,) = events
    return event.data
