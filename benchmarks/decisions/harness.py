"""What the parts share: peers in venvs of their own, their answers kept by what they were made from, and tables."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE.parent / "peers"
sys.path.insert(0, str(PEERS))
SILENT = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1", "WHYLOGS_NO_ANALYTICS": "True"}
"""Peers that would tell their makers about this machine do not."""

from venvs import NotRun, install  # noqa: E402


@dataclass(frozen=True)
class Outcome:
    """What a part found."""

    title: str
    notes: str
    goals: list[tuple[str, bool, str]]
    """Goal, whether it is met, and where not."""
    parts: list[str]
    peers: list[Path] = field(default_factory=list)
    """Requirements of the peers."""


def peer(venv: str, script: str, *words: object) -> None:
    """Run a script of ``benchmarks/peers`` in a venv of its own; `NotRun` where that fails."""
    bin = install(PEERS / f"{venv}.txt")
    done = subprocess.run(
        [str(bin / "python"), str(PEERS / script), *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **SILENT},
    )
    if done.returncode:
        raise NotRun(f"{script} ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def kept(cache: Path, venv: str, script: str, words: list[object], ending: str, given: Path | None = None) -> Path:
    """What a peer's script wrote: as kept from before, where script, venv, words and given file are the same.

    The script is given a file as its last word but those of `words` (its first, where it needs no file).
    """
    parts = [(PEERS / script).read_bytes(), (PEERS / f"{venv}.txt").read_bytes(), repr(words).encode()]
    if given is not None:
        parts.append(given.read_bytes())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = cache / "decisions"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{script.removesuffix('.py')}-{key}{ending}"
    if not out.exists():
        half = folder / f"half{ending}"
        arranged = [half, *words] if given is None else [given, half, *words[1:]]
        peer(venv, script, *arranged)
        half.rename(out)
    return out


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
