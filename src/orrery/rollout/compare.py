"""Champion against challenger: one look of an e-process that may be looked at any time.

Beside the champion, on the same requests; or on requests that were drawn by lot for one or the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl

from orrery.rollout.business import DayFinding, by, largest_loss, losses_of, worse_in_words
from orrery.spec import Spec
from orrery.stats import PairedTest, level, log_mean_e, randomised_differences
from orrery.stats.measure import NONE, Own, bound_of, encode, row_losses
from orrery.stats.paired import Kind
from orrery.timeline.state import Challenger
from orrery.types import parse_duration, parse_instant

PRIMARY = ""  # name of the primary loss's test: the same loss may be a guardrail too, with another margin
MOST = 1e12  # evidence beyond is as good


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a challenger found.

    Parameters
    ----------
    n : independent blocks so far; ``rows`` labelled pairs so far.
    effect : mean of champion's loss minus challenger's (positive: the challenger is better), with its interval.
    evidence : e-value for the challenger; ``counter`` against it.
    decision : promote, abort or undecided. Primary loss and guardrails have one risk of a wrong abort for all together:
        what counts is the mean of the evidence against the challenger in each.
    guardrails : for each guardrail the evidence that the challenger's loss is higher by less than its margin.
    broken : where it is aborted, the guardrails that it is proven to break, in words.
    state : to go on from at the next look.
    """

    n: int
    rows: int
    effect: float | None
    interval: tuple[float, float] | None
    evidence: float
    counter: float
    decision: str
    guardrails: dict[str, float]
    broken: list[str] = []
    state: dict[str, Any]


def level_of(challenger: Challenger, policy: Spec) -> float:
    """Return the risk of a wrong proof that a challenger has to keep, as one of several that came before it."""
    alpha = policy.rollout.alpha
    return level(alpha, challenger.trial, challenger.proven) if challenger.trial else alpha


def look(
    state: dict[str, Any],
    pairs: pl.DataFrame,
    spec: Spec,
    classes: list[Any],
    until: datetime,
    *,
    scale: float = 1.0,
    alpha: float | None = None,
    own: Own = NONE,
    business: Mapping[str, pl.DataFrame] | None = None,
) -> Comparison:
    """Take in the pairs whose labels became final since the last look.

    Parameters
    ----------
    state : of the last look; empty at the first.
    pairs : columns ``at``, ``champion`` and ``challenger`` (lists of outputs), ``label`` and, where the unit of the
        policy is a column, ``unit``.
    spec : the policy. Each unit is one observation; where it is a column, each of its values: those that an
        earlier look has counted must not be among them.
    classes : of the model, in the order of its outputs.
    until : time of this look; a block ends a label delay after its last instant.
    scale : largest error that counts, for regressions.
    alpha : risk of a wrong proof, of :func:`level_of`; None is the policy's.
    own : losses of the project's own.
    business : of a canary, what its units and the champion's brought; as in :func:`look_at_arm`.
    """
    tests = (
        {name: PairedTest.from_state(one) for name, one in state["tests"].items()}
        if "tests" in state
        else _begin(spec, scale, alpha, own)
    )
    seen: dict[str, list[float]] = {name: list(sums) for name, sums in state.get("seen", {}).items()}
    _take_values(tests, seen, spec, business)
    losses = _of_losses(tests, spec)
    blocks: dict[str, dict[str, list[float]]] = {
        name: {key: list(sums) for key, sums in state.get("blocks", {}).get(name, {}).items()} for name in losses
    }
    rows = int(state.get("rows", 0)) + len(pairs)
    for name, differences in _differences(pairs, losses, spec.rollout.primary, classes, own).items():
        if spec.rollout.unit == "row":
            tests[name].update(differences)
        else:
            _collect(blocks[name], _units(pairs, spec.rollout.unit), differences)
    for name, sums in blocks.items():
        closed = [key for key in sorted(sums) if _over(key, spec, until)]
        if closed:
            tests[name].update([sums[key][0] / sums[key][1] for key in closed])
        blocks[name] = {key: sums[key] for key in sums if key not in closed}
    return _found(tests, rows, {"blocks": blocks, "seen": seen}, () if business is None else business)


