from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orrery.workers.contained import Contained, Finished, Limits, run, spawn
from orrery.workers.warm import WarmStarts

MB = 1 << 20
PROGRAM = "program_of_this_test"


class Forking(WarmStarts):
    """Warm starts that fail where a program could not be forked."""

    def start(self, config: Any, pipes: Any) -> Any:
        started = super().start(config, pipes)
        assert started is not None, "it would be executed"
        return started


@pytest.fixture(scope="module")
def fork_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmStarts]:
    warm = Forking(tmp_path_factory.mktemp("imported"), [PROGRAM])
    place = warm.place(sys.executable)
    place.mkdir()
    (place / f"{PROGRAM}.json").write_text('["numpy"]')
    yield warm
    warm.close()


@pytest.fixture(params=["executed", "forked"])
def warm(request: pytest.FixtureRequest) -> WarmStarts | None:
    """Everything here must be the same for a program that is executed and one that is forked."""
    return request.getfixturevalue("fork_servers") if request.param == "forked" else None


@pytest.fixture
def argv(tmp_path: Path) -> Callable[[str], list[str]]:
    """Write a program, and return how to run it in the folder of the test."""

    def written(code: str) -> list[str]:
        (tmp_path / f"{PROGRAM}.py").write_text(code)
        return [sys.executable, "-m", PROGRAM]

    return written


@pytest.fixture
def python(tmp_path: Path, argv: Callable[[str], list[str]], warm: WarmStarts | None) -> Callable[..., Finished]:
    def ran(code: str, **more: Any) -> Finished:
        limits = more.pop("limits", Limits(wall_seconds=20))
        return run(argv(code), cwd=tmp_path, limits=limits, warm=warm, **more)

    return ran


@pytest.fixture
def started(tmp_path: Path, argv: Callable[[str], list[str]], warm: WarmStarts | None) -> Callable[..., Contained]:
    return lambda code, **more: spawn(argv(code), cwd=tmp_path, warm=warm, **more)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pid: int, seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


def appears(path: Path, seconds: float = 10) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path.name} did not appear")


def test_a_program_that_ends_well(tmp_path: Path, python: Callable[..., Finished]) -> None:
    lines: list[str] = []
    done = python(
        "import sys; print('one'); print('two', file=sys.stderr); open('made', 'w').write('x')",
        on_line=lines.append,
        log=tmp_path / "log",
        expects=tmp_path / "made",
    )
    assert (done.ok, done.code, done.signal, done.reason) == (True, 0, None, "")
    assert sorted(lines) == ["one", "two"]
    assert sorted((tmp_path / "log").read_text().split()) == ["one", "two"]
    assert 0 < done.cpu_seconds <= done.seconds + 0.1
    assert done.peak_memory > MB
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0, "what the program writes is private"


def test_a_failure_names_the_last_line(python: Callable[..., Finished]) -> None:
    done = python("raise ValueError('the column dep_time is missing')")
    assert (done.code, done.reason) == (
        1,
        "ended with exit code 1: ValueError: the column dep_time is missing",
    )
    assert "Traceback" in done.tail


def test_a_hang_ends_at_the_wall_clock(python: Callable[..., Finished]) -> None:
    done = python("import time; time.sleep(60)", limits=Limits(wall_seconds=0.5))
    assert (done.code, done.reason) == (None, "did not end within 0.5 s")
    assert done.seconds < 5


def test_ignoring_signals_does_not_help(python: Callable[..., Finished]) -> None:
    code = "import signal, time\nfor n in (15, 2, 1): signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)"
    assert python(code, limits=Limits(wall_seconds=0.5)).reason == "did not end within 0.5 s"


def test_memory_of_the_whole_tree_is_watched(python: Callable[..., Finished]) -> None:
    eats = "import time; x = bytearray(90 << 20); time.sleep(30)"
    code = (
        f"import subprocess, sys\nfor p in [subprocess.Popen([sys.executable, '-c', {eats!r}]) for _ in 'ab']: p.wait()"
    )
    done = python(code, limits=Limits(memory_bytes=128 * MB, wall_seconds=20))
    assert done.reason == "used more than 128.0 MB of memory"
    assert done.peak_memory > 128 * MB
    # One of the two alone stays below, so it was the sum that counted.
    small = python(eats.replace("30", "0.3"), limits=Limits(memory_bytes=128 * MB, wall_seconds=20))
    assert small.ok


