from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import orrery
from orrery.workers import fork_server
from orrery.workers.contained import Contained, Limits, spawn
from orrery.workers.warm import StillImporting, WarmStarts

PROGRAM = "program_of_this_test"
LIMITS = Limits(wall_seconds=30)


class Lab:
    """An environment of its own, whose programs are started warm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
        self.python = str(folder / "environment" / "bin" / "python")
        self.installed = next((folder / "environment" / "lib").glob("python*/site-packages"))
        self.packages = folder / "own" / "site-packages"
        self.packages.mkdir(parents=True)
        self.own = [Path(sysconfig.get_path("purelib")), self.packages]
        lines = [f"import site; site.addsitedir({str(path)!r})" for path in self.own]
        self.installed.joinpath("zz_orrery.pth").write_text("\n".join([*lines, str(Path(orrery.__file__).parents[1])]))
        self.warm = WarmStarts(folder / "imported", [PROGRAM], own=self.own)
        self.place = self.warm.place(self.python)

    def package(self, name: str, code: str) -> None:
        """Install a library, which programs are known to import."""
        (self.packages / f"{name}.py").write_text(code)
        self.place.mkdir(parents=True, exist_ok=True)
        known = self.place / f"{PROGRAM}.json"
        known.write_text(json.dumps([*(json.loads(known.read_text()) if known.exists() else []), name]))

    def start(self, code: str, warm: WarmStarts | None = None, **more: Any) -> Contained:
        """Start a program; by default warm, where that can be."""
        (self.folder / f"{PROGRAM}.py").write_text(code)
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)  # may be of another text of this second
        given = {"limits": LIMITS, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **more}
        argv = [self.python, "-m", PROGRAM, "an argument"]
        return spawn(argv, cwd=self.folder, warm=warm or self.warm, **given)

    def said(self, code: str, **more: Any) -> tuple[bool, str]:
        """Run a program; return whether it was forked, and its output."""
        with self.start(code, **more) as program:
            assert program.stdout is not None
            text = program.stdout.read().decode()
            finished = program.wait()
            assert finished is not None
            return program.forked, text.strip() + finished.reason


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.warm.close()


def gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def shown(path: Path) -> None:
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} does not appear"
        time.sleep(0.01)


IMPORTED = "import sys; print('laden' in sys.modules); import laden; print(laden.VALUE, laden.__file__ is not None)"


def test_what_was_imported_is_there_and_the_program_is_another_process(lab: Lab) -> None:
    lab.package("laden", "import os; VALUE = os.getpid()")
    (first, one), (second, two) = lab.said(IMPORTED), lab.said(IMPORTED)
    assert (first, second) == (True, True)
    assert one == two == f"True\n{lab.warm.pids[0]} True", "it was imported by the fork server, once"
    assert lab.said(IMPORTED, warm=WarmStarts(lab.folder / "elsewhere", [PROGRAM]))[1].startswith("False\n"), "control"


def test_the_first_program_says_what_it_imports(lab: Lab) -> None:
    (lab.packages / "laden.py").write_text("VALUE = 1")
    (lab.folder / "of_the_project.py").write_text("")
    code = "import laden, of_the_project; from orrery.pipeline.loaded import note; note()"
    assert lab.said(code) == (False, "")
    assert json.loads((lab.place / f"{PROGRAM}.json").read_text())[-1] == "laden"
    assert "of_the_project" not in (lab.place / f"{PROGRAM}.json").read_text()
    assert lab.said(IMPORTED) == (True, "True\n1 True")


SELF = """
import json, os, resource, signal, sys, threading, warnings
handlers = {n: str(signal.getsignal(n)) for n in range(1, 32)}
limits = {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT_")}
links = {fd: os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in (0, 1, 2)}
status = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "argv": [sys.argv, sys.orig_argv, sys.flags, sys.path, sys.executable, sys.prefix, sys.warnoptions],
    "module": [__name__, __spec__.name, __file__, sys.modules["__main__"].__dict__ is globals()],
    "env": {n: v for n, v in os.environ.items() if n != "ORRERY_STEP_CONTAINED"},
    "place": [os.getcwd(), os.umask(0o077), os.nice(0), open("/proc/self/oom_score_adj").read()],
    "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "signals": [handlers, {n: status[n] for n in status if n.startswith("Sig") and n != "SigQ"}],
    "kernel": [status["NoNewPrivs"], status["Threads"], limits],
    "streams": [links, [s.encoding for s in (sys.stdin, sys.stdout, sys.stderr)]],
    "files": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "threads": [threading.current_thread().name, threading.active_count()],
    "hash": hash("orrery"),
    "filters": [str(each) for each in warnings.filters],
}))
"""


def test_a_forked_program_finds_what_an_executed_one_finds(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    env = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "OMP_NUM_THREADS": "1", "OF_ITS_OWN": "x"}
    limits = Limits(cpu_seconds=50, files=200, file_bytes=1 << 20)
    forked, found = lab.said(SELF, env=env, limits=limits)
    executed, wanted = lab.said(SELF, env=env, limits=limits, warm=WarmStarts(lab.folder / "other", []))
    assert (forked, executed) == (True, False)
    ours, theirs = json.loads(found), json.loads(wanted)
    for name in theirs:
        assert ours[name] == theirs[name], name


def test_variables_and_changes_of_one_program_do_not_reach_the_next(lab: Lab) -> None:
    lab.package("laden", "VALUE = []")
    change = "import laden, os; laden.VALUE.append(os.environ.pop('SECRET')); os.environ['LEFT'] = 'x'"
    look = "import laden, os; print(laden.VALUE, 'SECRET' in os.environ, 'LEFT' in os.environ)"
    assert lab.said(f"{change}; print(laden.VALUE)", env={"SECRET": "s3cret"}) == (True, "['s3cret']")
    assert lab.said(look) == (True, "[] False False")
    server = psutil.Process(lab.warm.pids[0])
    assert "SECRET" not in server.environ() and "PATH" in server.environ()


def test_credentials_of_the_worker_reach_no_fork_server(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    lab.package("laden", "import os; VALUE = sorted(os.environ)")
    forked, text = lab.said("import laden; print(laden.VALUE)")
    assert forked and "AWS" not in text and "'PATH'" in text


def test_another_hash_seed_is_another_fork_server(lab: Lab) -> None:
    lab.package("laden", "VALUE = hash('a')")
    code = "import laden; print(laden.VALUE == hash('a'), hash('a'))"
    found = {seed: lab.said(code, env={"PYTHONHASHSEED": seed}) for seed in ("1", "2")}
    assert len(lab.warm.pids) == 2
    executed = [
        subprocess.check_output([lab.python, "-c", "print(hash('a'))"], env={"PYTHONHASHSEED": s}) for s in "12"
    ]
    assert [found[seed] for seed in "12"] == [(True, f"True {text.decode().strip()}") for text in executed]


def test_a_variable_that_the_interpreter_reads_at_its_start_is_never_set_too_late(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    code = "import sys; print(sys.flags.dev_mode)"
    assert lab.said(code, env={"PYTHONDEVMODE": "1"}) == (False, "True")
    assert lab.said(code) == (True, "False")


def test_no_code_of_a_project_stays(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    (lab.folder / "part.py").write_text("TEXT = 'before'")
    assert lab.said("import part; print(part.TEXT)") == (True, "before")
    (lab.folder / "part.py").write_text("TEXT = 'after'")
    assert lab.said("import part; print(part.TEXT)") == (True, "after")


THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); VALUE = 2"


def left_out(lab: Lab) -> list[list[str]]:
    found: list[list[str]] = json.loads((lab.place / "left-out.json").read_text())
    return found


def test_a_library_that_starts_a_thread_is_left_out(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    lab.package("threaded", THREAD)
    code = "import sys; print('laden' in sys.modules, 'threaded' in sys.modules)"
    code = f"{code}; import threaded; print(threaded.VALUE)"
    assert lab.said(code) == (False, "False False\n2"), "while it is found out, programs are executed"
    assert lab.said(code) == (True, "True False\n2")
    assert left_out(lab) == [["threaded", "starts a thread when it is imported"]]
    assert len(os.listdir(f"/proc/{lab.warm.pids[0]}/task")) == 1
    other = WarmStarts(lab.folder / "imported", [PROGRAM], own=lab.own)
    assert lab.said(code, warm=other) == (True, "True False\n2"), "and it is known from then on"


def test_a_library_that_cannot_be_imported_alone_is_left_out(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    lab.package("broken", "raise ImportError('not now')")
    assert lab.said(IMPORTED) == (False, "False\n1 True")
    assert lab.said(IMPORTED) == (True, "True\n1 True")
    assert left_out(lab) == [["broken", "cannot be imported: ImportError('not now')"]]


def test_what_a_project_installed_is_imported_by_its_programs_alone(lab: Lab) -> None:
    mark = lab.folder / "where"
    lab.package("laden", "VALUE = 1")
    theirs = f"import os\nopen({str(mark)!r}, 'a').write(str(os.getppid()) + ' ')\nVALUE = 2"
    lab.package("hungry", "import sound\nVALUE = 3")
    lab.package("sound", "VALUE = 4")
    lab.installed.joinpath("sound.py").write_text(theirs)  # shadows one of ours, which another of ours needs
    lab.installed.joinpath("own_thing.py").write_text(theirs)
    known = lab.place / f"{PROGRAM}.json"
    known.write_text(json.dumps([*json.loads(known.read_text()), "own_thing"]))
    code = "import os, sys; early = set(sys.modules); import laden, hungry, own_thing; "
    code += "print('laden' in early, 'hungry' in early, 'own_thing' in early, hungry.sound.VALUE, os.getppid())"
    assert lab.said(code)[0] is False  # what needs theirs is found out, and it begins again without
    mark.unlink()
    forked, said = lab.said(code)
    *_, guardian = said.split()
    assert (forked, said) == (True, f"True False False 2 {guardian}")
    assert mark.read_text() == f"{guardian} {guardian} "  # by the program, and by no fork server
    assert ["hungry", "needs sound, which the project installed"] in left_out(lab)


def test_an_environment_that_adds_places_to_import_from_is_executed(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    lab.installed.joinpath("more.pth").write_text(str(lab.folder))
    assert lab.said(IMPORTED) == (False, "False\n1 True")


def test_an_interpreter_that_was_put_in_its_place_starts_no_fork_server(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    python = Path(lab.python)
    real = os.path.realpath(python)
    python.unlink()
    python.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    python.chmod(0o755)
    assert lab.said("print(1)")[0] is False


def test_who_does_not_wait_is_told_to_ask_again(lab: Lab) -> None:
    lab.package("laden", "import time; time.sleep(0.3); VALUE = 1")
    warm = WarmStarts(lab.folder / "imported", [PROGRAM], own=lab.own, wait=False)
    asked = 0
    while True:
        try:
            assert lab.said(IMPORTED, warm=warm) == (True, "True\n1 True")
            break
        except StillImporting:
            asked += 1
            time.sleep(0.02)
    assert asked > 1
    assert lab.said(IMPORTED, warm=warm) == (True, "True\n1 True")


def test_a_forked_program_is_seen_as_itself(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    with lab.start(WAITS) as program:
        shown(lab.folder / "up")
        process = psutil.Process(program.pid)
        words = [word for word in process.cmdline() if word]
        assert words == [lab.python, "-m", PROGRAM, "an argument"]
        assert "ORRERY_STEP_CONTAINED" in process.environ()
        server = " ".join(psutil.Process(lab.warm.pids[0]).cmdline())
        assert "fork_server" in server and PROGRAM not in server


def test_where_every_process_has_a_thread_programs_are_executed(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    (lab.packages / "starting.py").write_text(THREAD)
    (lab.packages / "starting.pth").write_text("import starting\n")
    for _ in range(2):
        assert lab.said(IMPORTED) == (False, "False\n1 True")
    assert lab.warm.pids == []


@pytest.mark.parametrize(
    "code", ["import os; os._exit(3)", "import os; os.kill(os.getpid(), 11)", "import sys; sys.exit(1)"]
)
def test_where_importing_ends_the_process_programs_are_executed(lab: Lab, code: str) -> None:
    lab.package("laden", f"import os, sys\nif 'orrery.workers.fork_server' in sys.orig_argv:\n    {code}\nVALUE = 1")
    for _ in range(2):
        assert lab.said(IMPORTED) == (False, "False\n1 True")


def test_only_a_module_of_those_that_were_named_is_forked(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    for argv in ([lab.python, "-c", "print(1)"], [lab.python, "-m", "this"], [lab.python, "-I", "-m", PROGRAM]):
        with spawn(argv, cwd=lab.folder, limits=LIMITS, warm=lab.warm) as program:
            assert not program.forked
    with spawn(["no-such-program", "-m", PROGRAM], cwd=lab.folder, warm=lab.warm) as program:
        finished = program.wait()
    assert finished is not None and "No such file" in finished.reason


WAITS = "import os, time; open('up', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('well')"


def test_a_killed_fork_server_takes_nothing_along_and_is_replaced(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    with lab.start(WAITS) as program:
        shown(lab.folder / "up")
        server = lab.warm.pids[0]
        os.kill(server, signal.SIGKILL)
        assert gone(server)
        assert lab.said(IMPORTED)[1].endswith("1 True")
        assert lab.said(IMPORTED)[0] and lab.warm.pids != [server]
        (lab.folder / "go").touch()
        assert program.stdout is not None and program.stdout.read() == b"well\n"
        finished = program.wait()
    assert program.forked and finished is not None and finished.ok


def test_a_fork_server_that_hangs_is_given_up_and_what_it_was_told_never_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orrery.workers.warm.FORK_WITHIN", 0.5)
    lab.package("laden", "VALUE = 1")
    assert lab.said(IMPORTED)[0]
    server = lab.warm.pids[0]
    os.kill(server, signal.SIGSTOP)
    forked, text = lab.said("print('once', file=open('runs', 'a')); print(open('runs').read())")
    assert (forked, text) == (False, "once")
    assert gone(server)
    assert (lab.folder / "runs").read_text() == "once\n"


def test_fork_servers_end_when_they_are_not_needed(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    warm = WarmStarts(lab.folder / "imported", [PROGRAM], own=lab.own, most=1)
    lab.said(IMPORTED, warm=warm, env={"PYTHONHASHSEED": "1"})
    first = warm.pids
    with lab.start(WAITS, warm=warm, env={"PYTHONHASHSEED": "1"}) as program:
        shown(lab.folder / "up")
        lab.said("print(1)", warm=warm, env={"PYTHONHASHSEED": "2"})
        assert len(warm.pids) == 1 and warm.pids != first, "the one that was used longest ago made place"
        (lab.folder / "go").touch()
        assert program.wait() is not None, "and what it had forked went on"
    second = warm.pids[0]
    warm.close()
    assert gone(first[0]) and gone(second)


def test_a_fork_server_ends_when_it_is_let_go_just_after_its_last_program(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1")
    warm = WarmStarts(lab.folder / "imported", [PROGRAM], own=lab.own, most=1)
    assert lab.said(IMPORTED, warm=warm, env={"PYTHONHASHSEED": "1"})[0]
    (first,) = warm.pids
    assert psutil.pid_exists(first), "control: it waits for the next"
    lab.said(IMPORTED, warm=warm, env={"PYTHONHASHSEED": "2"})  # makes place: its owner lets the first one go
    assert gone(first)


def test_an_idle_fork_server_ends(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    ours, theirs = socket.socketpair()
    monkeypatch.setattr(fork_server, "IDLE", -1.0)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        with ours, theirs:
            assert fork_server.ForkServer(theirs, None).serve() is None  # type: ignore[arg-type]
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, before)


def test_what_is_imported_by_the_fork_server_does_not_count_against_the_program(lab: Lab) -> None:
    lab.package("laden", "VALUE = bytes(range(256)) * (400 << 10)")  # 100 MB
    held = "import time; time.sleep(0.5); print('done')"
    assert lab.said(held, limits=Limits(memory_bytes=80 << 20, wall_seconds=20)) == (True, "done")
    eats = "x = bytearray(100 << 20); import time; time.sleep(5); print('done')"
    assert lab.said(eats, limits=Limits(memory_bytes=80 << 20, wall_seconds=20)) == (
        True,
        "used more than 80.0 MB of memory",
    )


def test_libraries_use_as_many_threads_as_was_said(lab: Lab) -> None:
    openmp = next(Path(sysconfig.get_path("purelib")).glob("scikit_learn.libs/libgomp*"))
    lab.package("laden", f"import ctypes, numpy, scipy.linalg; VALUE = ctypes.CDLL({str(openmp)!r})")
    code = """