def look_at_arm(
    state: dict[str, Any],
    units: pl.DataFrame,
    spec: Spec,
    classes: list[Any],
    share: float,
    *,
    scale: float = 1.0,
    expected: float = 0.0,
    alpha: float | None = None,
    own: Own = NONE,
    business: Mapping[str, pl.DataFrame] | None = None,
) -> Comparison:
    """Take in the units of an A/B whose labels became final since the last look; each unit once.

    The unit of analysis is what was drawn by lot: the policy's ``sticky`` column, or the request.

    Parameters
    ----------
    state, spec, classes, scale, alpha, own : as in :func:`look`.
    units : columns ``output``, ``label`` and ``arm`` (whether the arm answered), in the order of the requests.
    share : probability with which a unit was drawn for the arm.
    expected : mean loss that is expected, on the primary loss: the nearer, the sooner a difference shows.
    business : for metrics that come by unit, what came of the units whose time for it was over since the last look:
        columns ``value``, ``arm`` (whether it answered) and ``share`` (the probability of that).
    """
    widen = 1 / min(share, 1 - share)
    tests = (
        {name: PairedTest.from_state(one) for name, one in state["tests"].items()}
        if "tests" in state
        else _begin(spec, scale, alpha, own, widen)
    )
    seen: dict[str, list[float]] = {name: list(sums) for name, sums in state.get("seen", {}).items()}
    labels = encode(units["label"].to_list(), classes)
    outputs = np.asarray(units["output"].to_list(), dtype=np.float64)
    for name, test in _of_losses(tests, spec).items() if len(units) else ():
        largest, loss = test.bound / widen, spec.rollout.primary if name == PRIMARY else name
        losses = row_losses(loss, outputs, labels, cap=largest, own=own)
        centre = _centre(seen, name, losses, expected if name == PRIMARY else 0.0, largest)
        test.update(randomised_differences(losses, units["arm"].to_numpy(), share, centre))
    _take_values(tests, seen, spec, business or {})
    rails = by(spec.rollout.business, "unit")
    return _found(tests, int(state.get("rows", 0)) + len(units), {"seen": seen}, rails)


def with_days(found: Comparison, days: Sequence[DayFinding], metrics: int, alpha: float) -> Comparison:
    """Return what a look at a former champion found, with the days since the promotion beside those before.

    It comes back where the mean of the evidence reaches ``1 / alpha``: that of the labels, which compare versions, and
    that of each of so many ``metrics``, which compare days; one of which nothing is known yet has evidence of 1.
    """
    if not metrics:
        return found
    evidence = [found.evidence, *(one.evidence for one in days), *[1.0] * (metrics - len(days))]
    back = log_mean_e(np.log(np.maximum(evidence, 1 / MOST))) >= -math.log(alpha)
    fell = [f"{one.why}: worse than before" for one in days if back and one.evidence >= 1 / alpha]
    kept = "undecided" if found.decision == "promote" else found.decision
    return msgspec.structs.replace(found, decision="promote" if back else kept, broken=fell)


def _of_losses(tests: dict[str, PairedTest], spec: Spec) -> dict[str, PairedTest]:
    return {name: one for name, one in tests.items() if name.partition("@")[0] not in spec.rollout.business}


def _take_values(
    tests: dict[str, PairedTest],
    seen: dict[str, list[float]],
    spec: Spec,
    business: Mapping[str, pl.DataFrame] | None,
) -> None:
    """Add to the tests what units brought: for each metric and share of a canary a test of its own.

    The smaller the share, the larger a weighted difference may be, and the smaller bets have to be. A unit is in one
    of them only, so their evidence is multiplied.
    """
    for name, came in (business or {}).items():
        rule, primary = spec.rollout.business[name], tests[PRIMARY]
        for (share,), part in came.group_by("share", maintain_order=True):
            chance = float(share)
            bound = largest_loss(rule) / min(chance, 1 - chance)
            fresh = PairedTest("loss", rule.margin, primary.alpha, bound, abort_alpha=primary.abort_alpha)
            test = tests.setdefault(f"{name}@{chance:g}", fresh)
            losses = losses_of(rule, part["value"].to_numpy())
            centre = _centre(seen, name, losses, float(losses_of(rule, [rule.absent])[0]), largest_loss(rule))
            test.update(randomised_differences(losses, part["arm"].to_numpy(), chance, centre))


def _centre(
    seen: dict[str, list[float]], name: str, losses: np.ndarray[Any, Any], first: float, largest: float
) -> float:
    """Return the mean loss of earlier looks only, for it must not know these units; and remember these."""
    total, count = seen.get(name, [first, 1.0])
    before = seen.get(name, [0.0, 0.0])
    seen[name] = [before[0] + float(losses.sum()), before[1] + len(losses)]
    return min(max(total / count, 0.0), largest)


