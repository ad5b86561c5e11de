"""All gates over one candidate."""

from __future__ import annotations

from orrery.gates import quality, search, segments, serving
from orrery.gates.verdict import Evidence, Verdict


def judge(evidence: Evidence) -> dict[str, Verdict]:
    """Return the verdict of every gate by name; the candidate passes when none refused.

    At least one metric must be able to tell: where all are insufficient, the first refuses.
    """
    spec = evidence.spec
    verdicts: dict[str, Verdict] = {}
    if broken := quality.rows_not_finite(evidence.outputs):
        numbers = {"broken": broken, "rows": len(evidence.outputs)}
        why = f"The outputs of {broken} of {len(evidence.outputs)} rows are no finite numbers."
        return {"output": Verdict(verdict="refused", why=why, numbers=numbers)}
    for name, limit in spec.gates.metrics.items():
        verdicts[name] = quality.judge(name, limit, evidence)
    for name, found in (
        ("segments", segments.judge(evidence)),
        ("search", search.judge(evidence)),
        ("latency", serving.latency(evidence)),
        ("skew", serving.skew(evidence)),
        ("row_wise", serving.row_wise(evidence)),
    ):
        if found is not None:
            verdicts[name] = found
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
