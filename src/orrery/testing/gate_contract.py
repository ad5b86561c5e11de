"""What every gate must hold; a new one is tested by standing in :data:`orrery.gates.judge.GATES`.

:class:`Candidate` makes the evidence of a simulated candidate: sound, or with one of :data:`FLAWS`, or with too few
rows to tell. :func:`walk_gate` shows a gate all of it. For evidence of your own call :func:`check_gate` with one piece
for each outcome.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

import msgspec
import numpy as np
import polars as pl

from orrery import spec as specs
from orrery.gates.judge import gates_of
from orrery.gates.verdict import Evidence, Verdict

Gate = Callable[[Evidence], Verdict | None]

BROKEN = "broken"
"""One answer is no number: no other gate is asked then."""
FLAWS = ("worse", "group", "hidden", "slow", "skewed", "beside", "target")
"""All rows are served worse, or those of one harbour, or those of small boats in strong wind;
single rows take long; logged requests are answered otherwise than their rows; features depend on the rows beside; or
are made from the target."""
ROWS, FEW = 4000, 30
LUCK = 0.05
"""How often a gate may refuse a sound candidate."""


class Candidate:
    """A candidate beside its champion: as good as that, by and large, but for its flaw.

    Parameters
    ----------
    seed : of all chance in it.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.spec = specs.from_dict(
            {
                "model": {"name": "tides", "task": "binary", "target": "y", "segments": ["harbour"]},
                "data": {"tides": "tides"},
                "rollout": {"primary": "brier"},
                "gates": {
                    "brier": {"versus": "champion", "margin": 0.12},
                    "auc": {"min": 0.6},
                    "segments": {"min_rows": 60, "margin": 0.06, "search": True},
                    "latency": {"p99_ms": 20.0},
                },
            }
        )

    def evidence(self, flaw: str = "", rows: int = ROWS) -> Evidence:
        """Return what the gates are shown of it."""
        random = self.random
        harbour = random.choice(["north", "south", "west", "east", "isle"], rows)
        boat, wind = random.choice(["small", "sail", "large", "ferry"], rows), random.normal(8, 3, rows)
        truth = 1 / (1 + np.exp(-1.5 * random.normal(size=rows)))
        label = (random.random(rows) < truth).astype(float)
        said, champion = (np.clip(truth + random.normal(0, 0.05, rows), 0.01, 0.99) for _ in range(2))
        spoiled = {
            "worse": np.ones(rows, dtype=bool),
            "group": harbour == "south",
            "hidden": (boat == "small") & (wind > 10.0),
        }.get(flaw)
        if spoiled is not None:
            said = np.where(spoiled, 1 - truth, said)
        if flaw == BROKEN:
            said[rows // 2] = math.nan
        enough = min(rows, 180)
        logged = said[:500, None].copy()
        nothing: list[str] = []
        replayed = logged + (0.2 if flaw == "skewed" else 0.0), logged, nothing
        return Evidence(
            spec=self.spec,
            rows=pl.DataFrame({"harbour": harbour, "boat": boat, "wind": wind, "y": label}),
            labels=label,
            outputs=said[:, None],
            champion=champion[:, None],
            latencies=np.full((1, enough), 0.05 if flaw == "slow" else 0.004),
            replayed=replayed,
            row_wise=0.3 if flaw == "beside" else 0.0,
            uses_target=("height",) if flaw == "target" else (),
        )


def walk_gate(gate: Gate, *, always_tells: bool = False, sound: int = 20) -> frozenset[str]:
    """Check one gate on simulated candidates, and return the flaws that it refuses; takes about a second.

    It lets sound candidates pass, refuses one flaw at least, is of one mind when it is asked again, and of
    :data:`FEW` rows it says *insufficient*, of sound and flawed ones alike.

    Parameters
    ----------
    gate : takes the evidence and returns its verdict.
    always_tells : whether it needs no number of rows: one is enough to tell, or it is about none.
    sound : candidates without a flaw that it is shown.

    Raises
    ------
    AssertionError
        If it breaks an obligation; the message says which.
    """
    wrong = sum(_outcome(gate, Candidate(seed).evidence()) == "refused" for seed in range(sound))
    allowed = sound * LUCK + 3 * math.sqrt(sound * LUCK * (1 - LUCK))
    assert wrong <= allowed, f"it refuses {wrong} of {sound} sound candidates"
    refused = frozenset(
        flaw
        for flaw in FLAWS
        if all(_outcome(gate, Candidate(100 + seed).evidence(flaw)) == "refused" for seed in range(2))
    )
    assert refused, f"it refuses none of the flaws {', '.join(FLAWS)}: a gate that never refuses is none"
    for flaw in () if always_tells else ("", *FLAWS):
        said = _outcome(gate, Candidate(200).evidence(flaw, FEW))
        assert said == "insufficient", f"of {FEW} rows it says {said!r}, and cannot know ({flaw or 'no flaw'})"
    return refused


def _outcome(gate: Gate, evidence: Evidence) -> str:
    verdict = gate(evidence)
    if verdict is None:
        return "nothing to judge"
    check_verdict(verdict)
    assert gate(evidence) == verdict, "the same evidence, another verdict"
    return verdict.verdict


def simulated_gates() -> dict[str, Gate]:
    """Return the gates that a simulated candidate passes through, by name."""
    return gates_of(Candidate(0).spec)


def check_gate(
    gate: Gate, *, passing: Evidence, refusing: Evidence, insufficient: Evidence | None, absent: Evidence | None = None
) -> None:
    """Check one gate.

    Parameters
    ----------
    gate : takes the evidence and returns its verdict.
    passing, refusing : what it must pass, and what it must refuse: a gate that never refuses is none.
    insufficient : what does not suffice to tell; None for a gate that can always tell.
    absent : where it has nothing to judge at all, and must return None.

    Raises
    ------
    AssertionError
        If a verdict is another one, is not a sentence with a number, cannot be stored, or changes when asked again.
    """
    for evidence, outcome in ((passing, "passed"), (refusing, "refused"), (insufficient, "insufficient")):
        if evidence is None:
            continue
        said = _outcome(gate, evidence)
        assert said == outcome, f"{outcome} was expected, not {said}"
    if absent is not None:
        assert gate(absent) is None, "there is nothing to judge"


def check_verdict(verdict: Verdict) -> None:
    """Check that a verdict says why in a sentence, with numbers that JSON can carry.

    Raises
    ------
    AssertionError
        If it does not.
    """
    assert verdict.why[:1].strip() and verdict.why.endswith("."), f"no sentence: {verdict.why!r}"
    assert re.search(r"\d", verdict.why) or verdict.verdict == "refused", f"no number: {verdict.why!r}"
    assert verdict.numbers, f"no numbers beside: {verdict.why!r}"
    json.dumps(msgspec.to_builtins(verdict), allow_nan=False)
