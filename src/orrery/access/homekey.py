"""The key of the home folder: by it the processes of one orrery know each other. Who can read it owns the files.

The inference servers show it itself; a training gets a pass made with it, which names its project and runs out.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

FILE = "key"
TRAINING = "orrery/training"
_PASS = re.compile(r"orrery_r([a-z0-9][a-z0-9-]{0,62})\.(\d{1,12})\.([0-9a-f]{64})")


def home_key(home: Path) -> str:
    """Return the key of a home folder, made if it is not there; only its owner can read the file."""
    return home_keys(home)[0]


def home_keys(home: Path) -> list[str]:
    """Return the key of a home folder, and those that it replaces at this moment, which still open what they sealed."""
    path = home / FILE
    with contextlib.suppress(FileExistsError):
        fresh = path.with_suffix(f".{secrets.token_hex(4)}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        try:
            os.link(fresh, path)  # whole, or not at all, and never over another's
        finally:
            fresh.unlink()
    return path.read_text().split()


def write_keys(home: Path, keys: Sequence[str]) -> None:
    """Write the key file whole or not at all: the key first, then those that it replaces."""
    fresh = (home / FILE).with_suffix(f".{secrets.token_hex(4)}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(keys))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, home / FILE)


def training_pass(key: str, project: str, seconds: float) -> str:
    """Return what a training shows to the tracking server, for so many seconds."""
    until = int(time.time() + seconds)
    return f"orrery_r{project}.{until}.{_signed(key, project, until)}"


def trains(key: str, shown: str) -> str:
    """Return the project whose training shows this; empty if it is no pass of ours, or has run out."""
    match = _PASS.fullmatch(shown)
    if match is None or not hmac.compare_digest(_signed(key, match[1], int(match[2])), match[3]):
        return ""
    return match[1] if time.time() < int(match[2]) else ""


def _signed(key: str, project: str, until: int) -> str:
    return hmac.new(key.encode(), f"training/{project}/{until}".encode(), hashlib.sha256).hexdigest()
