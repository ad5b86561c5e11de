r"""The project file ``orrery.toml``: what it may say, what it means, and what holds where it is silent.

>>> spec = parse('[model]\nname = "tides"\ntask = "regression"\ntarget = "height"\n[data]\ntides = "tides"')
>>> spec.rollout.primary, spec.environments["production"].needs
('absolute_error', ('staging', 'review'))
"""

from __future__ import annotations

import difflib
import tomllib
from typing import Any, get_args

import msgspec

from orrery.errors import NotUnderstood
from orrery.spec.form import LOSSES, METRICS, Burden, Business, Gates, Limit, Rollout, Spec
from orrery.spec.rules import check, in_order, values_wait, window_length
from orrery.types import CHANGES

__all__ = [
    "METRICS",
    "Burden",
    "Business",
    "Limit",
    "Spec",
    "from_dict",
    "json_schema",
    "parse",
    "to_dict",
    "values_wait",
    "window_length",
]


def parse(text: str, source: str = "orrery.toml") -> Spec:
    """Read a project file.

    Parameters
    ----------
    text : TOML.
    source : what the errors call it.

    Raises
    ------
    NotUnderstood
        If it is not TOML, a key is unknown (the nearest known one is named), or a value does not fit.
    """
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotUnderstood(f"{source} is not TOML: {error}.") from error
    return from_dict(fields, source)


def from_dict(fields: dict[str, Any], source: str = "orrery.toml") -> Spec:
    """Read a project file that is parsed already.

    Raises
    ------
    NotUnderstood
        As :func:`parse`.
    """
    fields = _secrets_listed(_burdens_whole(_metrics_inline(fields)))
    _refuse_unknown(fields, Spec, "", source)
    try:
        spec = msgspec.convert(fields, Spec)
    except msgspec.ValidationError as error:
        raise NotUnderstood(f"{source}: {error}.", todo="`orrery explain config` shows every key.") from error
    spec = _with_defaults(spec)
    check(spec, source)
    return spec


def to_dict(spec: Spec) -> dict[str, Any]:
    """Return the whole of a spec, defaults included, as JSON can carry it."""
    fields: dict[str, Any] = msgspec.to_builtins(spec)
    return fields


def json_schema() -> dict[str, Any]:
    """Return the published JSON schema of the project file."""
    schema = msgspec.json.schema(Spec)
    gates = schema["$defs"]["Gates"]
    gates["properties"].pop("metrics")
    limit = {"$ref": "#/$defs/Limit"}
    for name in sorted({metric for names in METRICS.values() for metric in names}):
        gates["properties"][name] = limit
    gates["additionalProperties"] = limit  # a loss of the project's own
    handed = schema["$defs"]["Spec"]["properties"]["secrets"]["additionalProperties"]
    schema["$defs"]["Spec"]["properties"]["secrets"]["additionalProperties"] = {"anyOf": [handed["items"], handed]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "orrery.toml", **schema}


def _metrics_inline(fields: dict[str, Any]) -> dict[str, Any]:
    """Collect ``[gates] log_loss = {...}`` under ``gates.metrics``: a metric is a key of its own to the user."""
    gates = fields.get("gates")
    if not isinstance(gates, dict):
        return fields
    known = {metric for names in METRICS.values() for metric in names}
    known |= set(losses) if isinstance(losses := fields.get("losses"), dict) else set()
    own = {name: limit for name, limit in gates.items() if name in known}
    rest = {name: value for name, value in gates.items() if name not in known}
    if own:
        rest["metrics"] = {**rest.get("metrics", {}), **own}
    return {**fields, "gates": rest}


def _burdens_whole(fields: dict[str, Any]) -> dict[str, Any]:
    """Fill what ``[rollout.redesign]`` and its like leave out with the defaults of that kind of change, not of any."""
    rollout = fields.get("rollout")
    if not isinstance(rollout, dict):
        return fields
    whole = dict(rollout)
    for change in CHANGES:
        if isinstance(given := rollout.get(change), dict):
            whole[change] = {**msgspec.to_builtins(getattr(Rollout(), change)), **given}
            if given.get("ab") and "shadow" not in given:
                whole[change]["shadow"] = False  # who asks for the one proof does not ask for the other
    return {**fields, "rollout": whole}


def _secrets_listed(fields: dict[str, Any]) -> dict[str, Any]:
    """Take ``warehouse = "training"`` for a list of one action."""
    secrets = fields.get("secrets")
    if not isinstance(secrets, dict):
        return fields
    return {**fields, "secrets": {name: [one] if isinstance(one, str) else one for name, one in secrets.items()}}


def _refuse_unknown(fields: Any, struct: Any, path: str, source: str) -> None:
    if not isinstance(fields, dict):
        return
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for name, value in fields.items():
        if name not in known:
            choices = [*known, *(METRICS["binary"] + METRICS["regression"] if struct is Gates else ())]
            near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
            place = f"[{path.rstrip('.')}] " if path else ""
            hint = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(choices))}."
            raise NotUnderstood(f"{source}: {place}has no key {name!r}.", todo=hint)
        inner = known[name]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            _refuse_unknown(value, inner, f"{path}{name}.", source)
        elif (args := get_args(inner)) and isinstance(args[-1], type) and issubclass(args[-1], msgspec.Struct):
            for key, item in value.items() if isinstance(value, dict) else ():
                _refuse_unknown(item, args[-1], f"{path}{name}.{key}.", source)


def _with_defaults(spec: Spec) -> Spec:
    replace = msgspec.structs.replace
    task = spec.model.task
    rollout = spec.rollout
    if not rollout.primary:
        rollout = replace(rollout, primary=LOSSES[task][0])
    losses = {name: replace(loss, function=loss.function or f"losses:{name}") for name, loss in spec.losses.items()}
    gates = spec.gates
    if not gates.metrics:
        gates = replace(gates, metrics={rollout.primary: Limit(versus="champion")})
    if not gates.segments.by:
        gates = replace(gates, segments=replace(gates.segments, by=spec.model.segments))
    if not gates.holdout:
        gates = replace(gates, holdout="7d" if spec.model.time else "0.2")
    return replace(spec, losses=losses, rollout=rollout, gates=gates, environments=in_order(spec.environments))
