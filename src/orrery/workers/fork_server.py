"""A fork server: a process that has imported libraries, and forks programs that then need not import them again.

It is started by :mod:`orrery.workers.warm` for the interpreter of one environment, as :mod:`multiprocessing.forkserver`
is: it imports what those programs had imported of installed packages when they last ran there (``PROGRAM.json``),
never code of a project nor a package that a project installed, and then forks one guarded program for each request.
Only the standard library is used here.

A process that has threads cannot be forked safely: the copy has the locks, and not the threads that would release them.
So a package that starts a thread when it is imported, or cannot be imported, is left out; as nothing can be un-imported
this process then begins again without it, and writes that down (``FOLDER/left-out.json``) for those that come later.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import runpy
import select
import signal
import site
import socket
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from orrery.workers.launch import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NO_NEW_PRIVS,
    children,
    descendants,
    prctl,
    prepare,
    shut_in,
    tell,
)
from orrery.workers.launch import __file__ as launcher

PROGRAMS = "ORRERY_STEP_PROGRAMS"
"""Variable that names the programs, with commas. It is no argument: a program is looked for by its arguments."""
ROOM = 512
"""Bytes that are kept free in the arguments, so that a forked program can show its own."""
IDLE = 300.0
"""Seconds without a request or a program after which it ends."""
IMPORT_WITHIN = 60
"""Seconds that importing may take before it is given up."""
BEGINNINGS = 8
"""So often it begins anew; an environment of which more is left out than this gains nothing from it."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that say how many threads libraries may use; here it is one, a forked program sets what it was told."""
LATE = (*THREADS, "TMPDIR", "HOME")
"""Variables that a forked program gets when it begins, whatever they were when the libraries were imported."""
ALONE = {**dict.fromkeys(THREADS, "1"), "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Variables with which OpenBLAS and Arrow's memory start no threads when they are loaded."""
STARTERS = {"polars", "_polars_runtime_32", "_polars_runtime_64", "_polars_runtime_compat", "narwhals", "onnxruntime"}
"""Packages known to start threads, or to import one that does, when they are imported; others are found out."""
SET_OPENMP = ("omp_set_num_threads",)
SET_BLAS = tuple(f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", ""))
NAME = "orrery.workers.fork_server"
"""What it is called among processes."""
OURS = ("zz_orrery.pth", "_virtualenv.pth", "distutils-precedence.pth")
"""Files in an environment that add to what can be imported, and are not the project's."""
BOOT = """
import json, sys
sys.path[:] = [path for path in sys.path if path and "-packages" not in path] + [json.loads(sys.argv[5])["source"]]
from orrery.workers.fork_server import main
program = main()
if program is not None:
    program.run()
"""
STRAYS_FOR = 1.0
"""Seconds after the end of a guardian in which what it left behind is looked for."""


class Theirs(BaseException):
    """What is imported needs a package that the project installed."""


class Interpreter:
    """An environment's interpreter, as far as it can be trusted: nothing that a project installed is imported here.

    What is imported before the walls are up could do anything, and reach every program that is forked. So only packages
    beside orrery's own are; a project's own come first in what its programs import, as they would have without us.

    Parameters
    ----------
    python : the interpreter of the environment.
    own : folders of orrery's own packages.
    """

    def __init__(self, python: str, own: list[str]) -> None:
        self.python, self._standard = python, list(sys.path)
        folder = Path(python).parents[1] / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = os.path.realpath(folder / "site-packages")
        trusted = packages in map(os.path.realpath, own)
        found = [] if trusted or not os.path.isdir(packages) else sorted(os.listdir(packages))
        self.fits = all(name in OURS for name in found if name.endswith(".pth"))
        self._theirs = {name.partition(".")[0] for name in found if not name.endswith((".pth", ".dist-info"))}
        for path in own:
            site.addsitedir(path)
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Find nothing, and let nobody else find what is the project's."""
        if name in self._theirs and not name.startswith("_virtualenv"):
            raise Theirs(name)

    def has(self, package: str) -> bool:
        """Say whether a package is the project's."""
        return package in self._theirs

    def begin(self) -> None:
        """Let this process import what a new one can, in that order."""
        sys.meta_path.remove(self)
        sys.path[:], sys.executable = self._standard[:-1], self.python
        site.main()


class Program:
    """What a forked process is to be.

    Parameters
    ----------
    config : as a guardian gets it.
    streams : standard input, output and errors.
    interpreter : what it is to run in.
    """

    def __init__(self, config: dict[str, Any], streams: list[int], interpreter: Interpreter) -> None:
        self.config = config
        self._interpreter = interpreter
        self.streams = streams

    def become(self) -> list[socket.socket]:
        """Be like a new process: own environment, walls, folder, streams and signals; return the doors of the walls."""
        set_threads = _thread_setters(self.config["env"])  # found by paths that are there no more within walls
        doors = prepare(self.config)
        for standard, stream in enumerate(self.streams):
            os.dup2(stream, standard)
            os.close(stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # these two as a new interpreter has them
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.environ.clear()
        os.environ.update(self.config["env"])
        time.tzset()
        _show(self.config["argv"], self.config["env"])
        sys.orig_argv[:] = sys.argv[:] = self.config["argv"]
        self._interpreter.begin()
        sys.path.insert(0, os.getcwd())
        if "tempfile" in sys.modules:
            vars(sys.modules["tempfile"])["tempdir"] = None  # else it would be where the fork server's files go
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()  # Python's own generator does so by itself after a fork
        for function, count in set_threads:
            function(count)
        return doors

    def run(self) -> None:
        """Run the module, as ``python -m`` does."""
        _, _, module, *arguments = self.config["argv"]
        sys.argv[:] = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


class ForkServer:
    """Forks programs for whoever holds the other end of a socket, until that is closed.

    Parameters
    ----------
    link : the socket.
    interpreter : what programs run in.
    """

    def __init__(self, link: socket.socket, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._link = link
        self._guardians: set[int] = set()
        self._asked = time.monotonic()
        self._ended = -math.inf

    def serve(self) -> Program | None:
        """Fork a guardian for each request; return a program in the process that is to be it, None at the end."""
        self._ring = wake, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        listening: list[Any] = [wake, self._link]
        while True:
            left = self._asked + IDLE - time.monotonic() if self._link in listening else 0.0
            patience = None if self._guardians else max(0.0, left)
            ready, _, _ = select.select(listening, [], [], 0.05 if self._searching() else patience)
            if wake in ready:
                os.read(wake, 4096)
            self._reap()
            if self._link in ready:
                request = self._receive()
                if request is None or _threads() > 1:
                    listening.remove(self._link)
                    self._link.close()
                elif program := self._fork(*request):
                    return program
            idle = self._link not in listening or time.monotonic() - self._asked > IDLE
            if idle and not self._guardians and not self._searching():
                return None

    def _searching(self) -> bool:
        """Say whether a guardian ended so lately that something it left behind may still come to us."""
        return time.monotonic() - self._ended < STRAYS_FOR

    def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        text, fds = b"", list[int]()
        while not text.endswith(b"\n"):
            try:
                block, more, _, _ = socket.recv_fds(self._link, 1 << 16, 4)
            except OSError:
                block, more = b"", []
            fds += more
            if not block:
                return None
            text += block
        for number in fds:
            os.set_inheritable(number, False)  # else whoever reads them would not see that the program has ended
        return json.loads(text), fds

    def _fork(self, config: dict[str, Any], fds: list[int]) -> Program | None:
        """Fork a guardian, and say that it is there."""
        self._asked = time.monotonic()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in (*self._ring, self._link.detach()):
                os.close(number)
            return _guarded(self._interpreter, config, *fds)
        self._guardians.add(pid)
        for number in fds:
            os.close(number)
        with contextlib.suppress(OSError):  # who asked is gone, which the guardian sees, too
            self._link.sendall(b'{"forked": true}\n')
        return None

    def _reap(self) -> None:
        """Collect what has ended; what a killed guardian left behind has come to us, and is ended."""
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if pid in self._guardians:
                    self._guardians.remove(pid)
                    self._asked = self._ended = time.monotonic()
        if self._searching():
            for stray in set(children(os.getpid())) - self._guardians:
                for pid in (stray, *descendants(stray)):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)


def _guarded(interpreter: Interpreter, config: dict[str, Any], control: int, *streams: int) -> Program | None:
    """Fork the program and become its guardian: by executing one, which weighs little and has nothing imported."""
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    with socket.socket(fileno=control) as heard:
        if not heard.recv(1, socket.MSG_PEEK):  # whoever asked has changed its mind
            os._exit(0)
        heard.detach()
    try:
        holder = shut_in(config, lambda: _show(["orrery-walls"], {}))
    except OSError as error:
        os.write(control, json.dumps({"failure": str(error)}).encode() + b"\n")
        os._exit(1)
    ours, telling = socket.socketpair()
    failed = ours.detach()
    pid = os.fork()
    if pid == 0:
        program = Program(config, list(streams), interpreter)
        try:
            tell(telling, program.become())
        except BaseException as error:
            telling.sendall(str(error).encode()[:1000])
            os._exit(127)
        telling.close()
        for number in (failed, control):
            os.close(number)
        return program
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        for number in (control, failed):
            os.set_inheritable(number, True)
        os.chdir("/")
        os.execv(sys.executable, [sys.executable, "-I", "-S", launcher, *map(str, (control, pid, failed, holder))])
    finally:
        os._exit(1)  # the program goes with us


def _preload(folder: Path, programs: list[str], interpreter: Interpreter) -> str:
    """Import what the programs need; returns the package that must be left out, empty if there is none."""
    names: dict[str, None] = {}
    for program in programs:
        with contextlib.suppress(FileNotFoundError):
            names |= dict.fromkeys(json.loads((folder / f"{program}.json").read_text()))
    without = STARTERS | _rewritten() | {package for package, _ in _left_out(folder)}
    for name in names:
        package = name.partition(".")[0]
        if package in without or package == "orrery" or interpreter.has(package):
            continue
        try:
            importlib.import_module(name)
        except Theirs as error:
            return _leave_out(folder, package, f"needs {error}, which the project installed")
        except Exception as error:
            return _leave_out(folder, package, f"cannot be imported: {error!r}")
        if _threads() > 1:
            return _leave_out(folder, package, "starts a thread when it is imported")
    return ""


def _rewritten() -> set[str]:
    """Return the packages that pytest rewrites as it imports them: its plugins, which tests must import themselves."""
    plugins = {entry.dist.name: entry.dist for entry in entry_points(group="pytest11") if entry.dist is not None}
    files = [file for plugin in plugins.values() for file in plugin.files or () if file.suffix == ".py"]
    return {file.parts[0].removesuffix(".py") for file in files}


def _left_out(folder: Path) -> list[tuple[str, str]]:
    try:
        return [(package, why) for package, why in json.loads((folder / "left-out.json").read_text())]
    except (FileNotFoundError, ValueError):
        return []


def _leave_out(folder: Path, package: str, why: str) -> str:
    draft = folder / f"left-out.json.{os.getpid()}"
    draft.write_text(json.dumps([*_left_out(folder), (package, why)]))
    draft.replace(folder / "left-out.json")
    return package


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _show(argv: list[str], env: dict[str, str]) -> None:
    """Let those who look at this process from outside (``ps``, a sweep for what a program left) see what it is."""
    with open("/proc/self/stat") as stat:
        places = [int(field) for field in stat.read().rpartition(")")[2].split()[45:49]]
    if all(places):
        variables = [f"{name}={text}" for name, text in sorted(env.items(), key=lambda pair: len(pair[1]))]
        for (start, end), words in zip((places[:2], places[2:]), (argv, variables), strict=True):
            text = b"".join(os.fsencode(word) + b"\0" for word in words)
            ctypes.memmove(start, text[: end - start - 1].ljust(end - start, b"\0"), end - start)


def _thread_setters(env: dict[str, str]) -> list[tuple[Any, int]]:
    """Return what gives the libraries that were loaded with one thread as many as the program is to have."""
    openmp = env.get("OMP_NUM_THREADS") or str(len(os.sched_getaffinity(0)))
    blas = env.get("OPENBLAS_NUM_THREADS") or openmp
    if openmp == blas == "1":
        return []
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if ".so" in line}
    found: list[tuple[Any, int]] = []
    for path in paths:
        file = os.path.basename(path)
        asked, names = (blas, SET_BLAS) if "openblas" in file else (openmp, SET_OPENMP) if "omp" in file else ("", ())
        if asked.isdigit():
            library = ctypes.CDLL(path)  # the one that is loaded
            for function in [getattr(library, name) for name in names if hasattr(library, name)][:1]:
                found.append((function, int(asked)))
    return found


def command(number: int | str, folder: Path | str, beginnings: int, told: str) -> list[str]:
    """Return what starts a fork server; ``told`` is what :func:`about` says of the interpreter."""
    base = json.loads(told)["base"]
    return [base, "-c", BOOT, NAME, str(number), str(folder), str(beginnings), told, " " * ROOM]


def about(python: str, own: list[str]) -> str:
    """Return what a fork server is told of an environment's interpreter; empty if that is not the one it links to."""
    base = os.path.realpath(python)
    if base.startswith(f"{os.path.realpath(Path(python).parents[1])}/"):
        return ""  # something that was installed has put another in its place
    return json.dumps({"python": python, "base": base, "own": own, "source": str(Path(launcher).parents[2])})


def main() -> Program | None:
    """Import, say so, and fork; None where it is over."""
    _, number, folder, beginnings, told, _ = sys.argv[1:]
    os.set_inheritable(int(number), False)
    link = socket.socket(fileno=int(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)
    said = json.loads(told)
    interpreter = Interpreter(said["python"], said["own"])
    if not interpreter.fits:
        return None
    signal.alarm(IMPORT_WITHIN)  # whose default ends the process
    package = _preload(Path(folder), os.environ[PROGRAMS].split(","), interpreter)
    signal.alarm(0)
    if package:
        again = int(beginnings) + 1
        if again > BEGINNINGS:
            return None
        os.set_inheritable(link.fileno(), True)
        link.sendall(b'{"ready": false}\n')
        os.execv(sys.executable, command(number, folder, again, told))
    if _threads() > 1:
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # what is imported lives for ever: collecting it would only copy the pages that hold it
    link.sendall(json.dumps({"ready": True}).encode() + b"\n")
    return ForkServer(link, interpreter).serve()
