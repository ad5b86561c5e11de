"""``orrery doctor``: looks at what orrery needs, and says for each what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orrery.cli import show
from orrery.cli.command import FAILED, Here, command
from orrery.errors import OrreryError

if TYPE_CHECKING:
    from orrery.app import Orrery
    from orrery.settings import Settings

_LITTLE = 1 << 30
_GIT = (2, 28)
_SOON = 14
"""Days before its end in which a certificate should have been renewed."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name, ok : what, and whether it is as it should be.
    found : what there is, in words.
    todo : what to do about it; empty where it is fine.
    """

    name: str
    ok: bool
    found: str
    todo: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(doctor)


def doctor(here: Here) -> None:
    """Check this machine and this home.

    Says for each thing whether it is as it should be, and what to do if it is not.
    """
    checks = []
    for check in examine(here):
        checks.append(check)
        if here.as_json:
            show.as_json(asdict(check))
        else:
            print(f"{'ok ' if check.ok else 'NOT'}  {check.name:<12} {check.found}")
            if check.todo:
                print(f"     {'':<12} {check.todo}")
    if not all(check.ok for check in checks):
        raise typer.Exit(FAILED)


def examine(here: Here) -> Iterator[Check]:
    """Look at one thing after the other."""
    settings = here.settings
    yield _python()
    yield _git()
    yield _uv()
    yield _folder(settings.home)
    yield _disk(settings.home)
    yield _walls(settings)
    yield from _ports(settings)
    if settings.tls_certificate:
        yield _certificate(settings)
    if settings.oidc.issuer:
        yield _provider(settings)
    if settings.database.startswith("sqlite:///") and not Path(settings.database.removeprefix("sqlite:///")).exists():
        yield Check("database", True, "none yet; `orrery up` makes it")
        return
    yield from _record(here)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), found)


def _git() -> Check:
    place = shutil.which("git")
    if place is None:
        return Check("git", False, "not installed", "Install git: pushes need it.")
    text = subprocess.run([place, "--version"], capture_output=True, text=True).stdout.strip()
    digits = text.removeprefix("git version ").split(".")[:2]
    known = tuple(int(part) for part in digits if part.isdigit())
    if known < _GIT:
        return Check("git", False, text, "Install git 2.28 or newer.")
    has_http = subprocess.run([place, "http-backend"], capture_output=True, env={"PATH": os.environ.get("PATH", "")})
    if b"not a git command" in has_http.stderr:
        return Check("git", False, f"{text}, without http-backend", "Install the whole of git.")
    return Check("git", True, text)


def _uv() -> Check:
    beside = Path(sys.executable).with_name("uv")
    place = str(beside) if beside.exists() else shutil.which("uv")
    if place is None:
        return Check("uv", False, "not found", "Install orrery again: uv comes with it.")
    return Check("uv", True, subprocess.run([place, "--version"], capture_output=True, text=True).stdout.strip())


def _folder(home: Path) -> Check:
    there = next(path for path in (home, *home.parents) if path.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return Check("home", True, f"{home}" + ("" if there == home else " (not there yet)"))
    return Check("home", False, f"{home} cannot be written to", "Give another folder with --home, or its permissions.")


def _disk(home: Path) -> Check:
    there = next(path for path in (home, *home.parents) if path.exists())
    left = shutil.disk_usage(there).free
    todo = "" if left > _LITTLE else "Free some space: predictions are refused when the disk is full."
    return Check("disk", left > _LITTLE, f"{show.size(left)} free", todo)


def _certificate(settings: Settings) -> Check:
    from cryptography import x509

    from orrery.access.tls import Certificate

    try:
        found = x509.load_pem_x509_certificate(Certificate(settings, settings.serving_clients).files()[1])
    except (OrreryError, OSError, ValueError) as error:
        return Check("certificate", False, str(error), "Nobody beyond loopback gets in until it can be read.")
    left = (found.not_valid_after_utc - datetime.now(UTC)).days
    until = f"{settings.tls_certificate}, until {found.not_valid_after_utc:%Y-%m-%d}"
    return Check("certificate", left >= _SOON, until, "" if left >= _SOON else f"{left} days are left: renew it.")


def _provider(settings: Settings) -> Check:
    from orrery.access.oidc import Provider

    try:
        keys = Provider(settings.oidc, settings.public_url).keys()
    except OrreryError as error:
        return Check("sign-on", False, error.what, error.todo or "People sign in with passwords meanwhile.")
    return Check("sign-on", keys > 0, f"{settings.oidc.issuer}; keys: {keys}")


def _walls(settings: Settings) -> Check:
    from orrery.workers.walls import NAMESPACES, Walling

    standing = Walling(settings.walls, settings.home).standing
    ok = standing == NAMESPACES or settings.walls != "required"
    todo = "" if standing == NAMESPACES else "docs/containment.md says what the kernel must allow."
    return Check("walls", ok, f"the code of projects runs within {standing}", todo)


def _ports(settings: Settings) -> Iterator[Check]:
    from orrery.cli.up import free
    from orrery.workers.supervisor import processes, running

    pid = running(settings.home)
    for what, port in (("port", settings.port), ("serving", settings.serving_port)):
        if pid is not None:
            yield Check(what, not free(port), f"{port}, of the orrery that runs here as process {pid}")
        elif free(port):
            yield Check(what, True, f"{port} is free")
        else:
            yield Check(what, True, f"{port} is in use by something else; `orrery up` takes the next free one")
    if pid is None:
        yield Check("processes", True, "none: `orrery up` starts them")
        return
    for one in processes(settings.home):
        todo = f"Its log: {one.log}" if one.state != "running" or one.restarts else ""
        again = f", started again {one.restarts} times (it {one.why})" if one.restarts else ""
        yield Check(one.name, one.state == "running", f"{one.state}, {show.size(one.rss)}{again}", todo)


def _record(here: Here) -> Iterator[Check]:
    from orrery.errors import OrreryError

    began = time.perf_counter()
    try:
        orrery = here.orrery()
        seq, _ = orrery.timeline.head()
    except OrreryError as error:
        yield Check("database", False, error.what, error.todo)
        return
    except Exception as error:  # whatever the database says, the other checks are to be seen
        todo = "Restore a backup, or give another --home."
        yield Check("database", False, f"cannot be used: {str(error).splitlines()[0]}", todo)
        return
    yield Check("database", True, f"{seq} events, opened in {time.perf_counter() - began:.2f} s")
    yield _chain(orrery)
    yield _clock(orrery)


def _chain(orrery: Orrery) -> Check:
    from orrery.timeline.verify import verify

    verdict = verify(event.to_json() for event in orrery.timeline.read())
    if verdict.holds:
        return Check("chain", True, f"the chain of {verdict.events} events holds")
    return Check("chain", False, verdict.faults[0], "`orrery verify` names every fault; compare with a backup.")


def _clock(orrery: Orrery) -> Check:
    now = orrery.clock.now()
    newest = next(iter(orrery.timeline.read(newest_first=True, limit=1)), None)
    which = "the replay stands at" if orrery.settings.replay else "it is"
    if newest is not None and newest.recorded_at > now:
        behind = (newest.recorded_at - now).total_seconds()
        found = f"{which} {show.minute(now)} UTC, {behind:.0f} s before the newest event"
        return Check("clock", behind < 60, found, "Set the clock of the machine; the order of the record is kept.")
    return Check("clock", True, f"{which} {show.minute(now)} UTC")
