r"""The project file ``orrery.toml``: what it may say, what it means, and what holds where it is silent.

>>> spec = parse('[model]\nname = "tides"\ntask = "regression"\ntarget = "height"\n[data]\ntides = "tides"')
>>> spec.rollout.primary, spec.environments["production"].needs
('absolute_error', ('staging', 'review'))
"""

from __future__ import annotations

import difflib
import graphlib
import itertools
import re
import tomllib
from datetime import timedelta
from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta

from orrery.errors import NotUnderstood
from orrery.types import CHANGES, PRODUCTION, MonitorName, Task, check_name, parse_duration, parse_share

Duration = Annotated[str, Meta(description="A length of time: 90s, 15m, 12h, 7d, 2w.")]
Share = Annotated[float, Meta(gt=0, lt=1)]

LOSSES = {
    "binary": ("log_loss", "brier", "zero_one"),
    "multiclass": ("log_loss", "brier", "zero_one"),
    "regression": ("absolute_error", "squared_error"),
}
"""Losses of one row that a decision can be made on, by task; the first is the default."""
METRICS = {
    "binary": (*LOSSES["binary"], "accuracy", "auc"),
    "multiclass": (*LOSSES["multiclass"], "accuracy"),
    "regression": (*LOSSES["regression"], "r2"),
}
"""Metrics that a gate can limit, by task."""

ALL = "all"
"""The window that every row is in."""

RESERVED = frozenset(("api", "data", "docs", "git", "index", "issues", "mlflow", "reviews", "schema", "static"))
"""Names that no model can have."""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is predicted, for whom, and how a prediction finds its label."""

    name: Annotated[str, Meta(description="Name of the model, of its repository and of its address.")]
    task: Task
    target: Annotated[str, Meta(min_length=1, description="Column to predict; an argument of this name gets it.")]
    owner: Annotated[str, Meta(description="Who gets the issues; default: the author of the commit.")] = ""
    objective: Annotated[str, Meta(description="What it is for, in words.")] = ""
    entity: Annotated[str, Meta(description="Column that joins a prediction to its label.")] = ""
    time: Annotated[str, Meta(description="Column with the event time: what was known when.")] = ""
    label_delay: Annotated[Duration, Meta(description="How long after a prediction its label is final.")] = "0s"
    segments: Annotated[tuple[str, ...], Meta(description="Columns whose groups must each be served well.")] = ()
    protected: Annotated[tuple[str, ...], Meta(description="Columns no group of which may be treated worse.")] = ()


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the functions are."""

    module: str = "pipeline"
    model: Annotated[str, Meta(description="Function that returns the fitted model.")] = "model"
    keep: Annotated[tuple[str, ...], Meta(description="Steps whose training result is used when serving.")] = ()
    params: Annotated[dict[str, Any], Meta(description="Values for keyword parameters of steps.")] = {}


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits of one metric."""

    max: float | None = None
    min: float | None = None
    versus: Annotated[str, Meta(pattern="^(champion)?$")] = ""
    margin: Annotated[float, Meta(ge=0, description="How much worse than the champion is still no worse.")] = 0.0


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A loss of the project's own, of one row: ``def NAME(label, output)`` gives a number, the lower the better."""

    function: Annotated[
        str, Meta(description="module:function in the project; default: the name, in the module losses.")
    ] = ""
    bound: Annotated[float, Meta(gt=0, description="Largest loss of a row; the smallest is 0.")]


class SegmentGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """No important segment may be worse than a limit, or clearly worse than under the champion."""

    by: tuple[str, ...] = ()
    worst: dict[str, float] = {}
    min_rows: Annotated[int, Meta(ge=1)] = 100
    margin: Annotated[float, Meta(ge=0)] = 0.02
    search: Annotated[
        bool, Meta(description="Also judge groups of one or two conditions that are found by themselves.")
    ] = False


class LatencyGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long one row may take, in milliseconds of processor time."""

    p99_ms: Annotated[float, Meta(gt=0)] = 100.0


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a candidate must show on untouched rows."""

    metrics: dict[str, Limit] = {}
    segments: SegmentGate = SegmentGate()
    latency: LatencyGate = LatencyGate()
    holdout: Annotated[str, Meta(description="Untouched rows: the newest 7d, or a share such as 0.2.")] = ""
    refit: Annotated[
        bool, Meta(description="After judging, train again with the untouched rows; false: release what was judged.")
    ] = True


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a version needs before it enters an environment."""

    needs: tuple[str, ...] = ()


DEFAULT_ENVIRONMENTS = {
    "staging": Environment(needs=("tests", "gates")),
    "production": Environment(needs=("staging", "review")),
}


class Burden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The burden of proof for one kind of change."""

    shadow: Annotated[bool, Meta(description="Prove it beside the champion before it may answer.")] = False
    ab: Annotated[
        str,
        Meta(
            description="Prove it on labels of a share of the traffic that it answers, such as 50%, against the rest: "
            "where answers change what happens. Instead of shadow."
        ),
    ] = ""
    canary: Annotated[
        tuple[str, ...],
        Meta(description="Shares of the traffic that it answers, one after the other, before all: 5%, 25%."),
    ] = ()
    approval: Annotated[str, Meta(pattern="^(review|policy)$")] = "review"
    min: Duration = "0s"
    max: Duration = "60d"
    guard: Annotated[Duration, Meta(description="How long the former champion watches from the shadow.")] = "14d"
    window: Annotated[Duration, Meta(description="Rows this old at most are learnt from; 0s: all.")] = "0s"


class Probation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a version that is new where it answers must keep to; one that does not is taken back at once."""

    requests: Annotated[
        int, Meta(ge=1, description="Requests that it answers, at least; at each step of a canary.")
    ] = 200
    time: Annotated[Duration, Meta(description="And how long it lasts, at least.")] = "15m"
    failures: Annotated[
        float, Meta(ge=0, lt=1, description="Share of requests that it may fail on where the version before does not.")
    ] = 0.01
    latency: Annotated[float, Meta(gt=1, description="How many times as long as the version before it may take.")] = 3.0
    broken: Annotated[
        float,
        Meta(ge=0, le=1, description="How much more of its rows may break the contract, as a share; of a canary."),
    ] = 0.05
    agreement: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of a canary's answers that are the champion's, at least: the same class, or within the "
            "largest error that counts.",
        ),
    ] = 0.5


class Business(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A business metric as a guardrail: what came of an answer, or the sum of a day, must not get worse."""

    low: Annotated[float, Meta(description="Smallest value that counts; what is below counts as this.")]
    high: Annotated[float, Meta(description="Largest value that counts.")]
    better: Annotated[str, Meta(pattern="^(higher|lower)$", description="Which way is good.")] = "higher"
    margin: Annotated[float, Meta(ge=0, description="How much worse on average is still no worse.")] = 0.0
    by: Annotated[
        str,
        Meta(
            pattern="^(unit|day)$",
            description="`unit`: values come for entities, and the units of an A/B are compared; `day`: for whole "
            "days, and those after a promotion are compared with those before, while the former champion is on guard.",
        ),
    ] = "unit"
    absent: Annotated[float, Meta(description="What a unit counts of which no value came in time.")] = 0.0
    delay: Annotated[str, Meta(description="How long after an answer its value is final; default: label_delay.")] = ""


class Rollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a challenger becomes champion."""

    primary: str = ""
    alpha: Annotated[
        Share,
        Meta(
            description="Share of wrong promotions among those by proof, however often it is looked at, and however "
            "many challengers are tried."
        ),
    ] = 0.05
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    unit: Annotated[str, Meta(description="What is independent of what: row, hour, day, or a column.")] = "day"
    sticky: Annotated[
        str, Meta(description="Column whose value stays with one version in a canary or A/B; empty: each request anew.")
    ] = ""
    probation: Probation = Probation()
    guardrails: Annotated[dict[str, float], Meta(description="Other losses and how much worse each may get.")] = {}
    business: Annotated[
        dict[str, Business], Meta(description="Business metrics that must not get worse, by name.")
    ] = {}
    redesign: Burden = Burden(shadow=True, min="1d", max="60d")
    refresh: Burden = Burden(approval="policy")
    repair: Burden = Burden(approval="policy", guard="7d", window="30d")


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What triggers may spend in any 30 days."""

    trainings_per_month: Annotated[int, Meta(ge=0)] = 31
    cpu_hours_per_month: Annotated[float, Meta(ge=0)] = 24.0


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the data trigger weighs against each other."""

    error: Annotated[float, Meta(gt=0, description="Cost of a loss of 1, of the primary metric, in one answer.")] = 0.01
    training_cpu_hour: Annotated[float, Meta(ge=0, description="Cost of an hour of processor time.")] = 0.05
    currency: str = "EUR"


class Triggers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What starts a training, beside a push and a person."""

    schedule: Annotated[str, Meta(description="Cron expression, UTC; empty: never.")] = ""
    data: Annotated[
        bool,
        Meta(description="New data unlike what the champion learned from, where a probe says that it pays."),
    ] = False
    cost: Cost = Cost()
    probe: Annotated[Share, Meta(description="Share of the rows that a probe is trained on.")] = 0.125
    windows: Annotated[
        tuple[str, ...],
        Meta(
            description='Rows that a refresh may learn from: ["all", "90d", "31d"]. A probe of each decides, and what '
            "is within the noise goes to the longest; none: [rollout.refresh] window."
        ),
    ] = ()
    drift: Annotated[bool, Meta(description="Inputs or calibration drifted.")] = True
    decay: Annotated[bool, Meta(description="The loss on matured labels grew.")] = True
    monitors: Annotated[
        tuple[MonitorName, ...],
        Meta(description="Other monitors whose alarm starts a training; else it only opens an issue."),
    ] = ()
    upkeep: Annotated[
        Duration, Meta(description="How often a repair is tried without an alarm; it costs no training. 0s: never.")
    ] = "0s"
    cooldown: Annotated[Duration, Meta(description="Least time between two trainings that nobody asked for.")] = "1d"
    budget: Budget = Budget()


