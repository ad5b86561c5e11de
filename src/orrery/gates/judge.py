"""All gates over one candidate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from orrery.gates import quality, search, segments, serving
from orrery.gates.verdict import Evidence, Verdict
from orrery.spec import Spec

Gate = Callable[[Evidence], Verdict | None]
"""Takes the evidence, and returns its verdict; None where it has nothing to judge."""

GATES: dict[str, Gate] = {
    "segments": segments.judge,
    "search": search.judge,
    "latency": serving.latency,
    "skew": serving.skew,
    "row_wise": serving.row_wise,
}
"""Gates that judge whatever the metrics say; `orrery.testing.gate_contract` walks them."""


def gates_of(spec: Spec) -> dict[str, Gate]:
    """Return the gates that a project's candidates pass through, by name: its metrics come first."""
    metrics: dict[str, Gate] = {name: partial(quality.judge, name, limit) for name, limit in spec.gates.metrics.items()}
    return metrics | GATES


def judge(evidence: Evidence) -> dict[str, Verdict]:
    """Return the verdict of every gate by name; the candidate passes when none refused.

    At least one metric must be able to tell: where all are insufficient, the first refuses.
    """
    if (unfit := quality.outputs(evidence)) is not None:
        return {"output": unfit}
    spec = evidence.spec
    found = {name: gate(evidence) for name, gate in gates_of(spec).items()}
    verdicts = {name: verdict for name, verdict in found.items() if verdict is not None}
    first = next(iter(spec.gates.metrics))
    if all(verdicts[name].verdict == "insufficient" for name in spec.gates.metrics):
        verdicts[first] = Verdict(verdict="refused", why=verdicts[first].why, numbers=verdicts[first].numbers)
    return verdicts


def passed(verdicts: dict[str, Verdict]) -> bool:
    """Say whether no gate refused."""
    return all(verdict.verdict != "refused" for verdict in verdicts.values())


def in_words(verdicts: dict[str, Verdict]) -> str:
    """Return the outcome in a sentence or two."""
    refused = [f"{name}: {verdict.why}" for name, verdict in verdicts.items() if verdict.verdict == "refused"]
    if refused:
        return "Refused. " + " ".join(refused)
    unclear = [name for name, verdict in verdicts.items() if verdict.verdict == "insufficient"]
    first = next(iter(verdicts.values()))
    tail = f" Insufficient data: {', '.join(unclear)}." if unclear else ""
    return f"Passed {sum(v.verdict == 'passed' for v in verdicts.values())} of {len(verdicts)}; {first.why}{tail}"
