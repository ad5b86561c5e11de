"""What every gate must hold: it can pass, refuse and say that it cannot tell, each time with its numbers.

Call :func:`check_gate` from a test with one piece of evidence for each outcome.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import msgspec

from orrery.gates.verdict import Evidence, Verdict

Gate = Callable[[Evidence], Verdict | None]


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
        verdict = gate(evidence)
        assert verdict is not None and verdict.verdict == outcome, f"{outcome} was expected, not {verdict}"
        check_verdict(verdict)
        assert gate(evidence) == verdict, "the same evidence, another verdict"
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
