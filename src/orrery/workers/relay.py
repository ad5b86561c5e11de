"""A door in the walls of a program: what it connects to on its loopback is connected to something outside."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

TRAININGS = "run/trainings.sock"
"""Socket in the home folder at which the control plane hears trainings within walls, and nobody else."""
AT_ONCE = 32
"""Connections that are relayed at the same time; more wait."""


class Relay:
    """Relays connections until it is closed.

    Parameters
    ----------
    door : a socket that listens, in whatever network it was made.
    leads : returns where a connection leads; OSError where it leads nowhere.
    """

    def __init__(self, door: socket.socket, leads: Callable[[socket.socket], socket.socket]) -> None:
        self._door, self._leads = door, leads
        self._outside: set[socket.socket] = set()
        self._room = threading.BoundedSemaphore(AT_ONCE)
        threading.Thread(target=self._listen, name="relay", daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more, and hear nobody outside."""
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)  # wakes who waits for somebody to come
        self._door.close()
        for outer in list(self._outside):
            with contextlib.suppress(OSError):
                outer.shutdown(socket.SHUT_RD)  # what the program has said still goes out

    def _listen(self) -> None:
        while True:
            try:
                inner, _ = self._door.accept()
            except OSError:
                return
            self._room.acquire()
            threading.Thread(target=self._join, args=[inner], name="relayed", daemon=True).start()

    def _join(self, inner: socket.socket) -> None:
        with contextlib.ExitStack() as ends:
            ends.callback(self._room.release)
            ends.enter_context(inner)
            try:
                outer = ends.enter_context(self._leads(inner))
            except OSError:
                return  # nobody is there, which the program sees as it would outside
            self._outside.add(outer)
            ends.callback(self._outside.discard, outer)
            back = threading.Thread(target=_pump, args=[outer, inner], name="relayed-back", daemon=True)
            back.start()
            _pump(inner, outer)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def connected(path: str) -> socket.socket:
    """Return a connection to a Unix socket, however long its path is.

    Raises
    ------
    OSError
        If nobody listens there.
    """
    made = socket.socket(socket.AF_UNIX)
    folder = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY)
    try:
        made.connect(f"/proc/self/fd/{folder}/{Path(path).name}")
    except OSError:
        made.close()
        raise
    finally:
        os.close(folder)
    return made


def listening(path: Path) -> socket.socket:
    """Return what listens on a Unix socket that this user alone can reach; one that is left there is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        path.unlink(missing_ok=True)
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
        path.chmod(0o600)
        made.listen(64)
    finally:
        os.close(folder)
    return made
