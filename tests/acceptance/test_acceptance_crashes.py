"""Whatever dies, whenever: started again, the loop goes on where it was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from acceptance.support import Running, git, tides, wait, write_project
from orrery.app import Orrery
from orrery.data.predictions import logged
from orrery.settings import Settings
from orrery.source.git import Source, announce
from orrery.timeline.clock import ReplayClock
from orrery.timeline.verify import verify
from orrery.types import PRODUCTION, parse_instant

HERE = Path(__file__).parent


def history(orrery: Orrery) -> list[tuple[str, int | None, str]]:
    return [(event.kind, event.version, event.environment) for event in orrery.timeline.read("tides")]


def prepared(settings: Settings, project: Path) -> Orrery:
    """Return an orrery with data and a push, and nobody at work."""
    ReplayClock(settings.home / "clock").set(parse_instant("2026-01-10T00:00:00"))
    orrery = Orrery(Settings(**{**vars(settings), "replay": True}))
    orrery.add_data("tides", tides(), why="first tides", actor="ann", key="first")
    source = Source(orrery.settings)
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "first", env={**os.environ, "GIT_COMMITTER_DATE": "2026-01-09T00:00:00Z"})
    bare = source.create("tides")
    hooks = bare / "hooks"
    git(
        project,
        "-c",
        f"core.hooksPath={hooks}",
        "push",
        "-q",
        str(bare),
        "main",
        env={**os.environ, **orrery.settings.environment()},
    )
    announce(source, orrery.timeline)
    return orrery


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_killed_at_every_boundary_between_actions(settings: Settings, tmp_path: Path) -> None:
    """Before each action, between doing it and writing it down, and after: the history is that of a calm day."""
    orrery = prepared(settings, write_project(tmp_path / "project"))
    environment = {**os.environ, **orrery.settings.environment()}
    approved = False
    seen: Counter[str] = Counter()
    for _ in range(120):
        due = orrery.due("tides")
        where = ("before", "between", "after")[min(seen[due[0].key], 2)] if due else "after"
        words = [sys.executable, str(HERE / "killing_worker.py"), "worker-1", where]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode in (-signal.SIGKILL, 3), done.stderr
        seen.update(done.stdout.split())
        if done.returncode == 3:
            if approved:
                break
            orrery.approve("tides", 1, why="as good as it says", actor="mara")
            approved = True
    events = history(orrery)
    assert [entry for entry in events if entry[0] in ("built", "trained", "gated", "promoted")] == [
        ("built", None, ""),
        ("trained", 1, ""),
        ("gated", 1, ""),
        ("promoted", 1, "staging"),
        ("promoted", 1, PRODUCTION),
    ]
    assert Counter(kind for kind, _, _ in events)["tested"] == 2
    assert all(times >= 2 for times in seen.values()), f"not every boundary was met: {seen}"
    assert verify(event.to_json() for event in orrery.timeline.read()).holds
    orrery.timeline.engine.dispose()


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(running: Running, tmp_path: Path, seed: int) -> None:
    """Control plane, worker, inference server, model processes: any of them, while pushes and requests come in."""
    rng = random.Random(seed)
    orrery, settings = running.orrery, running.settings
    orrery.add_data("tides", tides(), why="first tides", actor="ann", key="first")
    project = write_project(tmp_path / "project")
    running.push(project, "first")
    wait(lambda: orrery.model("tides").waiting())
    orrery.approve("tides", 1, why="good", actor="mara")
    wait(lambda: httpx.get(f"{settings.serving_url}/v2/models/tides/ready").is_success)
    acknowledged: set[str] = set()
    pushed, ends = 1, time.monotonic() + 60
    while time.monotonic() < ends:
        victim = rng.choice(["web", "worker-1", "serving", "model", "none"])
        kill(settings, victim)
        if rng.random() < 0.3:
            try:
                (project / "pipeline.py").write_text((project / "pipeline.py").read_text() + f"\nSEED = {pushed}\n")
                running.push(project, f"change {pushed}")
                pushed += 1
            except AssertionError:
                subprocess.run(["git", "push", "-q", "orrery", "main"], cwd=project, capture_output=True, timeout=60)
        for _ in range(10):
            name = f"r{seed}-{len(acknowledged)}-{rng.random()}"
            if ask(settings, name):
                acknowledged.add(name)
            time.sleep(rng.random() * 0.2)
    wait(lambda: calm(running), 240)
    state = orrery.model("tides")
    assert verify(event.to_json() for event in orrery.timeline.read()).holds
    versions = Counter(version.run for version in state.versions.values())
    assert versions and max(versions.values()) == 1, "a training became two versions"
    assert not [run for run in state.runs.values() if run.open]
    promoted = Counter((v, e) for kind, v, e in history(orrery) if kind == "promoted")
    assert max(promoted.values()) == 1
    wait(lambda: acknowledged <= in_the_log(orrery), 60)
    ids = logged(orrery.lake, "tides", PRODUCTION, None, parse_instant("2100-01-01"))["_id"]
    assert ids.n_unique() == len(ids)


def test_the_inference_server_answers_while_the_control_plane_is_down(running: Running, tmp_path: Path) -> None:
    """And what it answered reaches the log when the others are back."""
    orrery, settings = running.orrery, running.settings
    orrery.add_data("tides", tides(), why="first tides", actor="ann", key="first")
    running.push(write_project(tmp_path / "project"), "first")
    wait(lambda: orrery.model("tides").waiting())
    orrery.approve("tides", 1, why="good", actor="mara")
    wait(lambda: httpx.get(f"{settings.serving_url}/v2/models/tides/ready").is_success)
    pids = processes(settings)
    for name in ("web", "worker-1"):
        os.kill(pids[name], signal.SIGSTOP)  # hangs: worse than dead, the supervisor does not bring it back
    assert all(ask(settings, f"while-away-{number}") for number in range(20))
    for name in ("web", "worker-1"):
        os.kill(pids[name], signal.SIGCONT)
    wanted = {f"while-away-{number}" for number in range(20)}
    wait(lambda: wanted <= in_the_log(orrery))
    assert running.stop() == 0
    running.start()
    assert ask(settings, "after the restart")


def processes(settings: Settings) -> dict[str, int]:
    found = json.loads((settings.home / "processes.json").read_text())
    rows = found["processes"] if isinstance(found, dict) else found
    return {row["name"]: row["pid"] for row in rows if row["pid"]}


def kill(settings: Settings, victim: str) -> None:
    import psutil

    pids = processes(settings)
    if victim == "model" and "serving" in pids:
        try:
            children = psutil.Process(pids["serving"]).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        hosts = [child.pid for child in children if "orrery.pipeline.host" in " ".join(child.cmdline())]
        pids = {"model": hosts[0]} if hosts else {}
    if victim in pids:
        try:
            os.kill(pids[victim], signal.SIGKILL)
        except ProcessLookupError:
            return


def ask(settings: Settings, name: str) -> bool:
    """Send one request; say whether it was acknowledged."""
    body: dict[str, Any] = {
        "id": name,
        "inputs": [
            {"name": column, "shape": [1], "datatype": kind, "data": [value]}
            for column, kind, value in (("moon", "FP64", 0.5), ("wind", "FP64", 1.0), ("gauge", "BYTES", name))
        ],
    }
    try:
        answer = httpx.post(f"{settings.serving_url}/v2/models/tides/infer", json=body, timeout=10)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def in_the_log(orrery: Orrery) -> set[str]:
    rows: pl.DataFrame = logged(orrery.lake, "tides", PRODUCTION, None, parse_instant("2100-01-01"))
    return {name.partition("#")[0] for name in rows["_id"].to_list()}


def calm(running: Running) -> bool:
    """Nothing but looks is due, and every process lives."""
    due = [action for action in running.orrery.due("tides") if action.kind not in ("watch", "compare")]
    return not due and len(processes(running.settings)) == 3