def test_memory_that_forked_processes_share_counts_once(python: Callable[..., Finished]) -> None:
    code = "import os, time; x = bytearray(80 << 20)\nfor _ in range(3):\n  if os.fork() == 0: break\ntime.sleep(0.6)"
    assert python(code, limits=Limits(memory_bytes=160 * MB, wall_seconds=20)).ok


def test_threads_of_numpy_and_polars_run_within_a_small_limit(python: Callable[..., Finished]) -> None:
    code = "import numpy as n, polars as p; print(p.DataFrame({'a': n.arange(10000)}).group_by('a').len().height)"
    done = python(code, limits=Limits(memory_bytes=512 * MB, wall_seconds=20))
    assert (done.ok, done.tail) == (True, "10000\n")


def test_cpu_time(python: Callable[..., Finished]) -> None:
    done = python("while True: pass", limits=Limits(cpu_seconds=1, wall_seconds=20))
    assert done.reason == "used more than 1 s of CPU time"


def test_too_many_processes(python: Callable[..., Finished]) -> None:
    code = "import os, time\nfor _ in range(30):\n  if os.fork() == 0: time.sleep(30)\ntime.sleep(30)"
    done = python(code, limits=Limits(processes=10, wall_seconds=20))
    assert done.reason == "started more than 10 processes"


def test_a_file_that_is_too_large(tmp_path: Path, python: Callable[..., Finished]) -> None:
    done = python("open('big', 'wb').write(bytes(3 << 20))", limits=Limits(file_bytes=MB, wall_seconds=20))
    assert done.reason == "wrote a file larger than 1.0 MB"
    assert (tmp_path / "big").stat().st_size <= MB


@pytest.mark.parametrize("code", [0, 3])
def test_ending_oneself_is_noticed(tmp_path: Path, code: int, python: Callable[..., Finished]) -> None:
    done = python(f"import os; os._exit({code})", expects=tmp_path / "result")
    assert done.reason == f"ended itself by os._exit({code})"


def test_a_crash_names_the_signal(python: Callable[..., Finished]) -> None:
    done = python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (done.code, done.signal) == (None, 11)
    assert done.reason == "was killed by signal 11 (segmentation fault)"


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    done = run(["no-such-program"], cwd=tmp_path)
    assert done.code == 127
    assert done.reason.startswith("could not be started: ")
    assert "No such file" in run([sys.executable], cwd=tmp_path / "nowhere").reason


def test_a_folder_that_is_not_there(tmp_path: Path, argv: Callable[[str], list[str]], warm: WarmStarts | None) -> None:
    done = run(argv("print(1)"), cwd=tmp_path / "nowhere", warm=warm)
    assert (done.code, done.tail) == (127, "")
    assert done.reason == f"could not be started: [Errno 2] No such file or directory: '{tmp_path / 'nowhere'}'"


def test_what_forked_twice_ends_with_the_program(tmp_path: Path, python: Callable[..., Finished]) -> None:
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), file=open("pid", "w"))
        time.sleep(60)
    os._exit(0)
