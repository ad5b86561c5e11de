"""What a program has imported, written down for who starts such programs: a fork server imports it before it forks."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

VARIABLE = "ORRERY_STEP_LOADED"
"""Variable with the file to write; not set where nobody wants to know."""


def note() -> None:
    """Write the names of the installed modules that this process has imported, in the order in which it began to."""
    if not (place := os.environ.get(VARIABLE)):
        return
    names = [
        name
        for name, module in list(sys.modules.items())
        if (spec := getattr(module, "__spec__", None)) is not None and spec.name == name and _installed(spec.origin)
    ]
    draft = Path(f"{place}.{os.getpid()}")
    with contextlib.suppress(OSError):  # it makes later starts faster, and is nothing to fail for
        draft.write_text(json.dumps(names))
        draft.replace(place)


def keep(noted: Path, place: Path) -> None:
    """Take over what a program within walls has noted: names, whatever else it may have written there."""
    with contextlib.suppress(OSError, ValueError):
        with open(os.open(noted, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            names = json.loads(file.read(1 << 20))
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            draft = place.with_name(f"{place.name}.{os.getpid()}")
            draft.write_text(json.dumps(names))
            draft.replace(place)


def _installed(origin: object) -> bool:
    """Whether a module comes from a package that was installed, so neither from a project nor from Python itself."""
    return isinstance(origin, str) and not {"site-packages", "dist-packages"}.isdisjoint(Path(origin).parts)
