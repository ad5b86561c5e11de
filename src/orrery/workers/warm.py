"""Warm starts: programs forked from processes that have imported what they need.

Importing scientific libraries takes seconds, and every program that runs a project's code does it. :class:`WarmStarts`
keeps a few :mod:`fork servers <orrery.workers.fork_server>`, one for each interpreter and set of variables. What it
cannot start so with the same outcome, for whatever reason, it leaves to :func:`orrery.workers.contained.spawn`, which
then executes the program as it does everywhere else: only slower.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from orrery.pipeline.loaded import VARIABLE, keep
from orrery.workers.contained import PASSED_ON
from orrery.workers.fork_server import ALONE, IMPORT_WITHIN, LATE, PROGRAMS, about, command
from orrery.workers.launch import LINUX
from orrery.workers.walls import own_folders

FORK_WITHIN = 10.0
"""Seconds in which a fork server must have forked."""


class StillImporting(Exception):
    """A fork server imports what the program needs: ask again in a moment."""


@dataclass(frozen=True)
class Streams:
    """Our ends of the pipes to a program, where there are pipes."""

    stdin: IO[bytes] | None = None
    stdout: IO[bytes] | None = None
    stderr: IO[bytes] | None = None


class WarmStarts:
    """The fork servers of one process. They end with it, or when this is closed or collected.

    Parameters
    ----------
    folder : where it is kept what programs import.
    programs : modules that are started so; a fork server imports what all of them need.
    most : so many fork servers at once; the one that was used longest ago makes place.
    wait : whether to wait for a fork server, which imports what the program would else import itself; otherwise
        :class:`StillImporting` is raised meanwhile.
    own : folders of the packages that are imported before a program begins; by default those of orrery.
    """

    def __init__(
        self,
        folder: Path,
        programs: Sequence[str],
        *,
        most: int = 2,
        wait: bool = True,
        own: Sequence[Path] | None = None,
    ) -> None:
        self._own = [str(path) for path in own or own_folders()]
        self._folder, self._programs, self._most, self._wait = folder, tuple(programs), most, wait
        self._servers: dict[str, _Server] = {}
        self._ending: list[_Server] = []
        self._unfit: set[str] = set()
        self._expected: dict[Path, Path] = {}
        self._lock = threading.Lock()
        self._finish = weakref.finalize(self, _finish, self._servers, self._ending)

    def start(self, config: dict[str, Any], pipes: Mapping[str, Any]) -> tuple[socket.socket, Streams] | None:
        """Fork a guarded program; None if it must be executed instead.

        Parameters
        ----------
        config : what the guardian is told; the program begins when the caller sends it to the returned socket.
        pipes : ``stdin``, ``stdout`` and ``stderr`` as of :class:`subprocess.Popen`.

        Raises
        ------
        StillImporting
            If it should be asked again, as there is no waiting.
        """
        if not LINUX or config["own"] or (program := self._program(config)) is None:
            return None
        python, module = program
        place = self.place(python)
        with self._lock:
            self._take_over()
            self._ending[:] = [server for server in self._ending if not server.over()]
            if not any((place / f"{each}.json").exists() for each in self._programs):
                place.mkdir(parents=True, exist_ok=True)
                config["env"][VARIABLE] = str(place / f"{module}.json")
                return None
            server = self._ready(python, place, _seen_at_import(config["env"]))
            return None if server is None else server.fork(config, pipes)

    def expect(self, noted: Path, place: Path) -> None:
        """Be told where a program within walls will note what it imports; it may live for long after that."""
        with self._lock:
            self._expected[noted] = place

    def _take_over(self) -> None:
        for noted, place in list(self._expected.items()):
            if noted.exists():
                keep(noted, place)
            if noted.exists() or not noted.parent.exists():
                del self._expected[noted]

    def place(self, python: str) -> Path:
        """Return the folder where it is kept what programs of an interpreter import."""
        return self._folder / blake2b(python.encode(), digest_size=16).hexdigest()

    def close(self) -> None:
        """End the fork servers; programs that they forked go on."""
        self._finish()

    @property
    def pids(self) -> list[int]:
        """Process ids of the fork servers."""
        return [server.process.pid for server in self._servers.values()]

    def _program(self, config: dict[str, Any]) -> tuple[str, str] | None:
        """Return the interpreter and the module of a program that can be forked."""
        match config["argv"]:
            case [python, "-m", module, *_] if module in self._programs and os.path.isabs(python):
                late = config["env"].keys() - _seen_at_import(config["env"]).keys()
                return None if any(name.startswith(("PYTHON", "LD_")) for name in late) else (python, module)
        return None

    def _ready(self, python: str, place: Path, env: dict[str, str]) -> _Server | None:
        """Return the fork server for an interpreter and variables, started if there is none; None if it cannot be."""
        key = json.dumps([python, env], sort_keys=True)
        server = self._servers.pop(key, None)
        if server is not None and server.ready and server.over():
            server.kill()  # it was idle for long, or somebody killed it
            server = None
        if key in self._unfit:
            return None
        if server is None:
            while len(self._servers) >= self._most:
                self._retire(self._servers.pop(next(iter(self._servers))))
            try:
                if not (told := about(python, self._own)):
                    return None
                server = _Server(told, place, self._programs, env)
            except OSError:
                return None  # the interpreter is not there: who executes it will say so
        self._servers[key] = server  # as the last, which is the one that was used most recently
        if server.await_ready(IMPORT_WITHIN if self._wait else 0):
            return server
        if server.again and not server.gone:
            return None  # it begins anew, which would take longer than executing this one
        if not server.gone and not self._wait and server.age() < IMPORT_WITHIN:
            raise StillImporting
        self._unfit.add(key)  # there is no use in trying that again
        self._servers.pop(key).kill()
        return None

    def _retire(self, server: _Server) -> None:
        server.leave()
        self._ending.append(server)


class _Server:
    """One fork server, as its owner sees it."""

    def __init__(self, told: str, place: Path, programs: Sequence[str], env: dict[str, str]) -> None:
        self._link, theirs = socket.socketpair()
        self.ready = self.gone = self.again = False
        self._heard = b""
        self._began = time.monotonic()
        with theirs:
            try:
                self.process = subprocess.Popen(
                    command(theirs.fileno(), place, 0, told),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    cwd="/",
                    env=env | ALONE | {PROGRAMS: ",".join(programs)},
                )
            except OSError:
                self._link.close()
                raise

    def over(self) -> bool:
        """Say whether it has ended."""
        return self.process.poll() is not None

    def await_ready(self, seconds: float) -> bool:
        """Wait until it can fork, or begins anew."""
        if not self.ready and "ready" in (said := self._says(seconds)):
            self.ready, self.again = said["ready"], not said["ready"]
        return self.ready

    def age(self) -> float:
        """Return for how many seconds it has been there."""
        return time.monotonic() - self._began

    def fork(self, config: dict[str, Any], pipes: Mapping[str, Any]) -> tuple[socket.socket, Streams] | None:
        """Have a program forked, which begins when the configuration is sent to the returned socket."""
        control, theirs = socket.socketpair()
        with theirs, _opened(pipes) as (numbers, streams):
            try:
                line = json.dumps(config).encode() + b"\n"
                self._link.settimeout(FORK_WITHIN)
                sent = socket.send_fds(self._link, [line], [theirs.fileno(), *numbers])
                self._link.sendall(line[sent:])
            except OSError:
                pass  # it was killed, and says nothing either
        if self._says(FORK_WITHIN).get("forked"):
            return control, streams
        for ours in (control, *vars(streams).values()):  # should it have forked all the same, nobody wants that one
            if ours is not None:
                ours.close()
        self.kill()
        return None

    def _says(self, seconds: float) -> dict[str, Any]:
        """Return its next message; nothing if there is none in time, or it has ended."""
        self._link.settimeout(seconds)
        with contextlib.suppress(OSError):
            while b"\n" not in self._heard:
                block = self._link.recv(4096)
                if not block:
                    self.gone = True
                    return {}
                self._heard += block
            line, _, self._heard = self._heard.partition(b"\n")
            said: dict[str, Any] = json.loads(line)
            return said
        return {}

    def leave(self) -> None:
        """Let it end, which it does when the last program that it forked has."""
        self._link.close()

    def kill(self) -> None:
        """End it at once; guardians live without it."""
        self._link.close()
        self.process.kill()
        self.process.wait()


def _finish(servers: dict[str, _Server], ending: list[_Server]) -> None:
    for server in (*servers.values(), *ending):
        server.kill()
    servers.clear()
    ending.clear()


def _seen_at_import(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a fork server gets: what any program inherits but those that it sets itself."""
    kept = (name for name in env if (name in PASSED_ON or name.startswith("LC_")) and name not in LATE)
    return {name: env[name] for name in kept}


@contextlib.contextmanager
def _opened(pipes: Mapping[str, Any]) -> Iterator[tuple[list[int], Streams]]:
    """Open what a program reads and writes; its ends are closed again, ours are returned."""
    theirs: list[int] = []
    ours: dict[str, IO[bytes]] = {}
    with contextlib.ExitStack() as closing:
        for name in ("stdin", "stdout", "stderr"):
            asked = pipes[name]
            if asked == subprocess.PIPE:
                read, write = os.pipe()
                end, own = (read, write) if name == "stdin" else (write, read)
                closing.callback(os.close, end)
                ours[name] = os.fdopen(own, "wb" if name == "stdin" else "rb")
            elif asked == subprocess.DEVNULL:
                end = os.open(os.devnull, os.O_RDWR)
                closing.callback(os.close, end)
            else:
                end = theirs[1] if asked == subprocess.STDOUT else asked if isinstance(asked, int) else asked.fileno()
            theirs.append(end)
        yield theirs, Streams(**ours)
