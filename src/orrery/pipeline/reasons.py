"""Why a step ran, in words: what its key was made of, now and the last time."""

from __future__ import annotations

from collections.abc import Mapping

_MOST = 3
"""Changes that are named; more would hide the point."""


def why(step: str, before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """Say what changed between two makings of a step.

    Parameters
    ----------
    step
        Its name.
    before, now
        Part (``parameter depth``) to what it was: a digest, for some followed by a value to show. `before` is None if
        the step never ran.

    >>> why("model", {"parameter depth": "a1 6"}, {"parameter depth": "b2 8"})
    'parameter depth changed 6 -> 8'
    """
    if before is None:
        return "first run"
    changed = [part for part in {**before, **now} if before.get(part) != now.get(part)]
    said = [*_code(step, changed, before, now)]
    for part in changed:
        kind, _, name = part.partition(" ")
        old, new = before.get(part, ""), now.get(part, "")
        if kind in ("parameter", "constant"):
            said.append(f"{kind} {name} {_values(_value(old), _value(new), bool(old), bool(new))}")
        elif kind == "dataset":
            said.append(f"dataset {name} {_short(old)} -> {_short(new)}" if old and new else f"{part} {_came(old)}")
        elif kind == "environment":
            said.append("environment changed")
        elif kind in ("input", "file"):
            said.append(f"{part} changed" if old and new else f"{part} {_came(old)}")
    if not said:
        return "its cached result is gone"
    rest = len(said) - _MOST
    return "; ".join(said[:_MOST]) + (f" and {rest} more" if rest > 0 else "")


def _code(step: str, changed: list[str], before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    own = any(part.startswith("code ") for part in changed)
    # New and gone helpers follow from an edit of the code that calls them; a changed one is news of its own.
    helpers = [
        part.partition(" ")[2] for part in changed if part.startswith("helper ") and part in before and part in now
    ]
    if helpers:
        return [f"code of {step} changed: {'its own and ' if own else ''}helper {', '.join(helpers[:_MOST])}"]
    if own:
        return [f"code of {step} changed"]
    if any(part.startswith("helper ") or part == "imports" for part in changed):
        return [f"code of {step} changed: what it calls or imports"]
    return []


def _value(part: str) -> str:
    return part.partition(" ")[2]


def _values(old: str, new: str, was: bool, is_: bool) -> str:
    if not (was and is_):
        return _came(was)
    return f"changed {old} -> {new}" if old != new and old and new else "changed"


def _came(was: object) -> str:
    return "no longer used" if was else "new"


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:12]}..."
