"""The supervisor of ``orrery up``: keeps the processes of one orrery alive, and takes them along when it ends.

Each child runs under a :mod:`guardian <orrery.workers.launch>`, so that a child that dies leaves nothing behind that
holds its port, and that all of them end, with all that they started, even when the supervisor is killed. One
supervisor holds a home: it keeps ``lock`` locked while it lives. What runs is written to ``processes.json`` every
second, for whoever asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from orrery.errors import NotAllowed
from orrery.workers.contained import Contained, spawn
from orrery.workers.launch import LINUX, descendants, usage

FIRST_DELAY, LONGEST_DELAY, HEALTHY_AFTER = 0.2, 10.0, 60.0
"""Seconds: a child that dies comes back after the first, doubled each time up to the longest; one that stayed alive
for the third begins anew."""
LOG_BYTES = 16 << 20
"""A larger log is put aside as ``NAME.log.1`` when its process starts."""


@dataclass(frozen=True)
class Child:
    """A process to keep alive.

    Parameters
    ----------
    name : unique; also the name of its log.
    argv : what to run.
    env : all its variables.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class Process:
    """What is known about one child.

    Parameters
    ----------
    name, pid : pid is 0 while it waits to be started again.
    state : ``running``, ``waiting`` (to be started again) or ``stopped``.
    since : when that began, seconds since 1970.
    restarts : how often it was started again.
    rss, cpu : resident bytes and CPU seconds of it and all below it.
    why : how it ended last; empty if it never did.
    log : file of its output.
    """

    name: str
    pid: int
    state: str
    since: float
    restarts: int
    rss: int
    cpu: float
    why: str
    log: str


class Supervisor:
    """Keeps children alive.

    Parameters
    ----------
    home : folder of the orrery.
    children : what to keep alive; started in this order, stopped in the reverse one.
    grace : seconds between SIGTERM and SIGKILL.
    report : called with a sentence when a child was started again.
    on_status : called each second with what runs.
    """

    def __init__(
        self,
        home: Path,
        children: Sequence[Child],
        *,
        grace: float = 10.0,
        report: Callable[[str], None] = lambda text: None,
        on_status: Callable[[list[Process]], None] = lambda processes: None,
    ) -> None:
        self.home = home
        self._kept = [_Kept(child, home / "logs" / f"{child.name}.log", grace) for child in children]
        self._grace = grace
        self._report = report
        self._on_status = on_status
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._since = time.time()

    def run(self) -> None:
        """Start all, keep them alive until SIGINT, SIGTERM, SIGHUP or :meth:`stop`, then end all.

        A second signal ends them without grace.

        Raises
        ------
        NotAllowed
            If another supervisor holds the home.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        with _holding(self.home / "lock"), self._signals():
            self._since = time.time()
            try:
                self._watch()
            finally:
                self._end_all()
                self._write(self.status())

    def stop(self) -> None:
        """End :meth:`run`, from any thread; a second time: at once."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def status(self) -> list[Process]:
        """Return what is known about each child."""
        return [kept.status() for kept in self._kept]

    def _watch(self) -> None:
        for kept in self._kept:
            kept.start()
        due = 0.0
        while not self._stop.is_set():
            for kept in self._kept:
                if sentence := kept.tend():
                    self._report(sentence)
            if time.monotonic() >= due:
                due = time.monotonic() + 1
                processes = self.status()
                self._write(processes)
                self._on_status(processes)
            self._stop.wait(0.1)

    def _end_all(self) -> None:
        until = time.monotonic() + self._grace
        for kept in reversed(self._kept):
            if kept.program is not None:
                kept.program.terminate()
        for kept in reversed(self._kept):
            while kept.program is not None and kept.program.wait(0.1) is None:
                if self._hurry.is_set() or time.monotonic() > until:
                    break
            kept.end()

    def _write(self, processes: list[Process]) -> None:
        content = {"pid": os.getpid(), "since": self._since, "processes": [asdict(each) for each in processes]}
        target = self.home / "processes.json"
        draft = target.with_suffix(".json.new")
        with contextlib.suppress(OSError):  # a full disk must not end what serves; a reader sees the file is old
            draft.write_text(json.dumps(content))
            draft.replace(target)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, lambda number, frame: self.stop()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def running(home: Path) -> int | None:
    """Return the pid of the supervisor that holds a home, None if nobody does."""
    try:
        file = (home / "lock").open("r")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0)
    return None