class Fairness(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is fair to the groups of the protected columns, of a binary model."""

    threshold: Annotated[Share, Meta(description="Probability from which on a row counts as selected.")] = 0.5
    ratio: Annotated[
        Share, Meta(description="A group is selected so many times as often as the others at least, and they as it.")
    ] = 0.8
    gap: Annotated[
        Share, Meta(description="How far a group's true and false positive rates may be from those of the others.")
    ] = 0.1


class Monitors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How production is watched."""

    every: Annotated[Duration, Meta(description="Time between two looks.")] = "1h"
    arl: Annotated[int, Meta(ge=2, description="Looks between two false alarms, on average at least.")] = 1000
    tolerance: Annotated[Share, Meta(description="Drift in total variation that does not matter.")] = 0.05
    decay_tolerance: Annotated[float, Meta(ge=0, description="Growth of the loss that does not matter.")] = 0.02
    calibration_tolerance: Annotated[float, Meta(ge=0, description="Mean error of a probability that is fine.")] = 0.03
    segment_tolerance: Annotated[Share, Meta(description="Share of the requests that may be of other groups.")] = 0.05
    anomaly_tolerance: Annotated[
        float, Meta(ge=0, le=0.5, description="Share of requests that may be strange, beyond chance.")
    ] = 0.01
    probing_tolerance: Annotated[
        float,
        Meta(gt=0, le=0.5, description="Share of requests that may crowd or spread, beyond what is usual."),
    ] = 0.02
    fairness: Fairness = Fairness()
    off: Annotated[tuple[MonitorName, ...], Meta(description="Monitors that are not wanted.")] = ()


class Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the inference server does."""

    broken: Annotated[
        str,
        Meta(
            pattern="^(mask|flag|refuse)$",
            description="A value that breaks the contract: treat as missing, answer and flag, or refuse the request.",
        ),
    ] = "flag"
    timeout: Duration = "10s"


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the project's own code may use, each step."""

    memory_gb: Annotated[float, Meta(gt=0)] = 4.0
    wall: Duration = "1h"
    tests_wall: Duration = "10m"


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole of ``orrery.toml``."""

    model: Model
    data: Annotated[dict[str, str], Meta(min_length=1, description="Argument of the pipeline -> dataset.")]
    pipeline: Pipeline = Pipeline()
    losses: Annotated[
        dict[str, Loss], Meta(description="Losses of the project's own, by the name that gates and rollout use.")
    ] = {}
    gates: Gates = Gates()
    environments: dict[str, Environment] = msgspec.field(default_factory=lambda: dict(DEFAULT_ENVIRONMENTS))
    rollout: Rollout = Rollout()
    triggers: Triggers = Triggers()
    monitors: Monitors = Monitors()
    serving: Serving = Serving()
    resources: Resources = Resources()


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
    fields = _burdens_whole(_metrics_inline(fields))
    _refuse_unknown(fields, Spec, "", source)
    try:
        spec = msgspec.convert(fields, Spec)
    except msgspec.ValidationError as error:
        raise NotUnderstood(f"{source}: {error}.", todo="`orrery explain config` shows every key.") from error
    spec = _with_defaults(spec)
    _check(spec, source)
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
    return replace(spec, losses=losses, rollout=rollout, gates=gates, environments=_in_order(spec.environments))


def window_length(window: str) -> timedelta | None:
    """Return how old a row of a window may be at most; None where every row is in it.

    Raises
    ------
    NotUnderstood
        If the text is no window.

    Examples
    --------
    >>> window_length("31d"), window_length("all"), window_length("0s")
    (datetime.timedelta(days=31), None, None)
    """
    return (parse_duration(window) or None) if window != ALL else None


def _in_order(environments: dict[str, Environment]) -> dict[str, Environment]:
    """Put what is needed before what needs it; the order in the file says nothing (JSON would not keep it)."""
    needs = {
        name: [need for need in rules.needs if need in environments] for name, rules in sorted(environments.items())
    }
    try:
        return {name: environments[name] for name in graphlib.TopologicalSorter(needs).static_order()}
    except graphlib.CycleError as error:
        raise NotUnderstood(f"The environments {' -> '.join(error.args[1])} need each other.") from None


def _check(spec: Spec, source: str) -> None:
    task = spec.model.task
    check_name(spec.model.name, "name of a model")
    if spec.model.name in RESERVED:
        raise NotUnderstood(f"{source}: a model cannot be called {spec.model.name!r}: a page has this address.")
    for dataset in spec.data.values():
        check_name(dataset, "name of a dataset")
    _check_losses(spec, source)
    losses, metrics = (*LOSSES[task], *spec.losses), (*METRICS[task], *spec.losses)
    if spec.rollout.primary not in losses:
        raise NotUnderstood(
            f"{source}: [rollout] primary = {spec.rollout.primary!r} is no loss of a {task} model.",
            todo=f"Use one of {', '.join(losses)}, or define it in [losses].",
        )
    for place, names in (("gates", spec.gates.metrics), ("gates.segments.worst", spec.gates.segments.worst)):
        for metric in names:
            if metric not in metrics:
                raise NotUnderstood(
                    f"{source}: [{place}] {metric!r} is no metric of a {task} model.",
                    todo=f"Use one of {', '.join(metrics)}.",
                )
    for metric in spec.rollout.guardrails:
        if metric not in losses:
            raise NotUnderstood(f"{source}: [rollout.guardrails] {metric!r} is no loss of a {task} model.")
    for name, rule in spec.rollout.business.items():
        _check_business(spec, name, rule, f"{source}: [rollout.business.{name}]")
    _check_durations(spec, source)
    _check_windows(spec, f"{source}: [triggers] windows = {list(spec.triggers.windows)}")
    for change in CHANGES:
        _check_shares(getattr(spec.rollout, change), f"{source}: [rollout.{change}]")
    _check_environments(spec, source)
    if spec.triggers.schedule:
        from croniter import croniter

        if not croniter.is_valid(spec.triggers.schedule):
            raise NotUnderstood(f"{source}: [triggers] schedule = {spec.triggers.schedule!r} is not a cron expression.")


def _check_business(spec: Spec, name: str, metric: Business, place: str) -> None:
    check_name(name, "name of a business metric")
    burdens = [getattr(spec.rollout, change) for change in CHANGES]
    if name in {one for names in METRICS.values() for one in names} | set(spec.losses):
        raise NotUnderstood(f"{place} has the name of a loss.", todo="Give it another.")
    if not metric.low < metric.high:
        raise NotUnderstood(f"{place} low = {metric.low:g} is not below high = {metric.high:g}.")
    if metric.margin >= metric.high - metric.low:
        raise NotUnderstood(f"{place} margin = {metric.margin:g} tolerates everything between low and high.")
    if metric.delay:
        parse_duration(metric.delay)
    if metric.by == "unit":
        if not metric.low <= metric.absent <= metric.high:
            raise NotUnderstood(f"{place} absent = {metric.absent:g} is not between low and high.")
        if not spec.model.entity:
            raise NotUnderstood(f"{place} needs [model] entity.", todo="Name the column that values come for.")
        if not any(burden.ab for burden in burdens):
            raise NotUnderstood(
                f"{place} compares the units of an A/B, and no change has one.",
                todo='Set ab in [rollout.redesign] or [rollout.refresh], or by = "day".',
            )
    elif not any(parse_duration(burden.guard) for burden in burdens):
        raise NotUnderstood(f"{place} is looked at while a former champion is on guard, and none is.")


def _check_losses(spec: Spec, source: str) -> None:
    taken = {metric for names in METRICS.values() for metric in names} | set(Gates.__struct_fields__) | {"said", "seen"}
    for name, loss in spec.losses.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) or name in taken:
            raise NotUnderstood(
                f"{source}: [losses] {name!r} cannot be the name of a loss.",
                todo="Use lower-case letters, digits and underscores, and no name that orrery has given already.",
            )
        module, _, function = loss.function.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), function)):
            raise NotUnderstood(
                f"{source}: [losses.{name}] function = {loss.function!r} names no function of the project.",
                todo='Write "module:function".',
            )


def _check_durations(spec: Spec, source: str) -> None:
    rollout = spec.rollout
    texts = [spec.model.label_delay, spec.triggers.cooldown, spec.monitors.every, spec.serving.timeout]
    texts += [spec.triggers.upkeep, rollout.probation.time]
    texts += [spec.resources.wall, spec.resources.tests_wall]
    for burden in (rollout.redesign, rollout.refresh, rollout.repair):
        texts += [burden.min, burden.max, burden.guard, burden.window]
    for text in texts:
        parse_duration(text)
    if parse_duration(spec.monitors.every).total_seconds() < 1:
        raise NotUnderstood(f"{source}: [monitors] every is less than a second.")
    try:
        share = float(spec.gates.holdout)
    except ValueError:
        parse_duration(spec.gates.holdout)
        if not spec.model.time:
            raise NotUnderstood(
                f"{source}: [gates] holdout = {spec.gates.holdout!r} needs [model] time.",
                todo="Name the column with the event time, or give a share such as 0.2.",
            ) from None
    else:
        if not 0 < share < 1:
            raise NotUnderstood(f"{source}: [gates] holdout = {share} is not a share between 0 and 1.")


def _check_windows(spec: Spec, place: str) -> None:
    windows = spec.triggers.windows
    if not windows:
        return
    lengths = [window_length(window) for window in windows]
    if any(length is None and window != ALL for length, window in zip(lengths, windows, strict=True)):
        raise NotUnderstood(f"{place} has a window without rows.", todo=f'Write "{ALL}" for every row.')
    if len(set(lengths)) < len(lengths):
        raise NotUnderstood(f"{place} has the same window twice.", todo="Name each once.")
    if len(windows) < 2:
        raise NotUnderstood(f"{place} leaves nothing to choose.", todo="Name several, or set [rollout.refresh] window.")
    if window_length(spec.rollout.refresh.window) is not None:
        raise NotUnderstood(
            f"{place} and [rollout.refresh] window = {spec.rollout.refresh.window!r} answer the same question.",
            todo="Leave one out.",
        )
    if not spec.model.time:
        raise NotUnderstood(f"{place} needs [model] time.", todo="Name the column that says when a row happened.")


def _check_shares(burden: Burden, place: str) -> None:
    shares = [parse_share(text) for text in burden.canary]
    if any(one >= other for one, other in itertools.pairwise(shares)):
        raise NotUnderstood(f"{place} canary = {list(burden.canary)} does not grow.", todo='Write ["5%", "25%"].')
    if burden.ab and parse_share(burden.ab) == 1:
        raise NotUnderstood(f"{place} ab = {burden.ab!r} leaves nothing to compare with.", todo='Write "50%".')
    if burden.ab and burden.shadow:
        raise NotUnderstood(f"{place} has both shadow and ab: two proofs of the same.", todo="Leave one out.")


def _check_environments(spec: Spec, source: str) -> None:
    if PRODUCTION not in spec.environments:
        raise NotUnderstood(f"{source}: [environments] has no production.")
    seen: list[str] = []
    for name, environment in spec.environments.items():
        check_name(name, "name of an environment")
        for need in environment.needs:
            if need in seen or need in ("tests", "gates", "review") or need.startswith("review:"):
                continue
            raise NotUnderstood(
                f"{source}: [environments.{name}] needs {need!r}, which is nothing known.",
                todo=f"Use tests, gates, review, review:ROLE or an environment ({', '.join(spec.environments)}).",
            )
        seen.append(name)
    if seen[-1] != PRODUCTION:
        raise NotUnderstood(f"{source}: [environments.{seen[-1]}] does not lead to production.")
