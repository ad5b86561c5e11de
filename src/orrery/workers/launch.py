"""The guardian: a small process between a worker and the code that it runs, which ends *all* of it.

It is started by :mod:`orrery.workers.contained` as a script, with the standard library only, because it must start in
milliseconds and weigh little. It reads one line of JSON from a socket, starts the program in a session of its own (or
takes over one that a :mod:`fork server <orrery.workers.fork_server>` has forked), and then only watches, every
:data:`TICK` seconds where something is limited, else every :data:`SLOW_TICK`; that the program ended or that the worker
has gone wakes it at once:

* the program ended, a limit is passed, or it was told to stop: everything that descends from it is killed, also what
  forked twice or left the session (the guardian is their subreaper, so orphans become its own children);
* the worker is gone (its end of the socket closed, or another parent process): the same;
* the guardian itself is killed: the kernel kills the program (``PR_SET_PDEATHSIG``).

Where the program has :mod:`walls <orrery.workers.namespaces>`, one more process below the guardian holds them.

Without Linux's ``/proc`` and ``prctl`` it can only use resource limits, the clock and the process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TICK, SLOW_TICK = 0.1, 1.0
LINUX = sys.platform.startswith("linux")
PAGE = resource.getpagesize()
HERTZ = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
DOORS = 2
"""So many doors walls have, at most: one to MLflow, and a way out."""
RLIMITS = {"cpu_seconds": "RLIMIT_CPU", "files": "RLIMIT_NOFILE", "file_bytes": "RLIMIT_FSIZE"}


def prctl(option: int, value: int) -> None:
    """Ask the kernel; other systems do not know the question."""
    if LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Return the processes below one, children before grandchildren."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children(waiting.pop())
        found.extend(below)
        waiting.extend(below)
    return found


def children(pid: int) -> list[int]:
    """Return the processes whose parent is this one."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # ended while we looked
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as listing:
                found.extend(int(child) for child in listing.read().split())
    return found


def usage(pids: list[int]) -> tuple[int, float, int]:
    """Return resident bytes, CPU seconds and number of live processes."""
    memory, ticks, alive = 0, 0, 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
            if fields[0] != "Z":
                alive += 1
                memory += int(fields[21]) * PAGE
            ticks += sum(int(field) for field in fields[11:15])
    return memory, ticks / HERTZ, alive


