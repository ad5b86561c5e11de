"""Run the project's code as itself: in processes of its own, with limits, so that it can only harm itself.

A :mod:`guardian <orrery.workers.launch>` stands between the worker and the program. It ends the whole tree of processes
when a limit is passed, when the program ends, and when the worker dies. The program gets an environment of a few
harmless variables and what the caller passes, so no credential of the platform; it may not gain privileges.

With :class:`walls <orrery.workers.walls.Walls>` it is shut in as well: it sees no file, process or network but what it
is to have. Without them this is containment of accidents, not of malice.

Memory is watched as what is resident (forked processes' shared pages counted once), every 100 ms: a limit on address
space would break NumPy's and Polars' threads, which reserve far more than they use.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orrery.pipeline.loaded import VARIABLE, keep
from orrery.pipeline.redaction import Redaction
from orrery.workers.launch import DOORS, birth
from orrery.workers.output import Output
from orrery.workers.relay import Relay
from orrery.workers.walls import Walls

if TYPE_CHECKING:
    from orrery.workers.warm import WarmStarts

LAUNCHER = Path(__file__).with_name("launch.py")
MARK = "ORRERY_STEP_CONTAINED"
"""Variable that marks what belongs to one run, to be found even when its guardian was killed."""

PASSED_ON = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONHASHSEED", "PYTHONUTF8"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"}
    | {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"}
)
"""Variables that the program inherits, besides ``LC_*``."""

LOADED = ".orrery-loaded.json"
SHARED = 2 << 30
"""Bytes that ``/dev/shm`` of a program within walls may hold, at most."""


@dataclass(frozen=True)
class Limits:
    """What a program may use; None is no limit.

    Parameters
    ----------
    memory_bytes : resident memory of all its processes together.
    cpu_seconds, wall_seconds : time on processors, of all its processes, and by the clock.
    files : files open at once, in each process.
    file_bytes : size of the largest file that it may write.
    processes : processes alive at once.
    nice : how much it gives way to others.
    """

    memory_bytes: int | None = 4 << 30
    cpu_seconds: float | None = None
    wall_seconds: float | None = 3600.0
    files: int | None = 4096
    file_bytes: int | None = 16 << 30
    processes: int | None = 256
    nice: int = 5


NONE = Limits(**{field.name: None for field in fields(Limits) if field.name != "nice"}, nice=0)


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Parameters
    ----------
    code : its exit code; None where a signal or a limit ended it, 127 where it could not be started.
    signal : number of the signal that killed it.
    seconds, cpu_seconds : by the clock and on processors, of the whole tree.
    peak_memory : largest resident memory in bytes.
    tail : the end of its output.
    reason : why it failed, as the end of a sentence; empty when it did not.
    refused : ``HOST:PORT`` of what it asked for on its way out, and may not reach.
    """

    code: int | None
    signal: int | None
    seconds: float
    cpu_seconds: float
    peak_memory: int
    tail: str
    reason: str
    refused: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return not self.reason


