from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orrery.errors import NotAllowed
from orrery.workers import supervisor as module
from orrery.workers.supervisor import Child, Process, Supervisor, processes, running

SLEEP = "import time; time.sleep(60)"
UP = """
import sys, pathlib
from orrery.workers.supervisor import Child, Supervisor
Supervisor(
    pathlib.Path(sys.argv[1]),
    [Child(f"child-{n}", [sys.executable, "-c", code]) for n, code in enumerate(sys.argv[2:])],
    grace=1.0,
).run()
"""
FORKS = "import os, time; os.fork(); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"


def until(true: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*codes: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", UP, str(tmp_path), *codes], stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ready(home: Path, count: int) -> list[Process]:
    def all_run() -> bool:
        found = processes(home)
        return len(found) == count and all(each.pid for each in found)

    assert until(all_run)
    return processes(home)


def test_a_child_that_dies_comes_back(tmp_path: Path, up: Callable[..., subprocess.Popen[bytes]]) -> None:
    up(SLEEP, SLEEP)
    first, second = ready(tmp_path, 2)
    assert first.rss > 1 << 20 and first.restarts == 0 and first.why == ""
    os.kill(first.pid, signal.SIGKILL)
    assert until(lambda: processes(tmp_path)[0].restarts == 1)
    again, untouched = ready(tmp_path, 2)
    assert again.pid != first.pid and again.why == "was killed by signal 9 (killed)"
    assert (untouched.pid, untouched.restarts) == (second.pid, 0)


def test_what_a_dead_child_started_is_gone_before_it_comes_back(
    tmp_path: Path, up: Callable[..., subprocess.Popen[bytes]]
) -> None:
    up(FORKS)
    (child,) = ready(tmp_path, 1)
    assert until(lambda: bool(psutil.Process(child.pid).children()))
    below = psutil.Process(child.pid).children()[0].pid
    os.kill(child.pid, signal.SIGKILL)
    assert until(lambda: processes(tmp_path)[0].restarts == 1)
    assert not alive(below)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all(tmp_path: Path, up: Callable[..., subprocess.Popen[bytes]], number: int) -> None:
    process = up(SLEEP, FORKS)
    pids = [each.pid for each in ready(tmp_path, 2)]
    assert running(tmp_path) == process.pid
    process.send_signal(number)
    assert process.wait(60) == 0
    assert not any(alive(pid) for pid in pids)
    assert running(tmp_path) is None and processes(tmp_path) == []
    left = json.loads((tmp_path / "processes.json").read_text())
    assert {each["state"] for each in left["processes"]} == {"stopped"}


def test_a_child_that_does_not_listen_is_killed_after_the_grace(
    tmp_path: Path, up: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = up(STUBBORN)
    (child,) = ready(tmp_path, 1)
    time.sleep(0.3)
    began = time.monotonic()
    process.terminate()
    process.wait(60)
    assert time.monotonic() - began > 0.9, "it was given its grace"
    assert not alive(child.pid)


def test_children_die_with_a_killed_supervisor(tmp_path: Path, up: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = up(SLEEP, FORKS, STUBBORN)
    pids = [each.pid for each in ready(tmp_path, 3)]
    assert until(lambda: len(psutil.Process(pids[1]).children()) == 1)
    pids += [each.pid for each in psutil.Process(pids[1]).children()]
    time.sleep(0.3)
    assert all(alive(pid) for pid in pids), "negative control"
    process.kill()
    assert until(lambda: not any(alive(pid) for pid in pids))
    process.wait()
    assert running(tmp_path) is None, "a new one may begin"


def test_one_supervisor_holds_a_home(tmp_path: Path, up: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = up(SLEEP)
    (child,) = ready(tmp_path, 1)
    with pytest.raises(NotAllowed, match=f"already, as process {process.pid}"):
        Supervisor(tmp_path, [Child("other", [sys.executable, "-c", SLEEP])]).run()
    assert alive(child.pid)


def test_asking_does_not_keep_a_supervisor_from_starting(tmp_path: Path) -> None:
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            running(tmp_path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(5):
            one = Supervisor(tmp_path, [])
            threading.Timer(0.05, one.stop).start()
            one.run()
    finally:
        done.set()
        asking.join()


def test_a_child_that_cannot_start_is_tried_less_and_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences: list[str] = []
    one = Supervisor(tmp_path, [Child("bad", ["no-such-program"])], report=sentences.append)
    threading.Timer(2.0, one.stop).start()
    one.run()
    assert 2 <= len(sentences) <= 3, "after 0.2, 0.4 and 0.8 seconds"
    assert sentences[0].startswith("bad could not be started: ")


def test_the_back_off_begins_anew_after_a_healthy_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEALTHY_AFTER", 0.1)
    sentences: list[str] = []
    code = "import time; time.sleep(0.15)"
    one = Supervisor(tmp_path, [Child("short", [sys.executable, "-c", code])], report=sentences.append)
    threading.Timer(3.0, one.stop).start()
    one.run()
    assert len(sentences) >= 4
    assert set(sentences) == {"short ended by itself and was started again."}


def test_the_supervisor_is_light(tmp_path: Path, up: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = up(SLEEP)
    (child,) = ready(tmp_path, 1)
    assert psutil.Process(process.pid).memory_info().rss < 30 << 20
    guardian = psutil.Process(child.pid).parent()
    assert guardian is not None and guardian.memory_info().rss < 20 << 20


def test_output_goes_to_a_log(tmp_path: Path, up: Callable[..., subprocess.Popen[bytes]]) -> None:
    up("import sys, time; print('hello'); print('there', file=sys.stderr); sys.stdout.flush(); time.sleep(60)")
    log = tmp_path / "logs" / "child-0.log"
    assert until(lambda: log.exists() and sorted(log.read_text().split()) == ["hello", "there"])