def processes(home: Path) -> list[Process]:
    """Return what the supervisor of a home last wrote; nothing if none runs."""
    if running(home) is None:
        return []
    try:
        content = json.loads((home / "processes.json").read_text())
    except FileNotFoundError:
        return []
    return [Process(**each) for each in content["processes"]]


class _Kept:
    """One child, its present process and its back-off."""

    def __init__(self, child: Child, log: Path, grace: float) -> None:
        self.child = child
        self.log = log
        self.grace = grace
        self.program: Contained | None = None
        self.restarts = 0
        self.why = ""
        self.state = "waiting"
        self.since = time.time()
        self.began = time.monotonic()
        self.delay = FIRST_DELAY
        self.due = 0.0

    def start(self) -> None:
        """Start the process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        out: IO[bytes]
        with self.log.open("ab") as out:
            self.program = spawn(
                self.child.argv,
                cwd=Path.cwd(),
                env=self.child.env,
                stdout=out,
                stderr=subprocess.STDOUT,
                own=True,
                grace=self.grace,
            )
        self.state, self.since, self.began = "running", time.time(), time.monotonic()

    def tend(self) -> str:
        """Notice a death, start again when it is time; return a sentence about it."""
        if self.program is None:
            if time.monotonic() < self.due:
                return ""
            self.start()
            self.restarts += 1
            return f"{self.child.name} {self.why} and was started again."
        finished = self.program.poll()
        if finished is None:
            return ""
        self.program = None
        self.why = finished.reason or "ended by itself"
        self.state, self.since = "waiting", time.time()
        if time.monotonic() - self.began > HEALTHY_AFTER:
            self.delay = FIRST_DELAY
        self.due = time.monotonic() + self.delay
        self.delay = min(2 * self.delay, LONGEST_DELAY)
        return ""

    def end(self) -> None:
        """End the process and all below it."""
        if self.program is not None:
            self.program.kill()
            self.program = None
        self.state, self.since = "stopped", time.time()

    def status(self) -> Process:
        """Measure it."""
        pid = self.program.pid if self.program is not None else 0
        memory, cpu = _measure(pid) if pid else (0, 0.0)
        return Process(
            name=self.child.name,
            pid=pid,
            state=self.state,
            since=self.since,
            restarts=self.restarts,
            rss=memory,
            cpu=cpu,
            why=self.why,
            log=str(self.log),
        )


def _measure(pid: int) -> tuple[int, float]:
    if LINUX:  # a tenth of what psutil takes, which reads every process of the machine to find the children of one
        memory, cpu, _ = usage([pid, *descendants(pid)])
        return memory, cpu
    import psutil

    memory, cpu = 0, 0.0
    with contextlib.suppress(psutil.Error):  # it ended at this moment
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error), each.oneshot():
                memory += each.memory_info().rss
                times = each.cpu_times()
                cpu += times.user + times.system
    return memory, cpu


@contextlib.contextmanager
def _holding(path: Path) -> Iterator[None]:
    """Hold the home; the kernel lets go of it when this process ends, however it ends."""
    with path.open("a+") as file:
        until = time.monotonic() + 0.5  # who only looks whether it is held, holds it for an instant
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    file.seek(0)
                    raise NotAllowed(
                        f"An orrery runs in {path.parent} already, as process {file.read().strip() or 'unknown'}.",
                        safe="It was left alone.",
                        todo="Use that one, stop it with Ctrl-C, or give another folder with --home.",
                    ) from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
        file.truncate(0)
