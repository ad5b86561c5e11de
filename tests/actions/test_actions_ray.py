"""On a Ray cluster a dataset is scored as on this machine: the same rows, the same log, through any kill."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from actions.test_actions_score import command, desk, done, job, log_of, rows, scored, written
from orrery.actions.desk import Desk
from orrery.actions.on_ray import AGAIN
from orrery.actions.score import parts
from orrery.app import Orrery
from orrery.errors import NotAllowed, NotUnderstood, ProjectFailed

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="not run: Ray is not installed (make test-ray)"),
]
__all__ = ["desk", "written"]  # fixtures
PROCESSORS = 2
LOOPBACK = "127.0.0.2"
"""Ray takes 127.0.0.1 for the address by which others see this machine."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of its own, on loopback."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets are in it, whose paths must be short
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        port = one.getsockname()[1]
    patch = pytest.MonkeyPatch()  # a token of its own: nobody else's programs may run in this cluster
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)
    words = [Path(sys.executable).parent / "ray", "start", "--head", "--block", f"--port={port}"]
    words += [f"--node-ip-address={LOOPBACK}", f"--num-cpus={PROCESSORS}", "--include-dashboard=false"]
    words += ["--disable-usage-stats", f"--temp-dir={folder}", f"--object-store-memory={100 << 20}"]
    log = Path(folder) / "head.log"
    with log.open("w") as out:
        head = subprocess.Popen([*words], stdout=out, stderr=subprocess.STDOUT)
    try:
        wait(lambda: "Ray runtime started" in log.read_text() or head.poll() is not None, 200)
        assert head.poll() is None, log.read_text()
        yield f"{LOOPBACK}:{port}"
    finally:
        mine = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        head.wait(60)
        _, left = psutil.wait_procs(mine, timeout=10)
        for one in left:
            one.kill()
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def far(desk: Desk, address: str) -> Iterator[Desk]:
    """The same orrery, with the cluster in its settings."""
    far = Desk(Orrery(dataclasses.replace(desk.settings, ray=address)))
    yield far
    far.orrery.timeline.engine.dispose()


def members() -> set[int]:
    """Processes of Ray that ask a model."""
    found = set()
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.cmdline() and one.cmdline()[0].startswith("ray::Answering"):
                found.add(one.pid)
    return found


def models(desk: Desk) -> set[int]:
    """Processes of models of this home."""
    found = set()
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = one.cmdline()
            if "orrery.pipeline.host" in words and any(str(desk.settings.home) in word for word in words):
                found.add(one.pid)
    return found


def wait(until: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.005)


def kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_it_is_as_if_this_machine_had_done_it(desk: Desk, far: Desk) -> None:
    near = done(desk, job(desk, out="near"))
    found = done(far, job(far, out="far"), processes=0)
    assert (found.version.digest, found.rows, found.cluster) == (near.version.digest, 3000, far.settings.ray)
    assert near.cluster == ""
    assert log_of(desk).height == 3000  # the same predictions are logged once
    [one, two] = scored(desk)
    assert {**one.data, "out": "", "seconds": 0} == {**two.data, "out": "", "seconds": 0}
    wait(lambda: not members() and not models(desk))
    # What only the cluster has scored is in the log, too.
    desk.orrery.lake.append("more", rows(300, 9).drop("y"))
    done(far, job(far, "more", out="scored"))
    log = log_of(desk).filter(pl.col("_id").str.starts_with("more@v1#"))
    assert log.height == 300 and set(log["_role"]) == {"batch"}


def test_a_worker_of_ray_that_is_killed_is_replaced(desk: Desk, far: Desk) -> None:
    near = done(desk, job(desk, out="near"))
    order = job(far, out="far")
    kept = parts(far, order)
    killed: set[int] = set()

    def killing() -> None:
        wait(lambda: kept.done)
        assert kept.done < 3000
        killed.update(members())
        kill(killed)

    thread = threading.Thread(target=killing)
    thread.start()
    found = done(far, order, rows_per_batch=110, processes=1)
    thread.join()
    assert killed and (found.version.digest, found.resumed) == (near.version.digest, 0)
    log = log_of(desk)
    assert log.height == 3000 and log["_id"].n_unique() == 3000


def test_where_every_worker_dies_it_ends_and_goes_on_later(desk: Desk, far: Desk) -> None:
    order = job(far, out="far")
    kept, over = parts(far, order), threading.Event()
    killed: set[int] = set()

    def killing() -> None:
        wait(lambda: kept.done)
        while not over.is_set():
            found = members()
            killed.update(found)
            kill(found)
            time.sleep(0.01)

    thread = threading.Thread(target=killing)
    thread.start()
    try:
        with pytest.raises(NotAllowed, match="The Ray cluster gave no answer") as error:
            done(far, order, rows_per_batch=110, processes=1)
    finally:
        over.set()
        thread.join()
    assert len(killed) > AGAIN and "is kept" in error.value.safe and "ORRERY_RAY" in error.value.todo
    reached = kept.done
    assert 0 < reached < 3000 and "far" not in desk.orrery.lake.names() and not scored(desk)
    found = done(desk, order, rows_per_batch=110)  # here, as the sentence says
    assert found.resumed == reached and found.version.digest == done(desk, job(desk, out="near")).version.digest


def test_the_command_is_killed_and_goes_on(desk: Desk, far: Desk) -> None:
    words = command(desk, "score", "toy@1", "--data", "fresh", "--out", "far", "--rows-per-batch", "110", "--json")
    env = {**os.environ, "ORRERY_RAY": far.settings.ray}
    kept = parts(far, job(far, out="far"))
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait(lambda: kept.done or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = kept.done
    assert 0 < reached < 3000 and not scored(desk)
    wait(lambda: not models(desk))  # nothing of it goes on by itself
    last = subprocess.run(words, env=env, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    told = json.loads(last.stdout)
    assert (told["rows"], told["resumed"], told["ray"]) == (3000, reached, far.settings.ray)
    log = log_of(desk)
    assert log.height == 3000 and log["_id"].n_unique() == 3000
    near = done(desk, job(desk, out="near"))
    assert near.version.digest == desk.orrery.lake.version("far").digest


def test_what_a_model_or_a_row_is_refused_for_is_told_as_here(
    desk: Desk, far: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = rows(20, 4).drop("y").with_columns(a=pl.when(pl.int_range(20) == 13).then(999.0).otherwise("a"))
    desk.orrery.lake.append("failing", failing)
    monkeypatch.setattr("orrery.actions.batches.promised", lambda contract, target: None)
    desk.orrery.lake.append("worded", rows(20, 4).drop("y").with_columns(b=pl.lit("much")))
    for data, kind in (("failing", ProjectFailed), ("worded", NotUnderstood)):
        told = []
        for one in (desk, far):
            with pytest.raises(kind) as error:
                done(one, job(one, data), rows_per_batch=5)
            told.append((error.value.what, error.value.safe, error.value.todo))
        assert told[0] == told[1]
    assert "scores" not in desk.orrery.lake.names() and scored(desk) == []


def test_more_processes_than_the_cluster_has_are_refused(far: Desk) -> None:
    with pytest.raises(NotAllowed, match=f"has {PROCESSORS} processors, and 3 processes are asked for"):
        done(far, job(far), processes=3)
