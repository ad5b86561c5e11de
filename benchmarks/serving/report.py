"""Tables of what was measured, and which goals are met; nothing here is written by hand."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prepare import KINDS, Prepared
from servers import PEERS, SERVERS

RESULTS = Path(__file__).parents[1] / "results"
LOADS = ("1 row, 1", "1 row, 8", "1 row, 32", "1 row, 128", "100 rows, 8")
OURS, WITH_SHADOW, WITH_TWO = (server.name for server in SERVERS[:3])
MLFLOW, LIMIT = "mlflow models serve", "limit: granian, a constant"
ONNX_PEERS = tuple(server.name for server in SERVERS if server.serves == "onnx")
PEER_NAMES = tuple(server.name for server in SERVERS if server.venv and server.serves in ("model", "onnx"))


class Medians:
    """Medians over rounds of what was measured."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records
        self.rounds = {
            (one["model"], one["server"]): sum(
                other["what"] == "whole" and (other["model"], other["server"]) == (one["model"], one["server"])
                for other in records
            )
            for one in records
        }

    def __call__(self, model: str, server: str, what: str, field: str, load: str = "") -> float | None:
        """The median of a field, or nothing where it was not measured."""
        found = [
            one[field]
            for one in self.records
            if (one["model"], one["server"], one["what"]) == (model, server, what) and one.get("load", "") == load
        ]
        return statistics.median(found) if found else None

    def rate(self, model: str, server: str, load: str) -> float | None:
        """Requests per second of one core."""
        return self(model, server, "closed", "per_core", load)

    def why_not(self, model: str, server: str) -> str:
        """Why a server was not measured; empty where it was, or has nothing to do with this model."""
        for one in self.records:
            if (one["model"], one["server"], one["what"]) == (model, server, "not run"):
                return str(one["why"])
        return ""


def write(records: list[dict[str, Any]], run: dict[str, Any], prepared: Prepared, keep: bool) -> str:
    """Return the report; with `keep` it goes to ``benchmarks/results/serving.md`` and ``.json``, too."""
    medians = Medians(records)
    whole = [one["round"] for one in records if one["what"] == "whole"]
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores ({_processor()})"
    facts = (
        f"`{run['command']}`; {max(whole, default=-1) + 1} rounds in turn, {run['seconds']:g} s a load; {machine}, "
        f"load {os.getloadavg()[1]:.1f} at the end; closed loop by {'wrk' if run['wrk'] else 'generator.py'}; orrery "
        f"{_commit()}; scikit-learn {version('scikit-learn')}; peers: {', '.join(_pinned())}."
    )
    explained = str(__import__("__main__").__doc__ or "").split("\n\n", 1)[-1].strip()
    parts = ["# Inference servers", facts, explained, "## Goals of the project\n\n" + goals(medians)]
    models = [kind for kind in KINDS if any(one["model"] == kind for one in records)]
    for kind in models:
        parts.append(f"## {_TITLES[kind]}\n\n" + table(medians, kind))
    parts.append("## Open loop: " + _TITLES[KINDS[0]] + "\n\n" + open_loop(medians))
    parts.append("## orrery against each peer, requests per second of one core\n\n" + ratios(medians, models))
    if prepared.notes:
        parts.append("\n".join(f"- {name}: {why}" for name, why in prepared.notes.items()))
    text = "\n\n".join(parts) + "\n"
    if keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "serving.md").write_text(text)
        (RESULTS / "serving.json").write_text(
            json.dumps({"run": run, "facts": facts, "notes": prepared.notes, "records": records}, indent=0) + "\n"
        )
    return text


_TITLES = {
    "boosting": "Gradient boosting: scaler, one-hot, 100 trees; 12 mixed features",
    "logistic": "Logistic regression, same features",
    "xgboost": "XGBoost, 100 trees, same features",
    "network": "A small neural network (scikit-learn's MLPClassifier, 64 and 32), same features",
    "callable": "A model that does not convert: the boosting, and a rule in plain Python",
}


