"""An ``orrery up`` on a home of the demo, started as anybody would start it; and a second one from where it stands."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx

from orrery.demo.world import end_with_parent
from orrery.errors import OrreryError
from orrery.settings import SETTINGS, load

DATABASE = "orrery.db"
ITS_OWN = (f"{DATABASE}*", "address.json", "lock", "logs", "processes.json", "run", "serving", "up.log")
"""What a running orrery has in its home for itself."""
SHARED = ("environments",)
"""What two orreries of one demo may both use: a version's interpreter is found by its path."""


class Platform:
    """A running orrery on a replay's clock.

    Parameters
    ----------
    home : its folder, with the file ``clock``.
    """

    def __init__(self, home: Path) -> None:
        port, serving_port = _free_ports(2)
        self.settings = load(home, port=port, serving_port=serving_port, replay=True)
        environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        words = [sys.executable, "-m", "orrery.cli.main", "up", "--home", str(home)]
        words += ["--port", str(port), "--serving-port", str(serving_port)]
        with (home / "up.log").open("wb") as log:
            self._process = subprocess.Popen(
                words,
                stdout=log,
                stderr=log,
                # Two of them and the blind calendars share the machine: threads that wait for each other spin.
                env={**environment, "ORRERY_CLOCK": "replay", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def await_up(self) -> None:
        """Wait until it answers."""
        log = self.settings.home / "up.log"
        asked = (f"{self.settings.control_url}/api/status", f"{self.settings.serving_url}/v2/health/live")
        for _ in range(600):
            if self._process.poll() is not None:
                raise OrreryError(f"orrery up ended at once: {log.read_text()[-2000:]}")
            try:
                if all(httpx.get(address, timeout=30).is_success for address in asked):
                    return
            except httpx.HTTPError:  # not up yet: the next try tells
                pass
            time.sleep(0.1)
        raise OrreryError("orrery up does not answer.", todo=f"See {log}.")

    def wait(self) -> None:
        """Wait until it ends."""
        self._process.wait()

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()


def copy_home(home: Path, target: Path, *without: str) -> None:
    """Copy the home of an orrery that has come to rest, so that a second one goes on from where it stands.

    Parameters
    ----------
    home, target : folders; the target may lie in the home.
    without : names of further folders and files that are left out.
    """
    skipped = shutil.ignore_patterns(*ITS_OWN, *SHARED, *without, target.name)
    shutil.copytree(home, target, ignore=skipped, symlinks=True)
    for name in SHARED:
        (target / name).symlink_to(home / name)
    with closing(sqlite3.connect(home / DATABASE)) as there, closing(sqlite3.connect(target / DATABASE)) as here:
        there.backup(here)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
