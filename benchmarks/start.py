"""What starting costs: ``orrery up`` until its first page answers, beside ``mlflow server``; and ``--help`` of both.

``python benchmarks/start.py`` prints two tables; with ``--write`` they are kept in ``benchmarks/results/start.md``.

Each server starts in an empty folder on SQLite, once, one after the other. It is asked for its first page (``/`` of
orrery, ``/`` of MLflow) every 50 ms; when that answers, CPU seconds, processes and memory of the whole tree are read.
Memory is the proportional set (pages that are shared count once). orrery's tree holds its inference server and a
worker, and answers for MLflow's API, whose own part is loaded when it is first asked for.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "results" / "start.md"
BIN = Path(sys.executable).parent
Cost = tuple[float, float, int, float]


def tree(process: psutil.Process) -> tuple[float, int, float]:
    """CPU seconds, processes and megabytes of a process and all below it."""
    spent, count, memory = 0.0, 0, 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            spent += sum(one.cpu_times()[:4])
            full = one.memory_full_info()
            memory += getattr(full, "pss", full.rss)
            count += 1
        except psutil.NoSuchProcess:
            continue
    return spent, count, memory / 1e6


def start(words: list[str], folder: Path, pages: list[str], settle: float) -> dict[str, Cost]:
    """Return wall and CPU seconds, processes and megabytes: at the first page, at all of them, and a while later."""
    found: dict[str, Cost] = {}
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    process = psutil.Process(server.pid)
    try:
        for label, page in zip(("first page", "all answers"), (pages[0], pages[-1]), strict=True):
            while not answers(page):
                assert server.poll() is None and time.perf_counter() - began < 240, (folder / "log").read_text()
                time.sleep(0.05)
            found[label] = (time.perf_counter() - began, *tree(process))
        time.sleep(settle)
        found[f"{settle:g} s later"] = (time.perf_counter() - began, *tree(process))
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    return found


def answers(page: str) -> bool:
    try:
        with urllib.request.urlopen(page, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def help_seconds(program: str, times: int) -> float:
    """CPU seconds of ``PROGRAM --help``, the median of several."""
    spent = []
    for _ in range(times):
        before = os.times()
        subprocess.run([str(BIN / program), "--help"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(spent)


def tables(settle: float) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        costs = {}
        for name in ("orrery up", "mlflow server"):
            folder = Path(temporary, name.split()[0])
            folder.mkdir()
            port, other = free(), free()
            page = f"http://127.0.0.1:{port}/"
            words = [
                str(BIN / "orrery"),
                "up",
                "--home",
                str(folder),
                "--port",
                str(port),
                "--serving-port",
                str(other),
            ]
            pages = [page, f"http://127.0.0.1:{other}/v2/health/live"]
            if name == "mlflow server":
                words = [str(BIN / "mlflow"), "server", "--port", str(port)]
                words += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
                pages = [page, page]
            costs[name] = start(words, folder, pages, settle)
    helps = {name: help_seconds(name, 5) for name in ("orrery", "mlflow")}
    lines = ["| mlflow : orrery | CPU s | memory | processes |", "|---|---|---|---|"]
    for label, (_, spent, count, memory) in costs["orrery up"].items():
        _, other_spent, other_count, other_memory = costs["mlflow server"][label]
        lines.append(
            f"| {label} | {other_spent / spent:.1f} | {other_memory / memory:.1f} | {other_count / count:.1f} |"
        )
    lines += [f"| `--help` | {helps['mlflow'] / helps['orrery']:.1f} | | |", ""]
    lines += ["| | wall s | CPU s | processes | memory, MB |", "|---|---|---|---|---|"]
    for name, found in costs.items():
        for label, (wall, spent, count, memory) in found.items():
            lines.append(f"| {name}, {label} | {wall:.1f} | {spent:.2f} | {count} | {memory:.0f} |")
    lines += [f"| {name} --help | | {spent:.2f} | | |" for name, spent in helps.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU, processes and memory of a start.")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds until the last look")
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {RESULTS.name}")
    chosen = parser.parse_args()
    text = tables(chosen.settle)
    print(text)
    if chosen.write:
        command = shlex.join(["python", "benchmarks/start.py", *sys.argv[1:]])
        bytecode = "set" if os.environ.get("PYTHONDONTWRITEBYTECODE") else "not set"
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(
            f"# Starting\n\n`{command}`; one run; Python {platform.python_version()}, {os.cpu_count()} cores "
            f"shared with other work, load {os.getloadavg()[1]:.1f} while it ran; mlflow {version('mlflow')}; "
            f"PYTHONDONTWRITEBYTECODE {bytecode}.\nGoals: first page within 4 CPU s, 4 processes and 400 MB; `--help` "
            f"within 0.25 CPU s.\n\n{str(__doc__).split(chr(10) * 2, 2)[2].strip()}\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
