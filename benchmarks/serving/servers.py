"""The servers that are measured: how each is installed, started and asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

import venvs
from venvs import NotRun

PEERS = Path(__file__).with_name("peers")
START_WITHIN = 150
AGREE = 1e-4
"""Largest difference of an answer from what the model itself says; ONNX counts in 32 bits."""


@dataclass(frozen=True)
class Server:
    """One way to serve.

    Parameters
    ----------
    name : in the tables.
    argv : bin folder of its venv, folder of the model and port to the command that serves.
    venv : its requirements file, ``peers/VENV.txt``; empty for orrery's own environment.
    serves : the ``model``, its ``onnx`` file, or nothing at all (``constant``).
    save : bin folder and folder of the model to a command that is run once for a model, before it is served.
    path, form : where is posted what.
    shadows : challengers that ride along (orrery only).
    """

    name: str
    argv: Callable[[Path, Path, int], list[str]]
    venv: str = ""
    serves: str = "model"
    save: Callable[[Path, Path], list[str]] | None = None
    path: str = "/invocations"
    form: str = "mlflow"
    shadows: int = 0


def _python(script: str) -> Callable[[Path, Path, int], list[str]]:
    return lambda bin, model, port: [str(bin / "python"), script, str(port)]


def _uvicorn(app: str) -> Callable[[Path, Path, int], list[str]]:
    return lambda bin, model, port: [str(bin / "uvicorn"), app, "--port", str(port), "--no-access-log"]


def _mlflow(flavour: str) -> dict[str, Any]:
    def serve(bin: Path, model: Path, port: int) -> list[str]:
        words = [str(bin / "mlflow"), "models", "serve", "-m", str(model / f"mlflow-{flavour}"), "-p", str(port)]
        return [*words, "--env-manager", "local"]

    def save(bin: Path, model: Path) -> list[str]:
        shutil.rmtree(model / f"mlflow-{flavour}", ignore_errors=True)
        return [str(bin / "python"), "mlflow_save.py", str(model), str(model / f"mlflow-{flavour}"), flavour]

    return {"argv": serve, "save": save, "venv": "mlflow", "serves": flavour}


def _mlserver(bin: Path, model: Path, port: int) -> list[str]:
    folder = model / "mlserver"
    folder.mkdir(exist_ok=True)
    ports = {"http_port": port, "grpc_port": free(), "metrics_port": free()}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", **ports}))
    named = {"name": "m", "implementation": "mlserver_sklearn.SKLearnModel"}
    (folder / "model-settings.json").write_text(json.dumps({**named, "parameters": {"uri": str(model / "model.pkl")}}))
    return [str(bin / "mlserver"), "start", str(folder)]


def _constant(bin: Path, model: Path, port: int) -> list[str]:
    words = [str(bin / "granian"), "constant:app", "--interface", "rsgi", "--http", "1", "--no-ws", "--no-log"]
    return [*words, "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backlog", "1024"]


def _orrery(bin: Path, model: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "orrery.serving", "--home", str(model / "serving-home")]


_ROUTE = "/models/{kind}/invocations"
SERVERS = (
    Server("orrery", _orrery, path=_ROUTE),
    Server("orrery, 1 challenger in shadow", _orrery, path=_ROUTE, shadows=1),
    Server("orrery, 2 challengers in shadow", _orrery, path=_ROUTE, shadows=2),
    Server("mlflow models serve", **_mlflow("model")),
    Server("mlserver", _mlserver, "mlserver", path="/v2/models/m/infer", form="v2"),
    Server("bentoml", lambda bin, model, port: _bentoml(bin, port), "bentoml"),
    Server("litserve, batching", _python("litserve_app.py"), "litserve"),
    Server("ray serve", _python("ray_app.py"), "ray"),
    Server("fastapi, predict_proba", _uvicorn("fastapi_app:app"), "fastapi"),
    Server("fastapi + onnxruntime", _uvicorn("onnx_app:app"), "fastapi-onnx", "onnx"),
    Server("mlflow, onnx flavour", **_mlflow("onnx")),
    Server("limit: granian, a constant", _constant, "constant", "constant"),
)


def _bentoml(bin: Path, port: int) -> list[str]:
    return [str(bin / "bentoml"), "serve", "bentoml_app:Scorer", "--host", "127.0.0.1", "--port", str(port)]


def free() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def install(server: Server, cache: Path) -> Path:
    """Make the server's venv if it is not there; returns its bin folder, or raises `NotRun` with what pip says."""
    if not server.venv:
        return Path(sys.executable).parent
    # The pickle was made with these; everything else is the peer's choice.
    made_with = "".join(f"{name}=={version(name)}\n" for name in ("scikit-learn", "xgboost"))
    return venvs.install(PEERS / f"{server.venv}.txt", cache, made_with)


