"""What became of compiling a version, ``compiled.json``: what may be asked of the graph, and the proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from orrery.errors import Damaged

GRAPH, VERDICT = "compiled.onnx", "compiled.json"
MISSING = "\x02orrery: no value\x03"
"""The text that stands for a missing one: a graph knows no null."""
EXACT = 2**53
"""Whole numbers up to here are the same as float64."""

Kind = Literal["number", "single", "whole", "flag", "text", "instant", "nothing"]
"""What a request may bring for a column: numbers (``single``: kept as float32), whole numbers, booleans, texts,
ISO 8601 instants; ``nothing`` but null where a plain value may be understood otherwise by the version itself."""
Group = Literal["", "numbers", "wholes", "texts"]


class Column(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A column of what the graph is asked with, and for which of its values the proof holds."""

    name: str
    kind: Kind
    type: str = ""
    """In words, as the version itself describes it."""
    group: Group = ""
    """The matrix that it is a column of, in the order of the columns; empty: it is checked, and not used."""
    nulls: bool = True
    infinite: bool = True
    limit: float | None = None
    """Largest absolute value; None: any."""
    range: tuple[int, int] | None = None
    """Smallest and largest whole number."""
    known: tuple[str, ...] | None = None
    """The only texts; None: any."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """How the graph was compared with the version's own Python."""

    rows: int
    """Untouched rows of the data."""
    hard_rows: int
    """Made rows: nulls, unseen texts, infinities, extremes, values beside thresholds."""
    unproven: int
    """Of the made rows, those that are left to the version's own Python."""
    worst: float
    """Largest difference found."""
    tolerance: float
    """Largest difference allowed: of a probability; of a regression relative to the size of its values."""
    left_out: tuple[str, ...] = ()
    """What is left to the version's own Python, in words."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Untouched rows that are asked again wherever the graph is loaded, before it answers anybody."""

    columns: dict[str, list[Any]]
    """Plain values, by column."""
    output: list[list[float]]
    """What the version's own Python says, without a repair."""
    size: float = 1.0
    """See :func:`orrery.pipeline.compiled.apart`."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of compiling a version."""

    format: int = 1
    why: str = ""
    """Why it is not compiled; empty: it is."""
    digest: str = ""
    """SHA-256 of the graph."""
    whole: bool = False
    """Whether the graph goes from a request's columns to the prediction; else from what the model step sees."""
    columns: tuple[Column, ...] = ()
    hidden: str = ""
    """A column that may be sent and is never used: the target."""
    output: str = ""
    labels: tuple[str | int | float, ...] | None = None
    """Where the graph says a label: each label that it can say; `picks` has its place among the classes."""
    picks: tuple[int, ...] = ()
    """Column of the graph's output for each column of the prediction; -1 for a class that it never saw."""
    precision: str = ""
    """``double`` or ``single``."""
    proof: Proof | None = None
    sample: Sample | None = None
    """Of a graph that answers requests."""
    seconds: float = 0.0
    """Processor time that converting and proving took."""

    def sentence(self) -> str:
        """Say it to people.

        Examples
        --------
        >>> Verdict(why="no converter for Line").sentence()
        'Served by its own Python: no converter for Line.'
        """
        if self.why or self.proof is None:
            return f"Served by its own Python: {self.why.rstrip('.')}."
        proof = self.proof
        what = "Served compiled (ONNX)" if self.whole else "Its features in Python, the model compiled (ONNX)"
        rest = f"; left to Python: {', '.join(proof.left_out)}" if proof.left_out else ""
        hard = proof.hard_rows - proof.unproven
        equal = f"equal to {proof.worst:.1g}" if proof.worst else "the same"
        return f"{what}: {equal} on {proof.rows:,} rows and {hard:,} hard rows{rest}."

    def as_fact(self) -> dict[str, Any]:
        """What the timeline keeps of it."""
        fact: dict[str, Any] = {"served": "python" if self.why else "onnx", "sentence": self.sentence()}
        if self.proof is not None:
            proof = self.proof
            fact |= {"worst": proof.worst, "rows": proof.rows, "hard_rows": proof.hard_rows - proof.unproven}
        return fact


def read_verdict(artifact: Path | str) -> Verdict | None:
    """Read ``compiled.json``; None for a version that was made before there were any.

    Raises
    ------
    Damaged
        If it is not what was written.
    """
    try:
        text = (Path(artifact) / VERDICT).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(text, type=Verdict)
    except msgspec.DecodeError as error:
        raise Damaged(f"{VERDICT} in {artifact} cannot be read: {error}.") from error
