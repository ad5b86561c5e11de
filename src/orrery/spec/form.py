"""What a project file may say, and what holds where it is silent."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from orrery.types import MonitorName, Task

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

RESERVED = frozenset(
    ("api", "data", "docs", "git", "hooks", "index", "issues", "mlflow", "reviews", "schema", "static")
)
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

    needs: Annotated[
        tuple[str, ...],
        Meta(description="tests, gates, review, review:ROLE (a sign-off, such as review:legal) or an environment."),
    ] = ()
    four_eyes: Annotated[
        bool,
        Meta(
            description="Who wrote or pushed the commit, asked for the training or for the release cannot approve it, "
            "under none of their names. It proves something where access is required."
        ),
    ] = False
    review_within: Annotated[
        Duration,
        Meta(
            description="How long a review may wait; then it is overdue, and its reviewers are reminded once in each "
            "such time that it waits on. 0s: as long as it takes."
        ),
    ] = "0s"
    emergency: Annotated[
        bool,
        Meta(
            description="In an emergency an operator may let a version in without its reviews: `orrery override`. "
            "Everybody who reviews is told, and an issue asks for the review afterwards."
        ),
    ] = False


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
            description="`unit`: values come for entities, and the units of an A/B or a canary are compared; `day`: "
            "for whole days, and those after a promotion are compared with those before, while the former champion is "
            "on guard.",
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
    """What new data and decay are weighed by."""

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
    weigh: Annotated[
        bool,
        Meta(description="Decay trains only where what it costs in 30 days is more than a training ([triggers.cost])."),
    ] = True
    erasure: Annotated[bool, Meta(description="A subject was erased whose rows the champion learned from.")] = True
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
    network: Annotated[
        tuple[Annotated[str, Meta(pattern="^(tests|training)$")], ...],
        Meta(description="Steps whose processes reach other machines, by a proxy: tests, training. Others reach none."),
    ] = ()


class Privacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What personal data are processed for: the record of processing says it (`orrery privacy record`)."""

    purpose: Annotated[str, Meta(description="What for, in words; default: [model] objective.")] = ""
    legal_basis: Annotated[
        str,
        Meta(
            pattern="^(consent|contract|legal_obligation|vital_interests|public_task|legitimate_interests)?$",
            description="Why it may be done, as article 6 of the GDPR has it: consent, contract, legal_obligation, "
            "vital_interests, public_task, legitimate_interests.",
        ),
    ] = ""
    controller: Annotated[str, Meta(description="Who answers for it, and how to reach them.")] = ""
    recipients: Annotated[tuple[str, ...], Meta(description="Who gets the answers or the data.")] = ()
    retention: Annotated[
        Duration,
        Meta(
            description="How long predictions, labels and values of business metrics are kept; 0s: without end. Rows "
            "of datasets are kept as long as their contract says."
        ),
    ] = "0s"


Handed = Annotated[
    tuple[Annotated[str, Meta(pattern="^(build|tests|training)$")], ...],
    Meta(min_length=1, description="Actions that get it, as the variable SECRET_NAME: build, tests, training."),
]


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
    secrets: Annotated[
        dict[str, Handed],
        Meta(
            description='Secrets of the project, and which actions get them: `warehouse = "training"`, or '
            '`["tests", "training"]`. [How](../secrets.md).'
        ),
    ] = {}
    privacy: Privacy = Privacy()
