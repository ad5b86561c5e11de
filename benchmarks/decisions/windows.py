"""Which rows a refresh learns from: decided by probes, against fixed windows, the lowest probe, and two in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import Outcome, table
from worlds import SHARE, Rows, World, slow, stream

from orrery.stats import McNemarE, level, paired_interval
from orrery.triggers.windows import ALPHA, pick

ROWS, LOOK, DELAY, FIRST, BACK = 40_000, 250, 500, 2000, 2
WINDOWS = (500, 2000, ROWS)
SEEDS = 3
EVERY = 4
"""Looks between two refreshes."""
RHYTHMS = (EVERY, 2 * EVERY, 4 * EVERY)
"""The same where two challengers are tried in turn: the last gives them the time that they need, the one before has as
many trainings with one challenger as the last with two."""
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


def world(rows: Rows) -> World:
    """What each model that could have been trained gets wrong."""
    made = stream(rows, LOOK, DELAY)
    return replace(made, lost=made.lost.astype(bool), probes=made.probes.astype(bool))


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


PLACES = {name: len(NAMES) - 1 - number for number, name in enumerate(NAMES)}


def probed(one: World, at: int) -> dict[str, np.ndarray]:
    """What the probe of each window gets wrong on the newest rows that it has not seen."""
    judged = slice(at * LOOK - DELAY - BACK * LOOK, at * LOOK - DELAY)
    return {name: one.probes[at - BACK, place, judged].astype(float) for name, place in PLACES.items()}


def played(one: World, rule: Rule, every: int = EVERY) -> tuple[int, list[str]]:
    """Refresh in a rhythm; the errors, and which windows were learned from."""
    errors, taken = 0, []
    for at in range(FIRST // LOOK, ROWS // LOOK, every):
        taken.append(rule(probed(one, at)))
        errors += int(one.lost[at, PLACES[taken[-1]], at * LOOK : (at + every) * LOOK].sum())
    return errors, taken


def best_two(losses: dict[str, np.ndarray]) -> list[str]:
    """The window that orrery takes, and the best of the others where the probes do not separate them."""
    first = evidence(losses)
    second = min((name for name in losses if name != first), key=lambda name: float(losses[name].mean()))
    apart = paired_interval(losses[second] - losses[first], ALPHA / (len(losses) - 1))
    return [first] if apart.low > 0 else [first, second]


def in_turn(one: World, every: int, at_once: bool) -> tuple[int, int, int]:
    """Where the probes are undecided, train the best two and let the labels of requests decide, with e-LOND.

    With ``at_once`` the first answers at once, as a refresh does, and the second is its challenger in shadow. Without,
    both are challengers of the old champion: the first for half of the time, then the second. Returns the errors,
    the trainings, and how often a challenger won.
    """
    errors, trainings, won, trials, alpha = 0, 0, 0, 0, 0.05
    champion = one.lost[FIRST // LOOK, PLACES["all"]]
    for at in range(FIRST // LOOK, ROWS // LOOK, every):
        line = [one.lost[at, PLACES[name]] for name in best_two(probed(one, at))]
        trainings += len(line)
        if at_once or len(line) == 1:
            champion = line.pop(0)
        test, began = None, at
        for look in range(at, min(at + every, ROWS // LOOK)):
            if test is None and line:
                test, began, trials = McNemarE(), look, trials + 1
                needed, against = -np.log(level(alpha, trials, won)), McNemarE()
            now = slice(look * LOOK, (look + 1) * LOOK)
            errors += int(champion[now].sum())
            if test is None:
                continue
            known = slice(max(began * LOOK, now.stop - DELAY - LOOK), max(began * LOOK, now.stop - DELAY))
            wins, losses = (champion[known] & ~line[0][known]).sum(), (line[0][known] & ~champion[known]).sum()
            test.update(wins, losses)
            against.update(losses, wins)
            if test.log_e >= needed:
                champion, line, test, won = line[0], [], None, won + 1
            elif against.log_e >= -np.log(alpha) or (len(line) == 2 and look + 1 - at >= every // 2):
                line, test = line[1:], None
    return errors, trainings, won


def run(cache: Path, seed: int) -> Outcome:
    """Measure all of it."""
    lines, far, near, turns = [], [], [], []
    for name, rows in (("turned twice", turned), ("slow turn", slow), ("still", still)):
        worlds = [world(rows(seed + number)) for number in range(SEEDS)]
        found = {words: [played(one, rule) for one in worlds] for words, rule in RULES.items()}
        errors = {words: sum(wrong for wrong, _ in each) for words, each in found.items()}
        fixed = [errors[words] for words in list(RULES)[:3]]
        shares = [one for _, taken in found["orrery"] for one in taken]
        spread = ", ".join(f"{shares.count(window) / len(shares):.0%}" for window in NAMES)
        turns += [[name, *_turns(worlds, every)] for every in RHYTHMS]
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
    in_turns = [
        "stream",
        "rows between",
        "orrery",
        "A at once, then B",
        "A, then B, beside the old",
        "best in hindsight",
    ]
    return Outcome(
        "Which rows a refresh learns from", _notes(), goals, [table(head, lines), _turned(), table(in_turns, turns)]
    )


def _turns(worlds: list[World], every: int) -> list[str]:
    """Errors (trainings) of orrery's choice, of two challengers in turn, and of whoever knew the rows to come."""
    ours = [played(one, evidence, every) for one in worlds]
    cells = [_cell(sum(wrong for wrong, _ in ours), sum(len(taken) for _, taken in ours))]
    for at_once in (True, False):
        found = np.sum([in_turn(one, every, at_once) for one in worlds], axis=0)
        cells.append(f"{_cell(found[0], found[1])}, {found[2] / SEEDS:.1f} won")
    ahead = 0
    for one in worlds:
        for at in range(FIRST // LOOK, ROWS // LOOK, every):
            wrong = one.lost[at, :, at * LOOK : (at + every) * LOOK].sum(axis=1)
            ahead += int(min(wrong[PLACES[name]] for name in best_two(probed(one, at))))
    return [f"{every * LOOK:,}", *cells, f"{ahead / SEEDS:,.0f}"]


def _cell(errors: float, trainings: float) -> str:
    return f"{errors / SEEDS:,.0f} ({trainings / SEEDS:.0f})"


def _turned() -> str:
    words = """Two windows as challengers in turn where the probes do not separate the best two: errors (trainings), and
    how often a challenger won. A is the window that orrery takes, B the best of the others. "A at once, then B": A
    answers, B is its challenger in shadow; "A, then B, beside the old": both are challengers of the old champion, each
    for half of the time. Rows are units, levels are those of e-LOND at 5 %. "Best in hindsight" is the better of A and
    B, known before."""
    return " ".join(words.split())


def _notes() -> str:
    return f"""Errors on {ROWS - FIRST:,} rows, mean of {SEEDS} seeds, with a refresh every {EVERY * LOOK:,} rows, by
    Gaussian naive Bayes on all, the newest {WINDOWS[1]:,} or the newest {WINDOWS[0]} rows whose labels are known
    ({DELAY} rows late). "turned twice" turns to its opposite at 15 and 30 thousand rows, "slow turn" never stands
    still, "still" never changes and has thirty features that each say a little. A probe learns from every {SHARE}th row
    of its window and is judged on the {BACK * LOOK} newest rows that it has not seen; all three probes together cost
    {len(WINDOWS)}/{SHARE} of a training, and less where windows are short. "The lowest probe" takes whichever loss is
    lowest, by however little; orrery takes a shorter window only where it is better with evidence."""