import laden, numpy, scipy.linalg, threadpoolctl
print(sorted((each["internal_api"], each["num_threads"]) for each in threadpoolctl.threadpool_info()))
print(float((numpy.ones((200, 200)) @ numpy.ones((200, 200))).sum()))
"""
    env = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "2"}
    forked, text = lab.said(code, env=env)
    executed, wanted = lab.said(code, env=env, warm=WarmStarts(lab.folder / "other", []))
    assert (forked, executed) == (True, False)
    assert text == wanted and "('openblas', 2), ('openmp', 3)" in text


def test_two_programs_do_not_draw_the_same_numbers(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1; import numpy.random, random")
    code = "import random, numpy as np; print(random.random(), np.random.random())"
    one, two = (lab.said(code) for _ in range(2))
    assert one[0] and two[0]
    assert not set(one[1].split()) & set(two[1].split())


def test_processes_of_a_program_can_be_made_in_every_way(lab: Lab) -> None:
    lab.package("laden", "VALUE = 1; import multiprocessing")
    code = """
import multiprocessing as mp

def twice(x):
    return 2 * x

if __name__ == "__main__":
    for way in ("fork", "spawn", "forkserver"):
        with mp.get_context(way).Pool(1) as pool:
            print(way, pool.map(twice, [1, 2]))
"""
    assert lab.said(code) == (True, "fork [2, 4]\nspawn [2, 4]\nforkserver [2, 4]")
