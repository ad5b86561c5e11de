"""What the operator of the inference server is told: lines on the error output."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Write one line; where even that cannot be written, as on a full disk, serving goes on without it."""
    with contextlib.suppress(OSError):
        print(f"orrery: {text}", file=sys.stderr, flush=True)
