"""Inference servers side by side: ``python benchmarks/serving`` (``make bench-serving``).

The same models, the same requests, in turn, in the same run. Each server is started, asked until it answers, checked
(its answers to 100 rows must be the model's own, within 1e-4), warmed up and measured under each load, and stopped, in
every round; medians over rounds are what the tables show. The server has one core, the load generator another.

- *req/s of one core*: answered requests over the CPU seconds of all processes of the server in that time.
- *memory*: of all processes after the loads, proportional set. *Start*: CPU seconds until the first prediction.
- Closed loop: wrk (Debian's package), one thread; without it ``generator.py``. Open loop: ``generator.py`` at fixed
  rates, each request timed from when it was due.
- orrery runs as its users run it: versions that it trained from a push, an assignment on disk as its control plane
  handed it out, ``python -m orrery.serving`` with routing, contract, prediction journal and metrics on.

What is measured is kept at once in the cache folder; the same command goes on where an earlier one ended, and begins
anew when orrery's code, the models or the options have changed, or with ``--fresh``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from prepare import KINDS, Prepared, prepare
from report import write
from servers import SERVERS, NotRun, Running, Server, install, pin
from venvs import CACHE

HERE = Path(__file__).parent
CLIENTS = (1, 8, 32, 128)
BATCH_CLIENTS = 8
RATES = (50, 500, 2000, 5000)
SUSTAINED = 0.97
"""A rate is sustained when so many of the requests were answered while it lasted, all of them well."""


class Results:
    """Records of one run, on disk as they come: one JSON object a line, the first says what run it is."""

    def __init__(self, path: Path, run: dict[str, Any], fresh: bool) -> None:
        self._path, self.records = path, []
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() and not fresh else []
        if lines and lines[0] == run:
            # Why a server was not measured may be mended by now: it is tried again.
            self.records: list[dict[str, Any]] = [line for line in lines[1:] if line["what"] != "not run"]
        else:
            path.write_text(json.dumps(run) + "\n")

    def add(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def has(self, **wanted: Any) -> bool:
        return any(all(record.get(name) == value for name, value in wanted.items()) for record in self.records)


class Bench:
    """One run over servers, models and rounds."""

    def __init__(self, chosen: argparse.Namespace, prepared: Prepared, results: Results, wrk: str) -> None:
        self._chosen, self._prepared, self._results, self._wrk = chosen, prepared, results, wrk

    def run(self) -> None:
        """Measure what is not measured yet, for as long as there is time."""
        until = time.monotonic() + 60 * self._chosen.minutes
        for kind in self._chosen.models:
            for number in range(self._chosen.rounds):
                for server in self._chosen.servers:
                    place = {"model": kind, "server": server.name}
                    if not self._wanted(kind, server) or self._results.has(**place, round=number, what="whole"):
                        continue
                    if self._results.has(**place, what="not run"):
                        continue
                    if time.monotonic() > until:
                        print(f"{kind}, round {number + 1}, {server.name}: no time left; run the same command again")
                        continue
                    print(f"{time.strftime('%H:%M:%S')}  {kind}, round {number + 1}, {server.name}", flush=True)
                    try:
                        self._one(kind, number, server)
                    except NotRun as error:
                        print(f"          not run: {error}", flush=True)
                        self._results.add({**place, "what": "not run", "why": str(error)})

    def _wanted(self, kind: str, server: Server) -> bool:
        """Whether a model has such a server at all: shadows and the limit are measured with the first one only."""
        if kind != KINDS[0] and (server.shadows or server.serves == "constant"):
            return False
        return not (server.serves == "onnx" and kind == "callable")

    def _one(self, kind: str, number: int, server: Server) -> None:
        model = self._prepared.folder / kind
        if server.serves == "onnx" and not (model / "model.onnx").exists():
            raise NotRun(f"no ONNX: {self._prepared.notes.get(f'onnx {kind}', '')}")
        if not server.venv and kind not in self._prepared.slots():
            raise NotRun(self._prepared.notes.get(f"orrery {kind} 1", "it was not trained"))
        bin = install(server, self._chosen.cache)
        running = Running(
            server, bin, model, self._chosen.cache / "server.log", self._prepared.slots().get(kind, []), kind
        )
        try:
            self._measure(kind, number, server, running)
        finally:
            running.stop()

    def _measure(self, kind: str, number: int, server: Server, running: Running) -> None:
        place = {"model": kind, "server": server.name, "round": number}
        single, batch = (self._prepared.bodies(server.form, load) for load in ("single", "batch"))
        found = [{"what": "start", **running.first_answer(single.read_text().splitlines()[0])}]
        if server.serves != "constant":
            running.check(batch.read_text().splitlines()[0], self._prepared.expected(kind))
        seconds = self._chosen.seconds
        self._closed(running, single, 32, max(1.0, seconds / 2))  # warm
        loads = [(f"1 row, {clients}", single, clients) for clients in CLIENTS]
        for load, file, clients in [*loads, (f"100 rows, {BATCH_CLIENTS}", batch, BATCH_CLIENTS)]:
            found.append({"what": "closed", "load": load, **self._spent(running, self._closed, file, clients, seconds)})
        if kind == KINDS[0]:
            for rate in RATES:
                said = {"rate": rate, **self._spent(running, self._open, single, rate, seconds)}
                said["sustained"] = not said["errors"] and said["requests"] / said["seconds"] >= SUSTAINED * rate
                found.append({"what": "open", "load": f"{rate}/s", **said})
                if not said["sustained"]:
                    break
        found.append({"what": "memory", **running.memory()})
        for record in found:
            self._results.add({**place, **record})
        self._results.add({**place, "what": "whole"})

    def _spent(self, running: Running, generate: Any, file: Path, size: int, seconds: float) -> dict[str, Any]:
        """Generate load; what came of it, with the server's CPU seconds meanwhile."""
        before = running.cpu()
        said: dict[str, Any] = generate(running, file, size, seconds)
        said["cpu"] = running.cpu() - before
        said["per_core"] = (said["requests"] - said["errors"]) / max(said["cpu"], 0.01)
        return said

    def _closed(self, running: Running, file: Path, clients: int, seconds: float) -> dict[str, Any]:
        if not self._wrk:
            return self._generator(running, file, seconds, "--clients", str(clients))
        words = [self._wrk, "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}", "--timeout", "10s"]
        return _json([*words, "-s", str(HERE / "post.lua"), running.url, "--", str(file)], seconds)

    def _open(self, running: Running, file: Path, rate: int, seconds: float) -> dict[str, Any]:
        return self._generator(running, file, seconds, "--rate", str(rate))

    def _generator(self, running: Running, file: Path, seconds: float, *how: str) -> dict[str, Any]:
        words = [sys.executable, str(HERE / "generator.py"), running.url, str(file)]
        return _json([*words, "--seconds", str(seconds), *how], seconds)


