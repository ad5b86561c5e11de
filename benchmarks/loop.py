"""What one whole loop costs, from ``git push`` to a champion in staging, over the user's own tests and training.

``python benchmarks/loop.py`` prints two tables; ``--write`` keeps them in ``benchmarks/results/loop.md``. Run from the
repository: the project is the small one of the acceptance tests.

CPU is that of ``orrery up`` and all below it, processes that ended included, from the start of the push until the event
``promoted`` in staging stands on the timeline. The user's own part is taken off: pytest as the platform calls it, run
here once more by hand for each time it ran, and what the version's pipeline took. The git client is not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "loop.md"
sys.path.insert(0, str(ROOT / "tests"))

from acceptance.support import Running, tides, write_project  # noqa: E402
from orrery.settings import load  # noqa: E402


@dataclass
class Loop:
    """One loop: wall and CPU seconds at each event, CPU by process, and the user's own part of it."""

    marks: list[tuple[str, float, float]] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    tests: float = 0.0
    steps: float = 0.0


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and all below it, those included that ended and were waited for."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            total += sum(one.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def roles(process: psutil.Process) -> dict[str, float]:
    """CPU seconds of each process that ``orrery up`` keeps alive, with all below it."""
    found = {"supervisor": sum(process.cpu_times()[:2])}
    for guardian in process.children():
        for child in guardian.children():
            words = child.cmdline()
            name = words[words.index("-m") + 1] if "-m" in words else "other"
            name = {"orrery.web": "control plane, git", "orrery.serving": "inference", "orrery.actions": "worker"}[name]
            found[name] = found.get(name, 0.0) + cpu(child)
        found["guardians"] = found.get("guardians", 0.0) + sum(guardian.cpu_times()[:2])
    return found


def once(running: Running, checkout: Path, message: str) -> Loop:
    """Push, and follow the timeline until the version is champion of staging."""
    assert running.process is not None
    up, timeline, loop = psutil.Process(running.process.pid), running.orrery.timeline, Loop()
    seq = timeline.head()[0]
    before, began, base = roles(up), time.perf_counter(), cpu(up)
    pushing = threading.Thread(target=running.push, args=(checkout, message))
    pushing.start()
    while not any(mark[0] == "promoted in staging" for mark in loop.marks):
        assert time.perf_counter() - began < 180, f"waited too long: {loop.marks}"
        for event in timeline.read(after=seq):
            seq = event.seq
            label = event.kind + (f" in {event.environment}" if event.environment else "")
            loop.marks.append((label, time.perf_counter() - began, cpu(up) - base))
            assert event.kind != "failed", event.why
            if event.kind == "trained":
                loop.steps = sum(float(step["seconds"]) for step in event.data["steps"])
        time.sleep(0.02)
    after = roles(up)
    loop.parts = {name: value - before.get(name, 0.0) for name, value in after.items()}
    pushing.join()
    ran = sum(label.startswith("tested") for label, _, _ in loop.marks)
    loop.tests = ran * pytest_cpu(running, checkout)
    return loop


def pytest_cpu(running: Running, checkout: Path) -> float:
    """CPU seconds of the project's tests in its own environment."""
    python = next(running.settings.home.glob("environments/*/bin/python"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(python), "-m", "pytest", "tests", "-q", "-p", "no:cacheprovider", f"--rootdir={checkout}"]
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    env = clean | {"PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*command, "-c", os.devnull], cwd=checkout, env=env, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure() -> list[tuple[str, Loop]]:
    """Two loops: the first one of a new home, and the next commit of the same project."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = load(folder / "home", port=_free(), serving_port=_free())
        settings.home.mkdir(exist_ok=True)
        running = Running(settings)
        running.start()
        try:
            running.orrery.add_data("tides", tides(), why="The first tides.", actor="nora")
            time.sleep(5)  # what starting leaves behind is not the loop's
            checkout = write_project(folder / "checkout")
            found = [("first push", once(running, checkout, "The first model"))]
            time.sleep(3)
            text = (checkout / "pipeline.py").read_text()
            (checkout / "pipeline.py").write_text(text.replace("1e-3", "2e-3"))
            found.append(("second push", once(running, checkout, "Another ridge")))
        finally:
            running.stop()
            running.orrery.timeline.engine.dispose()
    return found


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def table(found: list[tuple[str, Loop]]) -> str:
    lines = [
        "| | whole, CPU s | tests | training steps | **platform, CPU s** | wall s | of which |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, loop in found:
        whole, wall = loop.marks[-1][2], loop.marks[-1][1]
        parts = ", ".join(f"{part} {value:.1f}" for part, value in loop.parts.items())
        own = whole - loop.tests - loop.steps
        lines.append(
            f"| {name} | {whole:.2f} | {loop.tests:.2f} | {loop.steps:.2f} | **{own:.2f}** | {wall:.1f} | {parts} |"
        )
    lines += ["", "| until | " + " | ".join(f"{name}: CPU s | wall s" for name, _ in found) + " |"]
    lines.append("|---|" + "---|---|" * len(found))
    labels = [label for label, _, _ in found[0][1].marks]
    for label in dict.fromkeys(labels):
        cells = []
        for _, loop in found:
            place = next((number for number, mark in enumerate(loop.marks) if mark[0] == label), None)
            if place is None:
                cells += ["-", "-"]
                continue
            previous = loop.marks[place - 1] if place else ("", 0.0, 0.0)
            cells += [f"{loop.marks[place][at] - previous[at]:.2f}" for at in (2, 1)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of a whole loop over the user's own tests and training.")
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {RESULTS.name}")
    chosen = parser.parse_args()
    text = table(measure())
    print(text)
    if chosen.write:
        command = shlex.join(["python", "benchmarks/loop.py", *sys.argv[1:]])
        bytecode = "set" if os.environ.get("PYTHONDONTWRITEBYTECODE") else "not set"
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(
            f"# A whole loop: platform over tests and training\n\n`{command}`; one run; Python "
            f"{platform.python_version()}, {os.cpu_count()} cores shared with other work, load "
            f"{os.getloadavg()[1]:.1f} while it ran; PYTHONDONTWRITEBYTECODE {bytecode}. "
            "Goal: at most 5 CPU s over the user's own part.\n\n"
            f"{str(__doc__).split(chr(10) * 2, 2)[2].strip()}\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
