"""A control plane where access is required, in a process of its own: with MLflow, and two teams in it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from orrery import settings as orrery_settings
from orrery.app import Orrery

BY = {"by": "tom", "why": "For the test."}
PEOPLE = {
    "ann": ("scientist", "team/air"),
    "vic": ("viewer", "team/air"),
    "bob": ("scientist", "team/sea"),
    "eve": ("scientist", "*"),
    "nil": ("viewer", "elsewhere"),
}
"""Account -> role and place; flight-delay is of the team air, tides of sea."""


@dataclass(frozen=True)
class Served:
    """Where it answers, and what each account shows."""

    url: str
    home: Path
    tokens: dict[str, str]
    orrery: Orrery

    def client(self, who: str) -> httpx.Client:
        """Return a client of somebody."""
        shown = {"Authorization": f"Bearer {self.tokens[who]}"}
        return httpx.Client(base_url=f"{self.url}/mlflow", headers=shown, trust_env=False, timeout=120)


@contextlib.contextmanager
def serving(folder: Path, first: str = "") -> Iterator[Served]:
    """Serve the home of two teams until the block ends; ``first`` is run in that process before anything else."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = orrery_settings.load(home=folder, port=port)
    orrery = Orrery(settings)
    for project, team in (("flight-delay", "air"), ("tides", "sea")):
        orrery.accounts.assign(project, team, **BY)
    tokens = {}
    for name, (role, place) in PEOPLE.items():
        orrery.accounts.add(name, **BY)
        orrery.accounts.give(name, role, place, **BY)
        tokens[name] = orrery.keys.token(name, scopes=("mlflow",), **BY)[0]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORRERY_", "MLFLOW_"))}
    environment |= {"ORRERY_HOME": str(folder), "ORRERY_PORT": str(port), "ORRERY_ACCESS": "required"}
    command = [sys.executable, "-W", "ignore", "-c", f"{first}\nfrom orrery.web.server import main; main()"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, tokens["eve"], process, folder / "log")
        yield Served(url, folder, tokens, orrery)
    finally:
        process.terminate()
        process.wait(30)
        orrery.timeline.engine.dispose()


def _wait(url: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{url}/mlflow/health", headers={"Authorization": f"Bearer {token}"}, timeout=120)
            assert answer.status_code == 200, answer.text
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer: {log.read_text()}")
