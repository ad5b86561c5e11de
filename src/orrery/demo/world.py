"""The world around one model: feeds that bring rows and labels, and callers who ask; in a process of its own.

A world has its own processor time, as it has outside of a demo: what airlines send is not written and asked by the
process that keeps the calendar.
"""

from __future__ import annotations

import contextlib
import signal
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from multiprocessing import get_context
from pathlib import Path

import httpx
import msgspec
import polars as pl

from orrery.app import Orrery
from orrery.demo import flights
from orrery.errors import OrreryError
from orrery.settings import Settings

ROWS_PER_REQUEST = 250
HEADERS = {"Content-Type": "application/json", "Prefer": "wait-shadow"}


@dataclass
class Model:
    """A model that the year is played to.

    Parameters
    ----------
    name, dataset : as orrery knows them.
    told : the year as the feeds tell it.
    checkout : working copy of its project.
    incidents : whether the three incidents are injected.
    """

    name: str
    dataset: str
    told: pl.DataFrame
    checkout: Path
    incidents: bool


class World:
    """What happens to one model from outside.

    Parameters
    ----------
    settings : of the orrery.
    model : whose world it is.
    """

    def __init__(self, settings: Settings, model: Model) -> None:
        self._orrery = Orrery(settings)
        self._model = model
        self._serving = httpx.Client(base_url=settings.serving_url, timeout=60)
        self._said: dict[date, pl.DataFrame] = {}
        self._by_day = {day: flights.on(model.told, day) for day in flights.days(model.told)}

    def begin(self, first: date, last: date) -> None:
        """Bring the data that the first version is trained on."""
        model, rows = self._model, flights.on(self._model.told, first, last)
        why = f"Flights of {first:%B %Y}"
        self._orrery.add_data(model.dataset, rows, why=why, actor="feed", key=f"{model.dataset}-first")

    def play(self, day: date, morning: datetime) -> None:
        """Send a day's requests, and bring what became known of it by the next morning: rows, labels, a metric.

        What waits for another process does not keep the rest from being done.
        """
        landed = self._day(day)
        with ThreadPoolExecutor(1) as beside:
            rows = beside.submit(self._bring_rows, day, morning, landed)
            self._ask(day)
            rows.result()
            metric = beside.submit(self._bring_metric, day, morning, landed)
            self._bring_labels(day, morning, landed)
            metric.result()

    def _bring_rows(self, day: date, morning: datetime, landed: pl.DataFrame) -> None:
        if len(landed):
            said = {"why": f"Flights of {day}", "actor": "feed", "key": f"{self._model.dataset}-{day}"}
            self._orrery.add_data(self._model.dataset, landed, occurred_at=morning, **said)

    def _bring_labels(self, day: date, morning: datetime, landed: pl.DataFrame) -> None:
        name = self._model.name
        labels = flights.labels_for(landed, day).select(
            entity="flight_id", label="late", at=pl.lit(morning).cast(pl.Datetime("us", "UTC"))
        )
        if len(landed):
            self._orrery.add_labels(name, labels, actor="feed", key=f"{name}-{day}")

    def _bring_metric(self, day: date, morning: datetime, landed: pl.DataFrame) -> None:
        name, said = self._model.name, self._said.pop(day, None)
        if len(landed) and said is not None:
            value = flights.unwarned_wait(landed.join(said, on="flight_id", how="left"))
            counted = pl.DataFrame({"entity": [str(day)], "label": [value], "at": [morning]})
            self._orrery.add_values(name, flights.UNWARNED, counted, key=f"{name}-{day}")

    def _ask(self, day: date) -> None:
        """Send a day's requests to the inference server, and wait until the challengers have seen them too."""
        requests = flights.requests_for(self._day(day), day)
        said: list[float] = []
        for number, part in enumerate(requests.iter_slices(ROWS_PER_REQUEST)):
            body = {"id": f"{part['flight_id'][0]}.{number}", "inputs": [_tensor(one) for one in part.get_columns()]}
            path = f"/v2/models/{self._model.name}/infer"
            answer = self._serving.post(path, content=msgspec.json.encode(body), headers=HEADERS)
            if answer.status_code != 200:
                raise OrreryError(f"{self._model.name} did not answer: {answer.status_code} {answer.text[:500]}")
            said += msgspec.json.decode(answer.content)["outputs"][0]["data"]
        self._said[day] = requests.select("flight_id", said=pl.Series(said, dtype=pl.Float64))

    def _day(self, day: date) -> pl.DataFrame:
        """Return the flights of a day, none where the year has none."""
        return self._by_day.get(day, self._model.told.clear())


class Apart:
    """A :class:`World` in a process of its own; what it is told is done there, in order.

    Parameters
    ----------
    settings, model : as of :class:`World`.
    """

    def __init__(self, settings: Settings, model: Model) -> None:
        # A fork would inherit held locks.
        self._process = ProcessPoolExecutor(1, get_context("spawn"), _open, (settings, model))

    def begin(self, first: date, last: date) -> Future[None]:
        """See :meth:`World.begin`."""
        return self._process.submit(_do, "begin", first, last)

    def play(self, day: date, morning: datetime) -> Future[None]:
        """See :meth:`World.play`."""
        return self._process.submit(_do, "play", day, morning)

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


_world: World


def _open(settings: Settings, model: Model) -> None:
    global _world
    end_with_parent()
    _world = World(settings, model)


def _do(what: str, *words: date) -> None:
    getattr(_world, what)(*words)


def _tensor(series: pl.Series) -> dict[str, object]:
    """Return a column in the form of the Open Inference Protocol."""
    values = series.cast(pl.Float64) if series.dtype.is_numeric() else series
    if series.dtype == pl.Datetime("us", "UTC"):
        values = series.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    kind = "FP64" if series.dtype.is_numeric() else "BYTES"
    return {"name": series.name, "shape": [len(series)], "datatype": kind, "data": values.to_list()}


def end_with_parent() -> None:
    """Let this process end when the demo is killed: nobody else would."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
