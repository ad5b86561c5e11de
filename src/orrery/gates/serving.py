"""What only serving shows: latency, answers from the log that differ from the dataset's, features not row-wise."""

from __future__ import annotations

import math

import numpy as np

from orrery.gates.verdict import Evidence, Verdict
from orrery.stats.checks import FloatArray

SKEW = 1e-6  # two answers to the same row may differ by rounding, not by more
LEAST = 50
ROUNDS = 10  # in which each row is asked once, while they are above the limit
DISTURBED = 2.0  # times as much as by itself a row may take beside other work


def latency(evidence: Evidence) -> Verdict | None:
    """Judge what 99 of 100 single rows cost the candidate in the form that will answer; None where none was asked."""
    rounds = evidence.latencies
    if rounds is None:
        return None
    if rounds.shape[1] < LEAST:
        return Verdict(
            verdict="insufficient",
            why=f"Only {rounds.shape[1]} single rows were timed; {LEAST} are asked for.",
            numbers={"rows": rounds.shape[1]},
        )
    p50, p99 = cost(rounds)
    limit = evidence.spec.gates.latency.p99_ms
    again = f", asked {len(rounds)} times" if len(rounds) > 1 else ""
    words = f"One row takes {_ms(p50)} of processor time, 99 of 100 at most {_ms(p99)}{again}"
    how = _FORMS[evidence.timed]
    if evidence.left:
        how += f" ({evidence.left} of {rounds.shape[1]} rows left to its own Python)"
    why = f"{words}{how}; the limit is {limit:g} ms."
    numbers = {"p50_ms": p50, "p99_ms": p99, "limit_ms": limit, "rows": rounds.shape[1], "rounds": len(rounds)}
    numbers |= {"timed": evidence.timed, "left": evidence.left}
    return Verdict(verdict="refused" if p99 > limit else "passed", why=why, numbers=numbers)


_FORMS = {
    "python": "",
    "features in python": ", with its features in Python and the model compiled",
    "compiled": ", compiled",
}


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value >= 1 else f"{value:.2g} ms"


def cost(rounds: FloatArray) -> tuple[float, float]:
    """Return the 50th and 99th percentile of what single rows cost, in ms.

    It is processor time: the machine's other work is not the model's fault. That work still takes some of it (a core
    that two threads share, a cold cache), and only ever adds, up to about as much again. So a row costs what it took in
    the quickest round; a model that is now and then slow by itself shows where it is more than twice as slow.

    Parameters
    ----------
    rounds : seconds, shape (rounds, rows).
    """
    rows, all_answers = 1000 * rounds.min(axis=0), 1000 * rounds
    p50, p99 = np.quantile(rows, (0.5, 0.99))
    return float(p50), float(max(p99, np.quantile(all_answers, 0.99) / DISTURBED if len(rounds) > 1 else 0.0))


def clear(rounds: FloatArray, limit_ms: float) -> bool:
    """Say whether rounds of single rows suffice: within the limit, twice above it for most rows, or :data:`ROUNDS`."""
    p50, p99 = cost(rounds)
    return p99 <= limit_ms or p50 > DISTURBED * limit_ms or len(rounds) >= ROUNDS


def skew(evidence: Evidence) -> Verdict | None:
    """Judge whether logged requests are answered as their rows in the dataset are; None where there is no log yet.

    A feature that is made of something known only afterwards looks good on the dataset and is missing in a request:
    this is where it shows.
    """
    if evidence.replayed is None:
        return None
    logged, known, absent = evidence.replayed
    if len(logged) < LEAST:
        return Verdict(
            verdict="insufficient",
            why=f"Only {len(logged)} logged requests have their row in the dataset; {LEAST} are asked for.",
            numbers={"requests": len(logged)},
        )
    difference = np.abs(logged - known).max(axis=1)
    share = float((difference > SKEW).mean())
    numbers = {"requests": len(logged), "share": share, "mean_difference": float(difference.mean()), "absent": absent}
    if share > 0.01:
        cause = f" Requests never bring {', '.join(absent)}, which the features use." if absent else ""
        return Verdict(
            verdict="refused",
            why=f"{share:.0%} of {len(logged)} logged requests are answered otherwise than from the dataset, by "
            f"{difference.mean():.3g} on average.{cause}",
            numbers=numbers,
        )
    return Verdict(
        verdict="passed", why=f"{len(logged)} logged requests are answered as from the dataset.", numbers=numbers
    )


def row_wise(evidence: Evidence) -> Verdict | None:
    """Judge whether the features of a row depend on that row alone, as they must when rows come one by one."""
    if evidence.uses_target:
        return Verdict(
            verdict="refused",
            why=f"The features {', '.join(evidence.uses_target[:5])} are made from the target, which no request has.",
            numbers={"features": list(evidence.uses_target)},
        )
    if evidence.row_wise is None:
        return None
    if not evidence.row_wise <= SKEW:
        finite = math.isfinite(evidence.row_wise)  # else there are others, or another number of them
        how = f"change by up to {evidence.row_wise:.3g}" if finite else "are others"
        return Verdict(
            verdict="refused",
            why=f"Features of a row {how} with the rows beside it: serving would "
            "differ from training. Keep what is learned from many rows in a step named in [pipeline] keep.",
            numbers={"difference": evidence.row_wise if finite else None},
        )
    return Verdict(
        verdict="passed",
        why=f"Features of a row depend on that row alone: they differ by {evidence.row_wise:.3g} at most.",
        numbers={"difference": evidence.row_wise},
    )