class Contained:
    """A running program; of :func:`spawn`. Leaving its ``with`` block kills it."""

    def __init__(
        self,
        argv: Sequence[str],
        config: dict[str, Any],
        mark: str,
        pipes: dict[str, Any],
        warm: WarmStarts | None,
        walls: Walls | None,
    ) -> None:
        self._limits: dict[str, Any] = config["limits"]
        self._mark = mark
        self._began = time.monotonic()
        self._report: dict[str, Any] | None = None
        self._heard = b""
        self._walls: dict[str, Any] | None = config["walls"]
        self._leads = {} if walls is None else walls.doors()
        self._way_out = None if walls is None else walls.way_out
        self._relays: list[Relay] = []
        self._loaded = ""
        self._guardian: subprocess.Popen[bytes] | None = None
        forked = warm.start(config, pipes) if warm is not None else None
        if self._walls is not None and VARIABLE in config["env"]:
            self._loaded, config["env"][VARIABLE] = config["env"][VARIABLE], f"/tmp/{LOADED}"  # nosec B108 - the program's own
            if warm is not None:
                warm.expect(Path(self._walls["scratch"], "tmp", LOADED), Path(self._loaded))
        streams: Any
        self.forked = forked is not None
        """Whether it was forked from a process that had imported what it needs, and not executed."""
        if forked is not None:
            self._control, streams = forked
        else:
            self._control, theirs = socket.socketpair()
            with theirs:
                streams = self._guardian = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(LAUNCHER), str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a Ctrl-C at the terminal is for the worker, which then stops us in order
                    **pipes,
                )
        self._control.sendall(json.dumps(config).encode() + b"\n")
        self.argv = list(argv)
        self.stdin: IO[bytes] | None = streams.stdin
        self.stdout: IO[bytes] | None = streams.stdout
        self.stderr: IO[bytes] | None = streams.stderr
        self.pid = 0
        """Process id of the program itself; 0 if it could not be started."""
        while self._listen(None) and not self.pid:
            pass

    def __enter__(self) -> Contained:
        return self

    def __exit__(self, *details: object) -> None:
        self.kill()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # a full pipe to somebody who has gone
                    pipe.close()

    def fileno(self) -> int:
        """Return what becomes readable when the program has ended."""
        return self._control.fileno()

    def poll(self) -> Finished | None:
        """Return how it ended, or None while it runs."""
        while self._report is None and self._listen(0):
            pass
        return self._finished()

    def wait(self, timeout: float | None = None) -> Finished | None:
        """Wait until it ends, at most so many seconds; None if it still runs then."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._report is None:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not self._listen(left) and self._report is None:
                return None
        return self._finished()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM to it and its process group)."""
        self._say(b"t")

    def kill(self) -> Finished:
        """End it and all that descends from it, and wait for that."""
        self._say(b"k")
        finished = self.wait()
        assert finished is not None
        return finished

    def _say(self, order: bytes) -> None:
        if self._report is None:
            with contextlib.suppress(OSError):  # it ended at this moment
                self._control.sendall(order)

    def _listen(self, timeout: float | None) -> bool:
        """Take one message of the guardian; False when none came in time, or none will."""
        self._control.settimeout(timeout)
        try:
            block, doors, _, _ = socket.recv_fds(self._control, 65536, DOORS)
            self._relays += [
                Relay(socket.socket(fileno=door), leads)
                for door, leads in zip(doors, self._leads.values(), strict=False)
            ]
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            block = b""
        self._heard += block
        while b"\n" in self._heard:
            line, _, self._heard = self._heard.partition(b"\n")
            message = json.loads(line)
            if "pid" in message:
                self.pid = message["pid"]
            else:
                self._end(message)
        if not block and self._report is None:
            _sweep(self._mark)
            self._end({"passed": "guardian"})
        return self._report is None

    def _end(self, report: dict[str, Any]) -> None:
        self._report = report
        if self._guardian is not None:
            self._guardian.wait()
        self._control.close()
        for relay in self._relays:
            relay.close()
        if self._walls is not None:
            if self._loaded:
                keep(Path(self._walls["scratch"], "tmp", LOADED), Path(self._loaded))
            shutil.rmtree(self._walls["scratch"], ignore_errors=True)

    def _finished(self) -> Finished | None:
        report = self._report
        if report is None:
            return None
        status = report.get("status")
        code = None if status is None or os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        return Finished(
            code=127 if "failure" in report else code,
            signal=number,
            seconds=report.get("seconds", time.monotonic() - self._began),
            cpu_seconds=report.get("cpu_seconds", 0.0),
            peak_memory=report.get("peak_memory", 0),
            tail="",
            reason=_reason(report, code, number, self._limits),
            refused=() if self._way_out is None else tuple(self._way_out.refused),
        )