def table(medians: Medians, kind: str) -> str:
    """Requests per second of one core, p99, memory and start of each server."""
    lines = [
        f"| req/s of one core | {' | '.join(LOADS)} | p99 at 32, ms | memory, MB | start, CPU s | rounds |",
        "|---|" + "---|" * (len(LOADS) + 4),
    ]
    for server in SERVERS:
        name = server.name
        why, rounds = medians.why_not(kind, name), medians.rounds.get((kind, name), 0)
        if why and not rounds:
            lines.append(f"| {name} | not run: {why.replace('|', '/')} |" + " |" * (len(LOADS) + 3))
        elif rounds:
            cells = [_rate(medians, kind, name, load) for load in LOADS]
            cells.append(_number(medians(kind, name, "closed", "p99", "1 row, 32"), 1))
            cells.append(_number(medians(kind, name, "memory", "memory"), 0))
            cells.append(_number(medians(kind, name, "start", "cpu"), 1))
            shown = f"**{name}**" if name == OURS else name
            lines.append(f"| {shown} | {' | '.join(cells)} | {rounds} |")
    return "\n".join(lines)


def _rate(medians: Medians, kind: str, server: str, load: str) -> str:
    """Requests per second; with the requests that failed, if any did."""
    errors = medians(kind, server, "closed", "errors", load) or 0
    return _number(medians.rate(kind, server, load), 0) + (f" ({errors:.0f} failed)" if errors else "")


def open_loop(medians: Medians) -> str:
    """Latency at fixed arrival rates; a server is asked no more once it does not keep up."""
    kind = KINDS[0]
    loads = list(dict.fromkeys(one["load"] for one in medians.records if one["what"] == "open"))
    lines = ["| p50 / p99 / p99.9, ms | " + " | ".join(loads) + " |", "|---|" + "---|" * len(loads)]
    for server in SERVERS:
        cells = []
        for load in loads:
            found = [medians(kind, server.name, "open", name, load) for name in ("p50", "p99", "p999")]
            kept_up = medians(kind, server.name, "open", "sustained", load)
            cells.append(" / ".join(_number(one, 1) for one in found) if found[0] is not None else "-")
            if kept_up is not None and not kept_up:
                cells[-1] += " (falls behind)"
        if any(cell != "-" for cell in cells):
            lines.append(f"| {server.name} | {' | '.join(cells)} |")
    late = [one["late"] for one in medians.records if one["what"] == "open" and one["sustained"]]
    if late:
        lines += ["", f"The generator itself sent late by {statistics.median(late):.2f} ms (median of its p99s)."]
    return "\n".join(lines)