os.wait()
while not os.path.exists("pid") or not open("pid").read(): time.sleep(0.01)
"""
    began = time.monotonic()
    done = python(code)
    assert done.ok
    assert time.monotonic() - began < 10, "the orphan holds the output open, and nobody waited for it"
    assert gone(int((tmp_path / "pid").read_text()))


def test_100_mb_of_output_keep_head_and_tail(tmp_path: Path, python: Callable[..., Finished]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = "print('first')\nfor _ in range(100): print('x' * (1 << 20))\nprint('last')"
    done = python(code, log=tmp_path / "log")
    kept = (tmp_path / "log").read_text()
    assert done.ok
    assert kept.startswith("first\n") and kept.endswith("last\n") and "bytes left out" in kept
    assert len(kept) < MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_short_output_is_kept_whole(tmp_path: Path, python: Callable[..., Finished]) -> None:
    text = "".join(f"{n}\n" for n in range(70_000))  # longer than the head, shorter than head and tail
    python("for n in range(70_000): print(n)", log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == text


def test_no_credentials_are_inherited(monkeypatch: pytest.MonkeyPatch, python: Callable[..., Finished]) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("ORRERY_DATABASE", "postgresql://user:secret@host/db")
    done = python("import os; print(sorted(os.environ))", env={"ORRERY_STEP_SEED": "7"})
    assert "AWS" not in done.tail and "ORRERY_DATABASE" not in done.tail
    assert "ORRERY_STEP_SEED" in done.tail and "'PATH'" in done.tail


def test_a_line_handler_that_raises_ends_the_program(python: Callable[..., Finished]) -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="now"):
        python("print('now', flush=True); import time; time.sleep(60)", on_line=refuse)


PARENT = """
import sys, pathlib
from orrery.workers.contained import run, spawn
from orrery.workers.warm import WarmStarts
code = '''
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(0.2)
    print(os.getpid(), os.getppid(), file=open(f"pid-{os.getpid()}", "w")); time.sleep(60)
print(os.getpid(), os.getppid(), file=open("main", "w")); time.sleep(60)
'''
folder = pathlib.Path(sys.argv[1])
(folder / "program_of_this_test.py").write_text(code)
warm = WarmStarts(folder, ["program_of_this_test"]) if sys.argv[2] == "forked" else None
if warm is not None:
    warm.place(sys.executable).mkdir()
    (warm.place(sys.executable) / "program_of_this_test.json").write_text('["numpy"]')
with spawn([sys.executable, "-m", "program_of_this_test"], cwd=folder, warm=warm) as program:
    assert program.forked == (warm is not None)
    print(*(warm.pids if warm is not None else []), file=open(folder / "servers", "w"))
    program.wait()
"""


@pytest.mark.parametrize("way", ["executed", "forked"])
def test_everything_dies_with_a_killed_worker(tmp_path: Path, way: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), way]) as worker:
        servers = [int(word) for word in appears(tmp_path / "servers").split()]
        assert len(servers) == (way == "forked")
        pids = servers + [int(word) for word in appears(tmp_path / "main").split()]
        while len(list(tmp_path.glob("pid-*"))) < 2:
            time.sleep(0.02)
        pids += [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
        assert all(alive(pid) for pid in pids), "negative control"
        worker.kill()
    assert all(gone(pid) for pid in pids)


def test_a_killed_guardian_leaves_nothing(tmp_path: Path, started: Callable[..., Contained]) -> None:
    code = """
import os, time
if os.fork() == 0:
    os.setsid(); print(os.getpid(), file=open("child", "w")); time.sleep(60)
time.sleep(60)
"""
    with started(code) as program:
        child = int(appears(tmp_path / "child"))
        os.kill(psutil.Process(program.pid).ppid(), signal.SIGKILL)
        done = program.wait(10)
    assert done is not None and done.reason == "was ended because the process that watched it was killed"
    assert gone(program.pid) and gone(child)


def test_a_spawned_program_talks_and_outlives_the_thread_that_started_it(started: Callable[..., Contained]) -> None:
    code = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
    running = []

    def start() -> None:
        running.append(started(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    with running[0] as program:
        time.sleep(0.3)
        assert program.poll() is None
        program.stdin.write(b"hello\n")
        program.stdin.flush()
        assert program.stdout.readline() == b"HELLO\n"
        program.terminate()
        done = program.wait(5)
    assert done is not None and done.signal == signal.SIGTERM


def test_kill_ends_a_program_that_ignores_sigterm(tmp_path: Path, started: Callable[..., Contained]) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, file=open('up', 'w')); time.sleep(60)"
    with started(code) as program:
        appears(tmp_path / "up")
        program.terminate()
        assert program.wait(0.4) is None
        assert program.kill().reason == "was stopped"
        assert gone(program.pid)


def test_watching_costs_little(started: Callable[..., Contained]) -> None:
    with started("import time; time.sleep(60)") as program:
        guardian = psutil.Process(program.pid).parent()
        assert guardian is not None
        time.sleep(1)
        assert guardian.memory_info().rss < 20 * MB
        used = guardian.cpu_times()
        assert used.user + used.system < 0.2