def pin(core: int) -> Callable[[], None] | None:
    """What a child does first to stay on one core; nothing where that cannot be."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return None
    mine = sorted(os.sched_getaffinity(0))[core]
    return lambda: os.sched_setaffinity(0, {mine})


class Running:
    """A server that was started, and what it has used since.

    Parameters
    ----------
    server, bin, model, kind : what is served how.
    log : its output.
    slots : for orrery: the assignment, the champion first.
    """

    def __init__(
        self, server: Server, bin: Path, model: Path, log: Path, slots: list[dict[str, Any]], kind: str
    ) -> None:
        self.server, self._log, self._mark = server, log, uuid.uuid4().hex
        self.port = free()
        self.url = f"http://127.0.0.1:{self.port}{server.path.format(kind=kind)}"
        if server.save is not None and not (model / f"mlflow-{server.serves}").exists():
            done = subprocess.run(server.save(bin, model), cwd=PEERS, env=self._env(bin, model), capture_output=True)
            if done.returncode:
                raise NotRun("the model cannot be saved: " + done.stderr.decode(errors="replace").strip()[-200:])
        if not server.venv:
            self._home(model / "serving-home", slots)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                server.argv(bin, model, self.port),
                cwd=PEERS,
                env=self._env(bin, model),
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=pin(0),
            )
        self._known: dict[int, psutil.Process] = {}

    def _env(self, bin: Path, model: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        own = {
            "BENCH_MARK": self._mark,
            "MODEL": str(model),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{bin}:{os.environ['PATH']}",
        }
        quiet = {"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0"}
        quiet |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
        if not self.server.venv:
            own |= {"ORRERY_SERVING_PORT": str(self.port), "ORRERY_PORT": str(free())}
        return kept | own | quiet

    def _home(self, home: Path, slots: list[dict[str, Any]]) -> None:
        """A home as a control plane leaves it: the last assignment on disk. There is no control plane now."""
        shutil.rmtree(home, ignore_errors=True)
        (home / "serving").mkdir(parents=True)
        roles = ["champion", *["shadow"] * self.server.shadows]
        if len(slots) < len(roles):
            raise NotRun(f"{len(slots)} of {len(roles)} versions were trained")
        chosen = [{**slot, "environment": "production", "role": role} for slot, role in zip(slots, roles, strict=False)]
        (home / "serving" / "assignment.json").write_text(json.dumps({"seq": 1, "slots": chosen}))

    def first_answer(self, line: str) -> dict[str, float]:
        """Wait for the first prediction; returns wall and CPU seconds since the start.

        Raises
        ------
        NotRun
            If none comes.
        """
        began = time.perf_counter()
        while True:
            try:
                self.ask(line)
                return {"wall": time.perf_counter() - began, "cpu": self.cpu()}
            except OSError as error:
                if self._process.poll() is not None or time.perf_counter() - began > START_WITHIN:
                    lines = self._log.read_text(errors="replace").strip().splitlines()
                    named = [line for line in lines if "Error: " in line] or lines  # the reason, not the farewell
                    said = getattr(error, "read", lambda: b"")()[-200:].decode(errors="replace")
                    raise NotRun(f"no answer ({error}) {said} {' '.join(named[-1:])}"[:400]) from None
                time.sleep(0.02)

    def ask(self, line: str) -> list[float]:
        """Post one request; the answer's probabilities, whatever the server wraps them in."""
        asked = urllib.request.Request(self.url, line.encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=20) as response:
            said = json.load(response)
        if "outputs" in said:
            return [float(value) for value in said["outputs"][0]["data"][1::2]]
        return [_last(one) for one in said["predictions"]]

    def check(self, line: str, expected: list[float]) -> None:
        """See that the answers are the model's own.

        Raises
        ------
        NotRun
            If they are not: then its speed means nothing.
        """
        said = self.ask(line)
        apart = max((abs(a - b) for a, b in zip(said, expected, strict=False)), default=1.0)
        if len(said) != len(expected) or apart > AGREE:
            raise NotRun(f"its answers are not the model's: {len(said)} rows, {apart:.2g} apart")

    def processes(self) -> list[psutil.Process]:
        """Everything that the server started, also what has left its tree."""
        found = {one.pid: one for one in psutil.process_iter() if self._mine(one)}
        if self._process.poll() is None:
            tree = psutil.Process(self._process.pid)
            found |= {one.pid: one for one in (tree, *tree.children(recursive=True))}
        self._known |= found
        return list(found.values())

    def _mine(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("BENCH_MARK") == self._mark
        except (psutil.Error, OSError):
            return False

    def cpu(self) -> float:
        """CPU seconds of all of it so far, processes that ended and were waited for included."""
        total = 0.0
        for one in self.processes():
            try:
                total += sum(one.cpu_times()[:4])
            except psutil.Error:
                continue
        return total

    def memory(self) -> dict[str, float]:
        """Megabytes of all of it and of its largest process (pages that are shared count once), and their number."""
        each = []
        for one in self.processes():
            try:
                full = one.memory_full_info()
                each.append(getattr(full, "pss", full.rss) / 1e6)
            except psutil.Error:
                continue
        return {"memory": sum(each), "largest": max(each, default=0.0), "processes": float(len(each))}

    def stop(self) -> None:
        """End it and all that it started."""
        mine = self.processes()
        for number, grace in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            for one in mine:
                try:
                    one.send_signal(number)
                except psutil.Error:
                    continue
            psutil.wait_procs(mine, timeout=grace)
            mine = [one for one in self.processes() if one.pid != self._process.pid or self._process.poll() is None]
            if not mine:
                break
        self._process.wait()


def _last(value: Any) -> float:
    while isinstance(value, dict | list):
        value = list(value.values())[-1] if isinstance(value, dict) else value[-1]
    return float(value)
