"""Counters of the inference server, in the text format that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of the request durations, in seconds."""

Labels = tuple[str, ...]


class Counter:
    """A number that only grows, one for each set of labels.

    Parameters
    ----------
    name, what : name and description of the metric.
    labels : names of its labels.
    """

    def __init__(self, name: str, what: str, labels: Labels = ()) -> None:
        self.name, self.what, self.labels = name, what, labels
        self.values: dict[Labels, int] = {}

    def add(self, labels: Labels = (), amount: int = 1) -> None:
        """Count on."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self) -> Iterable[str]:
        """Yield the lines of the text format."""
        yield f"# HELP {self.name} {self.what}"
        yield f"# TYPE {self.name} counter"
        for labels, value in self.values.items():
            yield f"{self.name}{_braces(self.labels, labels)} {value}"


class Histogram:
    """How long things took, in seconds, one distribution for each set of labels."""

    def __init__(self, name: str, what: str, labels: Labels = ()) -> None:
        self.name, self.what, self.labels = name, what, labels
        self.values: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = {}

    def add(self, labels: Labels, seconds: float, times: int = 1) -> None:
        """Count one duration, or several that were the same."""
        counts = self.values.get(labels)
        if counts is None:
            counts = self.values[labels] = [0] * (len(BUCKETS) + 1)
            self.sums[labels] = 0.0
        counts[bisect_left(BUCKETS, seconds)] += times
        self.sums[labels] += seconds * times

    def lines(self) -> Iterable[str]:
        """Yield the lines of the text format."""
        yield f"# HELP {self.name} {self.what}"
        yield f"# TYPE {self.name} histogram"
        for labels, counts in self.values.items():
            so_far = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                so_far += count
                yield f"{self.name}_bucket{_braces((*self.labels, 'le'), (*labels, bound))} {so_far}"
            yield f"{self.name}_sum{_braces(self.labels, labels)} {self.sums[labels]:.6f}"
            yield f"{self.name}_count{_braces(self.labels, labels)} {so_far}"


_MODEL = ("model_name",)
_VERSION = ("model", "version")
_ROLE = ("model", "environment", "version", "role")


class Metrics:
    """Everything this server counts."""

    def __init__(self) -> None:
        self.requests = Counter("orrery_requests_total", "Requests by who answered and the status.", (*_ROLE, "code"))
        self.durations = Histogram(
            "orrery_request_duration_seconds", "From a request's last byte to its answer.", ("model", "environment")
        )
        self.preprocess = Histogram("request_preprocess_seconds", "Holding requests to the contract.", _MODEL)
        self.predict = Histogram("request_predict_seconds", "Predicting.", _MODEL)
        self.postprocess = Histogram("request_postprocess_seconds", "Writing predictions down and giving them.", _MODEL)
        self.explain = Histogram("request_explain_seconds", "Explaining predictions.", _MODEL)
        self.predictions = Counter("orrery_predictions_total", "Rows predicted.", _ROLE)
        self.broken = Counter("orrery_broken_rows_total", "Rows that break the contract.", _ROLE)
        self.shed = Counter("orrery_shadow_shed_total", "Requests that found a challenger's queue full.", _ROLE)
        self.shadow_failures = Counter("orrery_shadow_failures_total", "Requests that a challenger failed on.", _ROLE)
        self.taken_back = Counter("orrery_taken_back_total", "Versions that this server took back by itself.", _ROLE)
        self.restarts = Counter(
            "orrery_model_restarts_total", "Ends of model processes that were not ordered.", _VERSION
        )
        self.journal_rows = Counter("orrery_journal_rows_total", "Rows written to the prediction journal.")
        self.journal_lost = Counter("orrery_journal_lost_rows_total", "Answered rows that the journal could not take.")

    def text(self) -> str:
        """Return all counters in the text format."""
        return "\n".join(line for metric in vars(self).values() for line in metric.lines()) + "\n"


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
