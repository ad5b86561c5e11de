"""Which rows a refresh learns from: decided by probes, against always all, always few, and the lowest probe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Outcome, table
from retraining import BACK, DELAY, FIRST, LOOK, ROWS, SHARE, WINDOWS, Rows, World, slow, world

from orrery.triggers.windows import pick

SEEDS = 3
EVERY = 4
"""Looks between two refreshes."""
NAMES = tuple("all" if rows == ROWS else f"{rows}s" for rows in reversed(WINDOWS))
"""The windows from the longest; a row comes every second."""
Rule = Callable[[dict[str, np.ndarray]], str]


def turned(seed: int) -> Rows:
    """A boundary that turns to its opposite at 15 and at 30 thousand rows."""
    rng = np.random.default_rng([seed, 11])
    x = rng.normal(size=(ROWS, 5))
    sign = np.where((np.arange(ROWS) // 15_000) % 2, -1.0, 1.0)
    return x, (sign * x[:, 0] + 0.5 * x[:, 2] + rng.logistic(0, 0.25, ROWS) > 0).astype(int)


def still(seed: int) -> Rows:
    """Nothing changes, and there is much to learn: thirty features that each say a little."""
    rng = np.random.default_rng([seed, 12])
    x = rng.normal(size=(ROWS, 30))
    return x, (x @ np.full(30, 0.3) + rng.logistic(0, 0.5, ROWS) > 0).astype(int)


def always(window: str) -> Rule:
    """A window that is chosen once."""
    return lambda losses: window


def lowest(losses: dict[str, np.ndarray]) -> str:
    """The probe with the lowest loss, by however little."""
    return min(losses, key=lambda name: float(losses[name].mean()))


def evidence(losses: dict[str, np.ndarray]) -> str:
    """What orrery does: the longest that no shorter one is known to beat. Rows are independent in these streams."""
    return pick(losses, dict.fromkeys(losses, 0), "error").window


RULES: dict[str, Rule] = {
    "all rows": always("all"),
    f"the newest {WINDOWS[1]:,}": always(NAMES[1]),
    f"the newest {WINDOWS[0]}": always(NAMES[2]),
    "the lowest probe": lowest,
    "orrery": evidence,
}


def played(one: World, rule: Rule) -> tuple[int, list[str]]:
    """Refresh in a rhythm; the errors, and which windows were learned from."""
    errors, taken = 0, []
    for at in range(FIRST // LOOK, ROWS // LOOK, EVERY):
        row = at * LOOK
        judged = slice(row - DELAY - BACK * LOOK, row - DELAY)
        places = {name: len(NAMES) - 1 - number for number, name in enumerate(NAMES)}
        losses = {name: one.probes[at - BACK, place, judged].astype(float) for name, place in places.items()}
        taken.append(rule(losses))
        errors += int(one.wrong[at, places[taken[-1]], row : row + EVERY * LOOK].sum())
    return errors, taken


def run(cache: Path, seed: int) -> Outcome:
    """Measure all of it."""
    lines, far, near = [], [], []
    for name, stream in (("turned twice", turned), ("slow turn", slow), ("still", still)):
        worlds = [world(stream(seed + number)) for number in range(SEEDS)]
        found = {words: [played(one, rule) for one in worlds] for words, rule in RULES.items()}
        errors = {words: sum(wrong for wrong, _ in each) for words, each in found.items()}
        fixed = [errors[words] for words in list(RULES)[:3]]
        shares = [one for _, taken in found["orrery"] for one in taken]
        spread = ", ".join(f"{shares.count(window) / len(shares):.0%}" for window in NAMES)
        lines.append([name, *(f"{errors[words] / SEEDS:,.0f}" for words in RULES), spread])
        if errors["orrery"] > 1.05 * min(fixed):
            near.append(f"{name}: {errors['orrery'] / min(fixed) - 1:+.0%}")
        if name != "still" and errors["orrery"] > 0.9 * errors["all rows"]:
            far.append(f"{name}: {errors['orrery'] / errors['all rows'] - 1:+.0%}")
    goals = [
        ("10 % fewer errors than all rows where the world changes", not far, "; ".join(far)),
        ("at most 5 % more errors than the best window in hindsight", not near, "; ".join(near)),
    ]
    head = ["stream", *RULES, f"orrery took {', '.join(NAMES)}"]
    return Outcome("Which rows a refresh learns from", _notes(), goals, [table(head, lines)])


def _notes() -> str:
    return f"""Errors on {ROWS - FIRST:,} rows, mean of {SEEDS} seeds, with a refresh every {EVERY * LOOK:,} rows, by
    Gaussian naive Bayes on all, the newest {WINDOWS[1]:,} or the newest {WINDOWS[0]} rows whose labels are known
    ({DELAY} rows late). "turned twice" turns to its opposite at 15 and 30 thousand rows, "slow turn" never stands
    still, "still" never changes and has thirty features that each say a little. A probe learns from every {SHARE}th row
    of its window and is judged on the {BACK * LOOK} newest rows that it has not seen; all three probes together cost
    {len(WINDOWS)}/{SHARE} of a training, and less where windows are short. "The lowest probe" takes whichever loss is
    lowest, by however little; orrery takes a shorter window only where it is better with evidence."""
