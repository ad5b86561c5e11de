"""CPU time per trivial step of a pipeline, with lineage recorded, against apache-hamilton with its cache, and Prefect.

``python benchmarks/pipeline.py`` prints a table; with ``--write`` it is kept in ``benchmarks/results/pipeline.md``.
Needs ``pip install orrery-ml[bench]``.

Each step adds one to what the step before gave. The cost of a step is the slope between a short and a long chain,
loading and keying the source of its function included; what a run costs once is not. The libraries take turns.

Prefect, an orchestrator, has an environment of its own (``peers/prefect.txt``) and is measured as whole processes, its
own server for one run included: the slope between two chains again. It persists and caches results by their inputs
and the task's source.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

SHORT, LONG = 50, 250
PEERS = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results" / "pipeline.md"

Run = Callable[[Path, int, Path], int]


def write_project(folder: Path, steps: int) -> Path:
    """A chain of `steps` functions; typed, because Hamilton wants types."""
    text = "def s0(start: int) -> int:\n    return start + 1\n\n\n"
    text += "\n\n".join(f"def s{i}(s{i - 1}: int) -> int:\n    return s{i - 1} + 1\n" for i in range(1, steps))
    project = folder / f"chain{steps}"
    project.mkdir()
    (project / "pipeline.py").write_text(text)
    return project


def orrery(project: Path, steps: int, cache: Path) -> int:
    from orrery.pipeline.pipeline import Cache, Input, Pipeline, load_module

    pipeline = Pipeline(load_module(project), ["start"])
    target = f"s{steps - 1}"
    result = pipeline.run(target, {"start": Input(0, "v1")}, {}, Cache(cache), "environment")
    assert len(result.reports) == steps and all(report.inputs for report in result.reports)
    return int(result.values[target])


def hamilton(project: Path, steps: int, cache: Path) -> int:
    from hamilton import driver

    spec = importlib.util.spec_from_file_location(project.name, project / "pipeline.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[project.name] = module
    spec.loader.exec_module(module)
    built = driver.Builder().with_modules(module).with_cache(path=str(cache)).build()
    target = f"s{steps - 1}"
    return int(built.execute([target], inputs={"start": 0})[target])


def cpu_ms(run: Run, project: Path, steps: int, cache: Path) -> float:
    started = time.process_time()
    assert run(project, steps, cache) == steps
    return (time.process_time() - started) * 1000


def measure(rounds: int) -> dict[tuple[str, str], list[float]]:
    """Library and kind of run to CPU milliseconds per further step, one for each round."""
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        projects = {steps: write_project(folder, steps) for steps in (SHORT, LONG)}
        for number in range(rounds + 1):
            for name, run in {"orrery": orrery, "apache-hamilton": hamilton}.items():
                for kind in ("miss", "hit"):
                    spent = {
                        steps: cpu_ms(run, project, steps, folder / f"cache-{name}-{steps}")
                        for steps, project in projects.items()
                    }
                    if number:  # the first round imports and warms up
                        slope = (spent[LONG] - spent[SHORT]) / (LONG - SHORT)
                        found.setdefault((name, kind), []).append(slope)
                for steps in projects:
                    shutil.rmtree(folder / f"cache-{name}-{steps}")
    return found


def process_cpu_seconds(words: list[str], times: int = 1, **environment: str) -> float:
    """CPU seconds of a whole Python process and its children, its start included; the median of several."""
    spent = []
    for _ in range(times):
        before = os.times()
        subprocess.run(words, check=True, capture_output=True, env={**os.environ, **environment})
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(spent)


def code_cpu_seconds(code: str, times: int) -> float:
    return process_cpu_seconds([sys.executable, "-c", code], times)


def prefect(rounds: int) -> dict[str, list[float]]:
    """Kind of run to CPU milliseconds per further step, one for each round; ``start`` to seconds of a chain of one."""
    found: dict[str, list[float]] = {"miss": [], "hit": [], "start": [], "process": []}
    with tempfile.TemporaryDirectory() as temporary:
        venv = Path(temporary) / "venv"
        print("installing prefect", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(PEERS / "prefect.txt")], check=True)
        words = [str(venv / "bin" / "python"), str(PEERS / "prefect_chain.py")]
        quiet = {
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        }
        for number in range(rounds + 1):
            spent = {}
            for steps in (1, SHORT, LONG):
                home = Path(temporary) / f"home-{number}-{steps}"
                for kind in ("miss", "hit"):
                    spent[steps, kind] = process_cpu_seconds([*words, str(steps)], PREFECT_HOME=str(home), **quiet)
            if number:  # the first round compiles what it imports
                for kind in ("miss", "hit"):
                    found[kind].append((spent[LONG, kind] - spent[SHORT, kind]) / (LONG - SHORT) * 1000)
                found["start"].append(spent[1, "hit"])
                found["process"].append(spent[SHORT, "hit"])
    return found


def whole_processes(times: int) -> dict[str, tuple[float, float]]:
    """Library to CPU seconds of its import, and of a process that finds all 50 steps in the cache."""
    here = str(Path(__file__).parent)
    imports = {"orrery": "import orrery.pipeline.pipeline", "apache-hamilton": "from hamilton import driver"}
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        project = write_project(folder, SHORT)
        empty = code_cpu_seconds("", times)
        for name, code in imports.items():
            function = "orrery" if name == "orrery" else "hamilton"
            whole = (
                f"import sys; sys.path.insert(0, {here!r}); from pathlib import Path; import pipeline as b; "
                f"b.{function}(Path({str(project)!r}), {SHORT}, Path({str(folder / name)!r}))"
            )
            subprocess.run([sys.executable, "-c", whole], check=True)
            found[name] = code_cpu_seconds(code, times) - empty, code_cpu_seconds(whole, times)
    return found


def table(rounds: int) -> str:
    steps, processes = measure(rounds), whole_processes(max(3, rounds // 3))
    lines = [
        "| | step, miss (CPU ms) | step, hit (CPU ms) | import (CPU s) | process, 50 cached steps (CPU s) |",
        "|---|---|---|---|---|",
    ]
    for name in processes:
        cells = [
            f"{statistics.median(steps[name, kind]):.3f} [{min(steps[name, kind]):.3f}, {max(steps[name, kind]):.3f}]"
            for kind in ("miss", "hit")
        ]
        cells += [f"{seconds:.2f}" for seconds in processes[name]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    peer = prefect(max(1, rounds // 3))
    cells = [
        f"{statistics.median(peer[kind]):.1f} [{min(peer[kind]):.1f}, {max(peer[kind]):.1f}]"
        for kind in ("miss", "hit")
    ]
    cells += [f"{statistics.median(peer['start']):.1f} (one step)", f"{statistics.median(peer['process']):.1f}"]
    lines.append(f"| prefect, its server included | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time per trivial pipeline step.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULTS.name}")
    chosen = parser.parse_args()
    # Hamilton imports its plugin for every library it finds installed, 12 CPU seconds where MLflow is; without, 2.
    os.environ.setdefault("HAMILTON_AUTOLOAD_EXTENSIONS", "0")
    text = table(chosen.rounds)
    print(text)
    if chosen.write:
        command = shlex.join(["python", "benchmarks/pipeline.py", *sys.argv[1:]])
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(
            "# Pipelines: cost of a trivial step\n\n"
            f"`{command}`; medians of {chosen.rounds} rounds in turn, [least, most]; Python "
            f"{platform.python_version()}, {os.cpu_count()} cores shared with other work (trust the ratios), "
            f"sf-hamilton {version('sf-hamilton')}.\n\n"
            f"A step's cost is the slope between chains of {SHORT} and {LONG} steps, loading and keying the source of "
            "its function included; both record lineage. Goals, on quiet cores: at most 1 ms on a miss, 0.2 ms on a "
            f"hit. Hamilton runs without its plugins (HAMILTON_AUTOLOAD_EXTENSIONS=0). Prefect is measured as whole "
            "processes: the slope holds its own client and the server that it starts for one run.\n\n"
            f"{text}\n"
        )


if __name__ == "__main__":
    main()
