"""Venvs of the peers: made once from a requirements file, kept in the cache folder, never the project's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orrery-bench"
INSTALL_WITHIN = 1800


class NotRun(Exception):
    """Why a peer is not measured."""


def install(listed: Path, cache: Path = CACHE, made_with: str = "") -> Path:
    """Make the venv of a requirements file if it is not there; returns its bin folder.

    Parameters
    ----------
    listed : the requirements file; its name is the venv's.
    cache : where venvs are kept.
    made_with : further constraints, as lines of pip's.

    Raises
    ------
    NotRun
        If it cannot be installed; with what pip says.
    """
    key = hashlib.sha256((listed.read_text() + made_with + sys.version).encode()).hexdigest()[:12]
    folder = cache / "venvs" / f"{listed.stem}-{key}"
    made = folder / ".made"
    if not made.exists():
        print(f"installing {listed.stem}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        limits = cache / "constraints.txt"
        limits.write_text(made_with)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        words = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        try:
            done = subprocess.run(
                [*words, "-r", str(listed), "-c", str(limits)], capture_output=True, text=True, timeout=INSTALL_WITHIN
            )
        except subprocess.TimeoutExpired:
            raise NotRun(f"it was not installed within {INSTALL_WITHIN} s") from None
        if done.returncode:
            told = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise NotRun("it cannot be installed: " + " ".join(told[-2:])[:200])
        made.touch()
    return folder / "bin"