def proportional(pids: list[int]) -> int:
    """Return memory in bytes where what forked processes share counts once; slower than :func:`usage`."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
    return total


class Guardian:
    """Start one program, watch it, end it, and report how it went."""

    def __init__(
        self, control: socket.socket, config: dict[str, Any], forked: tuple[int, int, int] | None = None
    ) -> None:
        self.control = control
        self.forked = forked
        self.holder = 0
        self.config = config
        self.limits: dict[str, Any] = config["limits"]
        self.parent: int = config["parent"]
        self.main = 0
        self.status: int | None = None
        self.peak = 0
        self.passed = ""
        self.used, self.idle = 0.0, 0
        self.stopping_since: float | None = None
        self.started = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Stay until nothing is left of the program; return the report."""
        wake, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if LINUX else _pipe()
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: self.stop())
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            self.main, failed, self.holder = self.forked or self.start()
        except OSError as error:
            return {"failure": str(error)}
        failure, doors = heard(socket.socket(fileno=failed))
        if failure:
            self.kill_all()
            return {"failure": failure}
        socket.send_fds(self.control, [json.dumps({"pid": self.main}).encode() + b"\n"], doors)
        for door in doors:
            os.close(door)
        self.reap()  # a program that was forked before us may have ended
        listening: list[Any] = [wake, self.control]
        limited = any(self.limits[name] for name in ("memory_bytes", "wall_seconds", "cpu_seconds", "processes"))
        while self.status is None:
            quick = limited or self.stopping_since is not None
            ready, _, _ = select.select(listening, [], [], self.pause() if quick else SLOW_TICK)
            if wake in ready:
                os.read(wake, 4096)
            self.reap()
            if self.control in ready and not self.obey():
                listening.remove(self.control)
            if birth(self.parent) != self.config["born"]:
                self.stop()
            if self.status is None:
                self.look()
        self.kill_all()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        biggest = used.ru_maxrss * (1024 if LINUX else 1)
        return {
            "status": self.status,
            "passed": self.passed,
            "seconds": time.monotonic() - self.started,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_memory": max(self.peak, biggest),
        }

    def start(self) -> tuple[int, int, int]:
        """Fork and execute; return the pid, a socket with the reason if it could not be executed, and the holder."""
        failed, telling = socket.socketpair()  # both closed by a successful exec
        holder = shut_in(self.config)
        pid = os.fork()
        if pid == 0:
            try:
                tell(telling, prepare(self.config))
                argv = self.config["argv"]
                os.execvpe(argv[0], argv, self.config["env"])
            except BaseException as error:
                telling.sendall(str(error).encode()[:1000])
            os._exit(127)
        telling.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):  # else the pipes would stay open when the program has ended
            os.dup2(nothing, standard)
        os.chdir("/")
        return pid, failed.detach(), holder

    def obey(self) -> bool:
        """Do what the worker says: ``t`` asks the program to end, ``k`` ends it; False when the worker is gone."""
        try:
            orders = self.control.recv(16)
        except OSError:
            orders = b""
        if b"k" in orders:
            self.passed = self.passed or "stopped"
            self.kill_all()
        elif b"t" in orders:
            self.signal_group(signal.SIGTERM)
        elif not orders:
            self.stop()
        return bool(orders)

    def pause(self) -> float:
        """Return the seconds until the next look: longer and longer while the program sleeps, and uses nothing."""
        if self.stopping_since is not None or not LINUX:
            return TICK
        wall = self.limits["wall_seconds"]
        left = SLOW_TICK if wall is None else wall - (time.monotonic() - self.started)
        return max(TICK, min(TICK * 2.0**self.idle, SLOW_TICK, float(left)))

    def look(self) -> None:
        """Compare with the limits; end the program where one is passed, or where its grace is over."""
        below = [pid for pid in descendants(os.getpid()) if pid != self.holder] if LINUX else []
        memory, cpu, alive = usage(below) if LINUX else (0, 0.0, 1)
        limits, now = self.limits, time.monotonic()
        self.idle = min(self.idle + 1, 4) if cpu == self.used else 0
        self.used = cpu
        if limits["memory_bytes"] and memory > limits["memory_bytes"]:
            memory = proportional(below) or memory
        self.peak = max(self.peak, memory)
        if limits["memory_bytes"] and memory > limits["memory_bytes"]:
            self.passed = "memory_bytes"
        elif limits["wall_seconds"] is not None and now - self.started > limits["wall_seconds"]:
            self.passed = "wall_seconds"
        elif limits["cpu_seconds"] is not None and cpu > limits["cpu_seconds"]:
            self.passed = "cpu_seconds"
        elif limits["processes"] is not None and alive > limits["processes"]:
            self.passed = "processes"
        overdue = self.stopping_since is not None and now - self.stopping_since > self.config["grace"]
        if self.passed or overdue:
            self.passed = self.passed or "stopped"
            self.kill_all()

    def stop(self) -> None:
        """Ask the program to end because nobody waits for it; :meth:`look` ends it when the grace is over."""
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            self.signal_group(signal.SIGTERM)

    def signal_group(self, number: int) -> None:
        """Send a signal to the program and its process group."""
        if self.main:
            with contextlib.suppress(OSError):
                os.killpg(self.main, number)

    def reap(self) -> None:
        """Collect what has ended, adopted orphans too."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.main:
                    self.status = status

    def kill_all(self) -> None:
        """Kill everything below, until nothing is left; stopping first, so that nothing forks away meanwhile."""
        self.signal_group(signal.SIGKILL)
        self.reap()
        while LINUX and (pids := descendants(os.getpid())):
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in pids:
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)
            time.sleep(0.002)
            self.reap()
        while self.status is None:
            self.reap()
            time.sleep(0.002)


def shut_in(config: dict[str, Any], show: Callable[[], None] | None = None) -> int:
    """Let what is forked from now on be within walls, if it is to be; return the process that holds them, or 0."""
    if config["walls"] is None:
        return 0
    holder: int = _namespaces().apart(show)
    return holder


def tell(telling: socket.socket, doors: list[socket.socket]) -> None:
    """Hand the doors of the walls to the guardian, where there are some."""
    if doors:
        socket.send_fds(telling, [b"+"], [door.fileno() for door in doors])
    for door in doors:
        door.close()


def heard(failed: socket.socket) -> tuple[str, list[int]]:
    """Return why the program could not be started, empty if it was, and the doors of its walls."""
    text, doors = b"", list[int]()
    with failed:
        while True:
            block, fds, _, _ = socket.recv_fds(failed, 4096, DOORS)
            doors += fds
            if not block:
                return text.removeprefix(b"+").decode(), doors
            text += block


def prepare(config: dict[str, Any]) -> list[socket.socket]:
    """Make the forked process what the program is to be in: own session, signals, limits, walls, folder.

    Returns the doors of the walls.
    """
    limits = config["limits"]
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    for name, limit in RLIMITS.items():
        if limits[name] is not None:
            _limit(getattr(resource, limit), int(limits[name]))
    if not config["own"]:
        _limit(resource.RLIMIT_CORE, 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        os.umask(0o077)
        os.nice(limits["nice"])
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
            score.write("800")  # when the machine runs out, the kernel takes this, not the platform
    doors = list[socket.socket]()
    if config["walls"] is not None:
        doors = _namespaces().enclose(config["walls"])
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # who gave up its capabilities has to say it again
    os.chdir(config["cwd"])
    return doors


def birth(pid: int) -> str:
    """Return when a process began, in the kernel's words: with its number, that names it for ever."""
    if not LINUX:
        return "" if os.getppid() == pid or os.getpid() == pid else "gone"
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return "gone" if fields[0] == "Z" else fields[19]
    except OSError:
        return "gone"


def _namespaces() -> Any:
    """Return the module beside this one, which is not imported as a part of its package: that would take longer."""
    import importlib.util

    place = Path(__file__).with_name("namespaces.py")
    spec = importlib.util.spec_from_file_location("orrery_namespaces", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # The hard limit of CPU time is later: the soft one ends with a signal that says what it was.
    later = value + 2 if which == resource.RLIMIT_CPU else value
    resource.setrlimit(which, (value, later if hard == resource.RLIM_INFINITY else min(later, hard)))


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(write, False)
    return read, write


def main() -> None:
    """Read the configuration from the socket whose number is the first argument, and report there.

    More arguments are a program that was forked already, with what :meth:`Guardian.start` returns.
    """
    number, *more = [int(word) for word in sys.argv[1:]]
    for each in (number, *more[1:2]):
        os.set_inheritable(each, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=number) as control:
        text = b""
        while not text.endswith(b"\n"):
            block = control.recv(65536)
            if not block:
                return
            text += block
        config = json.loads(text)
        report = Guardian(control, config, (more[0], more[1], more[2]) if more else None).run()
        try:
            control.sendall(json.dumps(report).encode() + b"\n")
        except OSError:  # the worker is gone, which would have done this
            if config["walls"] is not None:
                import shutil

                shutil.rmtree(config["walls"]["scratch"], ignore_errors=True)


if __name__ == "__main__":
    main()