def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    limits: Limits = NONE,
    stdin: Any = subprocess.DEVNULL,
    stdout: Any = subprocess.DEVNULL,
    stderr: Any = subprocess.DEVNULL,
    own: bool = False,
    grace: float = 0.0,
    warm: WarmStarts | None = None,
    walls: Walls | None = None,
) -> Contained:
    """Start a program that may live long, with the containment of :func:`run`.

    Parameters
    ----------
    argv, cwd : what to run, and where.
    env : variables besides those of :data:`PASSED_ON`; they win.
    limits : see :class:`Limits`.
    stdin, stdout, stderr : as of :class:`subprocess.Popen`.
    own : it is orrery's own code: it gets exactly ``env``, and keeps its privileges and priority.
    grace : seconds between SIGTERM and SIGKILL when the process that called this is gone.
    warm : forks the program from a process that has imported what it needs, where it can.
    walls : what it sees of the machine; without them it sees what this user sees.
    """
    mark = uuid.uuid4().hex
    given = {**(env or {}), MARK: mark}
    words = [str(word) for word in argv]
    config: dict[str, Any] = {
        "argv": words,
        "cwd": str(cwd),
        "env": given if own else {**harmless(), **(walls.variables() if walls else {}), **given},
        "limits": asdict(limits),
        "parent": os.getpid(),
        "born": birth(os.getpid()),
        "own": own,
        "grace": grace,
        "walls": None if walls is None else _walls(walls, limits),
    }
    try:
        return Contained(words, config, mark, {"stdin": stdin, "stdout": stdout, "stderr": stderr}, warm, walls)
    except BaseException:  # it will be asked again, or cannot be started: nobody else knows of the folder
        if config["walls"] is not None:
            shutil.rmtree(config["walls"]["scratch"], ignore_errors=True)
        raise


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    expects: Path | None = None,
    warm: WarmStarts | None = None,
    redaction: Redaction | None = None,
    walls: Walls | None = None,
) -> Finished:
    """Run a program to its end; nothing of it is left when this returns, or when this process dies.

    Parameters
    ----------
    argv, cwd, env, limits, warm, walls : as of :func:`spawn`; without limits, those of ``Limits()``.
    log : file that gets the output (of both streams), its head and its tail where it is long.
    on_line : called with each line of output as it comes; what it raises ends the program and is raised here.
    redaction : secrets, which are in no output that is captured.
    expects : file that the program writes at its proper end; if it is missing, the program ended itself before that.

    Returns
    -------
    How it ended. A program that fails does not raise: ``reason`` says why, for instance ``used more than 2.0 GB of
    memory``, ``did not end within 60 s``, ``was killed by signal 11 (segmentation fault)`` or ``ended itself by
    os._exit(3)``.
    """
    limits = limits or Limits()
    with (
        Output(log, on_line, redaction) as output,
        spawn(
            argv,
            cwd=cwd,
            env=env,
            limits=limits,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            warm=warm,
            walls=walls,
        ) as program,
    ):
        assert program.stdout is not None
        _read(program, program.stdout, output)
        finished = program.wait()
        assert finished is not None
        output.end()
    reason = finished.reason
    if expects is not None and not expects.exists() and finished.code is not None and finished.code != 127:
        reason = f"ended itself by os._exit({finished.code})"
    elif "File too large" in output.tail and finished.code:
        reason = f"wrote a file larger than {size(limits.file_bytes or 0)}"
    elif finished.code not in (None, 0, 127) and output.last_line:
        reason = f"{reason}: {output.last_line}"
    return Finished(**{**vars(finished), "tail": output.tail, "reason": reason})


def harmless() -> dict[str, str]:
    """Return the variables that the project's code may inherit: those of :data:`PASSED_ON`, so no credential."""
    return {name: text for name, text in os.environ.items() if name in PASSED_ON or name.startswith("LC_")}


def size(amount: float) -> str:
    """Write an amount of bytes.

    Examples
    --------
    >>> size(2 << 30)
    '2.0 GB'
    """
    for unit in ("bytes", "kB", "MB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GB"


def _walls(walls: Walls, limits: Limits) -> dict[str, Any]:
    """Return walls as the guardian is told of them, with a new folder for what the program writes to ``/tmp``."""
    shared = min(limits.memory_bytes or SHARED, SHARED)
    scratch = tempfile.mkdtemp(prefix="orrery-walls-")
    told = {"read": walls.read, "write": walls.write, "doors": list(walls.doors())}
    return {**told, "scratch": scratch, "shared_bytes": shared}


def _read(program: Contained, pipe: IO[bytes], output: Output) -> None:
    """Read until the pipe is closed; not longer than a moment after the end, should somebody else hold it open."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        deadline: float | None = None
        while deadline is None or time.monotonic() < deadline:
            if selector.select(0.2 if deadline is None else 0.05):
                block = os.read(pipe.fileno(), 1 << 16)
                if not block:
                    return
                output.write(block)
            elif deadline is None and program.poll() is not None:
                deadline = time.monotonic() + 1


def _sweep(mark: str) -> None:
    """Kill what carries the mark: the guardian was killed, and could not."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                process.kill()


def _reason(report: dict[str, Any], code: int | None, number: int | None, limits: dict[str, Any]) -> str:
    if "failure" in report:
        return f"could not be started: {report['failure']}"
    passed = report["passed"]
    if passed == "memory_bytes":
        return f"used more than {size(limits['memory_bytes'])} of memory"
    if passed == "wall_seconds":
        return f"did not end within {limits['wall_seconds']:g} s"
    if passed == "cpu_seconds" or (number == signal.SIGXCPU and limits["cpu_seconds"] is not None):
        return f"used more than {limits['cpu_seconds']:g} s of CPU time"
    if passed == "processes":
        return f"started more than {limits['processes']} processes"
    if passed == "stopped":
        return "was stopped"
    if passed == "guardian":
        return "was ended because the process that watched it was killed"
    if number == signal.SIGXFSZ and limits["file_bytes"] is not None:
        return f"wrote a file larger than {size(limits['file_bytes'])}"
    if number is not None:
        name = (signal.strsignal(number) or "unknown").lower()
        return f"was killed by signal {number} ({name})"
    return f"ended with exit code {code}" if code else ""