def ratios(medians: Medians, models: list[str]) -> str:
    """How many times as many requests orrery answers in a second of one core."""
    lines = [f"| orrery : peer | {' | '.join(LOADS)} |", "|---|" + "---|" * len(LOADS)]
    for kind in models:
        for name in (*PEER_NAMES, LIMIT):
            pairs = [(medians.rate(kind, OURS, load), medians.rate(kind, name, load)) for load in LOADS]
            if any(ours and theirs for ours, theirs in pairs):
                cells = [_number(ours / theirs if ours and theirs else None, 2) for ours, theirs in pairs]
                lines.append(f"| {kind}: {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def goals(medians: Medians) -> str:
    """Each goal, what was measured, and whether it is met: of orrery alone, and with a challenger riding along."""
    lines = ["| goal | orrery | | with a challenger in shadow | |", "|---|---|---|---|---|"]
    for words, limit, more_is_better, measured in _GOALS:
        cells = []
        for server in (OURS, WITH_SHADOW):
            found = measured(medians, server)
            if found is None:
                cells += ["not measured", "**open**"]
                continue
            value, of = found if isinstance(found, tuple) else (found, "")
            met = value >= limit if more_is_better else value <= limit
            cells += [f"{value:.3g}{of}", "met" if met else "**missed**"]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    shadow = [("closed loop at 32 clients, answers per second", _answers), ("open loop at 500/s, p50", _median_wait)]
    for words, cost in shadow:
        found = cost(medians)
        met = "**open**" if found is None else "met" if found <= 5 else "**missed**"
        shown = "not measured" if found is None else f"{found:.1f} %"
        lines.append(f"| a second challenger costs the caller <= 5 %: {words} | | | {shown} | {met} |")
    return "\n".join(lines)


def _against(peers: tuple[str, ...], load: str, kind: str = KINDS[0]) -> Any:
    """Ratio to the best of some peers under a load, and which that is."""

    def measured(medians: Medians, server: str) -> tuple[float, str] | None:
        ours = medians.rate(kind, server, load)
        theirs = {name: rate for name in peers if (rate := medians.rate(kind, name, load))}
        if not ours or not theirs:
            return None
        best = max(theirs, key=lambda name: theirs[name])
        return ours / theirs[best], "" if len(peers) == 1 else f" ({best})"

    return measured


def _worst_of_callable(medians: Medians, server: str) -> tuple[float, str] | None:
    if server != OURS:  # the shadow is measured with the first model only
        return None
    found = {}
    for load in LOADS:
        ratio = _against(PEER_NAMES, load, "callable")(medians, server)
        if ratio is None:
            return None
        found[load] = ratio
    worst = min(found, key=lambda load: found[load][0])
    return found[worst][0], f" ({worst}; {found[worst][1].strip(' ()')})"


def _answers(medians: Medians) -> float | None:
    rates = []
    for server in (WITH_SHADOW, WITH_TWO):
        count, took = (medians(KINDS[0], server, "closed", name, "1 row, 32") for name in ("requests", "seconds"))
        if not count or not took:
            return None
        rates.append(count / took)
    return 100 * (1 - rates[1] / rates[0])


def _median_wait(medians: Medians) -> float | None:
    one, two = (medians(KINDS[0], server, "open", "p50", "500/s") for server in (WITH_SHADOW, WITH_TWO))
    return 100 * (two / one - 1) if one and two else None


def _field(what: str, name: str, load: str = "") -> Any:
    return lambda medians, server: medians(KINDS[0], server, what, name, load)


_GOALS: tuple[tuple[str, float, bool, Any], ...] = (
    (">= 100 x mlflow, 32 clients", 100, True, _against((MLFLOW,), "1 row, 32")),
    (">= 0.6 of the constant-answer limit, 32 clients", 0.6, True, _against((LIMIT,), "1 row, 32")),
    ("p99 <= 5 ms, 32 clients", 5, False, _field("closed", "p99", "1 row, 32")),
    (">= 15 x mlflow, batches of 100 rows", 15, True, _against((MLFLOW,), "100 rows, 8")),
    ("memory <= 150 MB, all processes", 150, False, _field("memory", "memory")),
    (">= 3 x the best peer on the same ONNX, 8 clients", 3, True, _against(ONNX_PEERS, "1 row, 8")),
    (">= 5 x the best peer on the same ONNX, 32 clients", 5, True, _against(ONNX_PEERS, "1 row, 32")),
    (">= 2 x the best peer on the same ONNX, 100 rows", 2, True, _against(ONNX_PEERS, "100 rows, 8")),
    ("first answer <= 2 CPU s after the start", 2, False, _field("start", "cpu")),
    ("not convertible: >= 1.0 x the best peer, worst load", 1, True, _worst_of_callable),
)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PEERS, capture_output=True, text=True)
    return done.stdout.strip() or version("orrery-ml")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _pinned() -> list[str]:
    names = [line for path in sorted(PEERS.glob("*.txt")) for line in path.read_text().split() if "==" in line]
    return sorted(set(names))