def _found(tests: dict[str, PairedTest], rows: int, more: dict[str, Any], needed: Iterable[str] = ()) -> Comparison:
    """Return what the tests say together; ``needed`` guardrails hold a promotion back where nothing is known of them.

    Every guardrail must hold for a promotion, so a wrong one is no likelier with many. An abort needs but one to fail,
    so they share its risk: the mean of the evidence against the challenger decides, in the primary loss too.
    """
    test = tests[PRIMARY]
    rails: dict[str, list[PairedTest]] = {name: [] for name in needed}
    for name, one in tests.items():
        if name != PRIMARY:
            rails.setdefault(name.partition("@")[0], []).append(one)
    kept = {name: sum(one.log_evidence for one in parts) for name, parts in rails.items()}
    against = {name: sum(one.log_counter_evidence for one in parts) for name, parts in rails.items()}
    limit = -math.log(test.abort_alpha)
    broken: list[str] = []
    if log_mean_e([test.log_counter_evidence, *against.values()]) >= limit:
        decision = "abort"
        for name in (name for name in rails if against[name] >= limit):
            most = max(rails[name], key=lambda one: one.log_counter_evidence)
            broken.append(worse_in_words(name, most, against[name]))
    else:
        proven = min([test.log_evidence, *kept.values()]) >= -math.log(test.alpha)
        decision = "promote" if proven else "undecided"
    interval = test.interval() if test.n else None
    return Comparison(
        n=test.n,
        rows=rows,
        effect=interval.estimate if interval else None,
        interval=(interval.low, interval.high) if interval and math.isfinite(interval.low) else None,
        evidence=min(test.evidence, MOST),
        counter=min(test.counter_evidence, MOST),
        decision=decision,
        guardrails={name: math.exp(min(log, math.log(MOST))) for name, log in kept.items()},
        broken=broken,
        state={
            "tests": {name: one.to_state() for name, one in tests.items()},
            "rows": rows,
            **more,
        },
    )


def _begin(
    spec: Spec, scale: float, alpha: float | None, own: Own, widen: float | None = None
) -> dict[str, PairedTest]:
    """Return the tests of the primary loss and of every guardrail, without evidence yet.

    ``widen`` is how many times as large a difference may be as a loss; nothing for pairs.
    """
    rules = spec.rollout
    found: dict[str, PairedTest] = {}
    for name, loss, margin in (
        (PRIMARY, rules.primary, rules.margin),
        *((name, name, margin) for name, margin in rules.guardrails.items()),
    ):
        paired = rules.unit == "row" and loss == "zero_one" and name == PRIMARY and widen is None
        kind: Kind = "zero_one" if paired else "loss"
        bound = _bound(loss, rules.primary, scale, own) * (widen or 1.0)
        # who tolerates more than the largest loss that counts tolerates all: still a test, won at once
        risk = rules.alpha if alpha is None else alpha
        found[name] = PairedTest(kind, min(margin, 0.99 * bound), risk, bound, abort_alpha=rules.alpha)
    return found


def _differences(
    pairs: pl.DataFrame, tests: dict[str, PairedTest], primary: str, classes: list[Any], own: Own
) -> dict[str, np.ndarray[Any, Any]]:
    """Return for each test the champion's loss minus the challenger's, a row each; nothing where there are no pairs."""
    if not len(pairs):
        return {}
    labels = encode(pairs["label"].to_list(), classes)
    champion, challenger = (np.asarray(pairs[side].to_list(), dtype=np.float64) for side in ("champion", "challenger"))
    losses = {name: (primary if name == PRIMARY else name, test.bound) for name, test in tests.items()}
    return {
        name: row_losses(loss, champion, labels, cap=cap, own=own)
        - row_losses(loss, challenger, labels, cap=cap, own=own)
        for name, (loss, cap) in losses.items()
    }


def _units(pairs: pl.DataFrame, unit: str) -> list[str]:
    if unit in ("day", "hour"):
        pattern = "%Y-%m-%d" if unit == "day" else "%Y-%m-%dT%H"
        return pairs["at"].dt.strftime(pattern).to_list()
    return pairs["unit"].cast(pl.String).fill_null("missing").to_list()


def _collect(blocks: dict[str, list[float]], units: list[str], differences: np.ndarray[Any, Any]) -> None:
    for unit, difference in zip(units, differences.tolist(), strict=True):
        sums = blocks.setdefault(unit, [0.0, 0.0])
        sums[0] += difference
        sums[1] += 1


def _bound(name: str, primary: str, scale: float, own: Own) -> float:
    """Return the largest loss that counts; the scale is in the unit of the primary loss, or of the value itself."""
    if name == "squared_error" and primary != name:
        return bound_of(name, scale**2)
    if (name, primary) == ("absolute_error", "squared_error"):
        return bound_of(name, math.sqrt(scale))
    return bound_of(name, scale, own)


def _over(unit: str, spec: Spec, until: datetime) -> bool:
    """Say whether nothing more can come of a block: it has ended, and its labels are final."""
    if spec.rollout.unit not in ("day", "hour"):
        return True
    start = parse_instant(unit if spec.rollout.unit == "day" else f"{unit}:00:00")
    length = timedelta(days=1) if spec.rollout.unit == "day" else timedelta(hours=1)
    return start + length + parse_duration(spec.model.label_delay) <= until