def _json(words: list[str], seconds: float) -> dict[str, Any]:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 90, preexec_fn=pin(1))
    except subprocess.TimeoutExpired:
        raise NotRun("it did not end its connections under load") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise NotRun(f"the load generator ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def wrk() -> str:
    """Path of wrk, installed by apt where this is root; empty without."""
    if shutil.which("wrk") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], capture_output=True, timeout=300)
    return shutil.which("wrk") or ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Inference servers side by side.")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=90.0, help="after which nothing new is begun")
    parser.add_argument("--only", default="", help="servers, by words in their names, comma-separated")
    parser.add_argument("--models", default=",".join(KINDS), help="comma-separated")
    parser.add_argument("--cache", type=Path, default=CACHE, help="venvs of the peers, models, what was measured")
    parser.add_argument("--fresh", action="store_true", help="measure all anew")
    parser.add_argument("--install", action="store_true", help="only install the peers and train the models")
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results")
    chosen = parser.parse_args()
    words = [word.strip() for word in chosen.only.split(",") if word.strip()]
    chosen.servers = [one for one in SERVERS if not words or any(word in one.name for word in words)]
    chosen.models = [kind for kind in KINDS if kind in chosen.models.split(",")]
    if not chosen.servers or not chosen.models:
        parser.error("no such server or model")
    os.environ["OMP_NUM_THREADS"] = "1"  # what waits in threads takes the core from what works
    chosen.cache.mkdir(parents=True, exist_ok=True)
    prepared = prepare(chosen.cache)
    if chosen.install:
        for server in SERVERS:
            try:
                install(server, chosen.cache)
            except NotRun as error:
                print(f"{server.name}: not run: {error}")
        return 0
    generator = wrk()
    run = {"prepared": prepared.folder.name, "seconds": chosen.seconds, "wrk": bool(generator)}
    results = Results(chosen.cache / "measured.jsonl", run, chosen.fresh)
    try:
        Bench(chosen, prepared, results, generator).run()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here")
    command = "python benchmarks/serving " + " ".join(sys.argv[1:])
    text = write(results.records, run | {"rounds": chosen.rounds, "command": command.strip()}, prepared, chosen.write)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
