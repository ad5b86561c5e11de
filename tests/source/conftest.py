"""A control plane that has nothing but git mounted, and a clone to push from."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from orrery.settings import Settings
from orrery.source.git import Source
from orrery.source.http import git_app
from orrery.timeline.store import Timeline

SPEC = '[model]\nname = "tides"\ntask = "regression"\ntarget = "height"\n[data]\ntides = "tides"\n'


@pytest.fixture
def source(home: Settings) -> Source:
    return Source(home)


@pytest.fixture
def quiet(request: pytest.FixtureRequest) -> float:
    """Seconds that a push waits for a worker."""
    return float(getattr(request, "param", 0.4))


@pytest.fixture
def address(home: Settings, timeline: Timeline, quiet: float) -> Iterator[str]:
    """Address of the repositories, served by a real server."""
    app = FastAPI()
    app.mount("/git", git_app(home, quiet=quiet))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, loop="asyncio", log_level="warning", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/git"
        server.should_exit = True
        thread.join(20)


class Clone:
    """Somebody's own repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *command: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        who = ["-c", "user.name=Nora", "-c", "user.email=nora@example.org", "-c", "http.postBuffer=100000"]
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *who, *command], cwd=self.folder, capture_output=True, text=True, timeout=60, env=environment
        )
        assert not ok or done.returncode == 0, done.stderr
        return done

    def write(self, path: str, content: str | bytes) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, message: str = "First") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Callable[[str], Clone]:
    """Give a function that makes a repository with a readable project."""

    def make(name: str = "clone") -> Clone:
        made = Clone(tmp_path / name)
        made.write("orrery.toml", SPEC)
        return made

    return make
