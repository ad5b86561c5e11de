"""A model with a year behind it, written down event by event, and the control plane over it on a port of its own."""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from orrery import spec
from orrery.app import Orrery
from orrery.settings import Settings, load
from orrery.timeline.clock import ReplayClock
from orrery.timeline.event import Draft
from orrery.types import format_instant
from orrery.web.server import create

MODEL = "flight-delay"
START = datetime(2013, 2, 1, 4, tzinfo=UTC)
PROJECT = spec.to_dict(
    spec.parse(
        """
        [model]
        name = "flight-delay"
        task = "binary"
        target = "late"
        time = "scheduled"
        entity = "flight_id"
        owner = "nora"
        objective = "Say before departure how likely a flight from New York is to arrive more than 15 minutes late."
        label_delay = "1d"
        segments = ["carrier"]
        [data]
        flights = "flights"
        [environments.staging]
        needs = ["tests", "gates"]
        [environments.production]
        needs = ["staging", "review:quality"]
        [rollout]
        primary = "brier"
        [rollout.business.delays]
        by = "day"
        better = "lower"
        low = 0
        high = 2000
        [monitors]
        every = "1d"
        [serving]
        broken = "mask"
        timeout = "2s"
        """
    )
)
CONTRACT = {
    "columns": {
        "carrier": {
            "type": "string",
            "nulls": 0.0,
            "categories": ["AA", "B6", "DL", "EV", "HA", "MQ", "UA", "US", "WN"],
        },
        "temp": {"type": "number", "min": 10.0, "max": 110.0},
        "distance": {"type": "integer", "min": 80.0, "max": 4983.0},
        "late": {"type": "boolean"},
    },
    "ordered": [["temp", "distance"]],
}


class History:
    """Writes what happened to one model on the days of a year.

    Parameters
    ----------
    orrery : an orrery whose clock is a replay.
    name : of the model.
    """

    def __init__(self, orrery: Orrery, name: str = MODEL) -> None:
        assert isinstance(orrery.clock, ReplayClock)
        self.orrery, self.name, self.clock = orrery, name, orrery.clock
        self.look = 0
        self.chance = random.Random(7)

    def at(self, day: float) -> datetime:
        """Move the clock to a day of the history."""
        instant = START + timedelta(days=day)
        self.clock.set(instant)
        return instant

    def add(
        self,
        kind: str,
        why: str,
        *,
        actor: str = "orrery",
        version: int | None = None,
        environment: str = "",
        **data: Any,
    ) -> None:
        """Append one event."""
        draft = Draft(
            kind=kind, actor=actor, why=why, model=self.name, version=version, environment=environment, data=data
        )
        self.orrery.append([draft])

    def data(self, day: float) -> None:
        """Let a dataset come into being."""
        self.at(day)
        drafts = [
            Draft(
                kind="contract_changed",
                actor="nora",
                why="Inferred from the first 27004 rows.",
                data={"dataset": "flights", "contract": CONTRACT, "digest": "c0"},
            ),
            Draft(
                kind="data_added",
                actor="nora",
                why="January.",
                data={"dataset": "flights", "version": 1, "rows": 27004, "digest": "d1", "quarantined": 0},
            ),
        ]
        self.orrery.append(drafts)

    def aside(self, day: float, rows: int, reason: str) -> None:
        """Set rows of the dataset aside."""
        self.at(day)
        facts = {"dataset": "flights", "rows": rows, "reasons": {reason: rows}, "version": 1}
        self.orrery.append([Draft(kind="quarantined", actor="feed", why=f"{rows} rows: {reason}.", data=facts)])

    def push(self, day: float, commit: str, message: str, *, author: str = "nora") -> None:
        """Push, build and test a commit."""
        self.at(day)
        facts = {"commit": commit, "branch": "main", "message": message, "author": author, "spec": PROJECT}
        self.add("pushed", f"Pushed: {message}", actor=author, **facts)
        self.add(
            "built",
            "The environment is locked: 31 packages, 4.2 s.",
            actor="orrery/build",
            commit=commit,
            lock="10ck",
            python="/venvs/10ck/bin/python",
            packages=31,
            seconds=4.2,
            cached=False,
        )
        for environment in ("development", "staging"):
            self.add(
                "tested",
                "Tests: 14 passed, 3.2 s.",
                actor="orrery/build",
                environment=environment,
                commit=commit,
                passed=14,
                seconds=3.2,
                output="14 passed in 3.2s",
            )

    def train(
        self,
        day: float,
        number: int,
        commit: str,
        change: str,
        reason: str,
        why: str,
        *,
        loss: float,
        passed: bool = True,
    ) -> None:
        """Ask for a training, train, and judge."""
        self.at(day)
        run = f"run{number:03d}"
        data = {"flights": 1}
        self.add(
            "triggered",
            why,
            actor="orrery/triggers",
            run=run,
            reason=reason,
            change=change,
            commit=commit,
            data=data,
            evidence={},
            mark=run,
        )
        self.add(
            "trained",
            f"Version {number} of {commit[:7]} on flights@v1: {change}, because {reason}. {why}",
            actor="orrery/training",
            version=number,
            run=run,
            commit=commit,
            change=change,
            data=data,
            parent=number - 1 or None,
            params={"depth": 6, "seed": 0, "learning_rate": 0.1},
            steps=[{"name": "features", "seconds": 0.4, "why": "from the cache"}, {"name": "model", "seconds": 4.1}],
            metrics={"brier": loss, "log_loss": loss * 3.1},
            artifact=f"artifacts/1/{run}/artifacts/model",
            tracking_run=f"{number:032x}",
            cpu_seconds=8.4,
            seconds=4.5,
            rows=27004,
            expected_loss=loss + 0.004,
            trained_until=format_instant(self.clock.now()),
        )
        gates: dict[str, Any] = {
            "brier": {
                "verdict": "passed" if passed else "refused",
                "why": f"brier {loss:.4g} (version {number - 1} 0.1391, better by 0.0071 [0.003, 0.0112])."
                if passed
                else f"brier {loss:.4g} (version {number - 1} 0.1391, worse by 0.0312 [0.026, 0.037]): "
                "worse than the champion by more than 0.002.",
                "numbers": {
                    "value": loss,
                    "rows": 6120,
                    "champion": 0.1391,
                    "gain": 0.0071,
                    "low": 0.003,
                    "high": 0.0112,
                },
            },
            "segments": {
                "verdict": "passed",
                "why": "8 segments hold; the worst is carrier=EV at 0.174. 1 too small to tell: carrier=HA (n=31)",
                "numbers": {
                    "segments": [
                        {
                            "segment": f"carrier={name}",
                            "rows": 400 + 31 * place,
                            "loss": 0.12 + 0.006 * place,
                            "champion": 0.128 + 0.006 * place,
                            "gain": 0.008,
                            "low": -0.001,
                            "high": 0.017,
                        }
                        for place, name in enumerate(("AA", "B6", "DL", "EV", "MQ", "UA", "US", "WN"))
                    ],
                    "insufficient": ["carrier=HA (n=31)"],
                },
            },
            "latency": {
                "verdict": "passed",
                "why": "One row takes 0.6 ms, 99 of 100 at most 0.9 ms; the limit is 50 ms.",
                "numbers": {"p50_ms": 0.6, "p99_ms": 0.9, "limit_ms": 50.0, "rows": 180},
            },
        }
        why = "Passed 3 of 3." if passed else f"Refused. brier: {gates['brier']['why']}"
        self.add("gated", why, actor="orrery/gates", version=number, passed=passed, gates=gates)

    def review(self, day: float, number: int) -> None:
        """Ask for a review."""
        self.at(day)
        self.add(
            "review_requested",
            "production needs a review of quality.",
            actor="orrery/rollout",
            version=number,
            environment="production",
            role="quality",
        )

    def approve(self, day: float, number: int, why: str) -> None:
        """Approve."""
        self.at(day)
        self.add("approved", why, actor="mara", version=number, environment="production", role="quality")

    def promote(self, day: float, number: int, environment: str, why: str, *, former: int | None = None) -> None:
        """Make a version champion; the former one goes on guard."""
        at = self.at(day)
        self.add("promoted", why, actor="orrery/rollout", version=number, environment=environment, previous=former)
        if former is not None and environment == "production":
            until = format_instant(at + timedelta(days=14))
            self.add(
                "challenged",
                f"Stays in shadow until {until[:10]}.",
                actor="orrery/rollout",
                version=former,
                environment=environment,
                role="guard",
                until=until,
                change="",
            )
        elif former is not None:
            self.add(
                "retired", f"Version {number} took over.", version=former, environment=environment, role="champion"
            )

    def retire(self, day: float, number: int, why: str, role: str = "guard") -> None:
        """Let a version leave production."""
        self.at(day)
        self.add("retired", why, actor="orrery/rollout", version=number, environment="production", role=role)

    def watch(self, first: int, last: int, number: int, base: float, slope: float = 0.0) -> None:
        """Look at production once a day."""
        quiet = {"statistic": 0.25, "promise": 1000, "insufficient": False, "severity": {}}  # as older ones had it
        drafts = []
        for day in range(first, last):
            at = START + timedelta(days=day)
            self.look += 1
            season = 0.012 * math.sin(day / 22) + self.chance.gauss(0, 0.006)
            loss = round(base + season + slope * (day - first), 5)
            seen = round(0.22 + 3 * season + self.chance.gauss(0, 0.01), 4)
            drafts.append(
                Draft(
                    kind="watched",
                    actor="orrery/monitors",
                    why=f"Look {self.look}: 890 requests and 870 matured labels; no alarm.",
                    model=self.name,
                    version=number,
                    environment="production",
                    occurred_at=at,
                    data={
                        "look": self.look,
                        "since": format_instant(at - timedelta(days=1)),
                        "until": format_instant(at),
                        "rows": 890,
                        "labelled": 870,
                        "monitors": {"features": quiet, "decay": {**quiet, "insufficient": True, "why": "9 labels."}},
                        "state": "",
                        "metrics": {"brier": loss, "said": round(seen - slope * (day - first) * 2, 4), "seen": seen},
                    },
                )
            )
        self.at(last - 1)
        self.orrery.append(drafts)

    def alarm(self, day: float, number: int, monitor: str, why: str) -> None:
        """Let a monitor fire."""
        self.at(day)
        facts = {
            "monitor": monitor,
            "statistic": 1204.0,
            "promise": 1000,
            "blame": {},
            "look": self.look,
            "reason": "drift",
        }
        self.add("alarmed", why, actor=f"orrery/monitors/{monitor}", version=number, environment="production", **facts)
        issue = {"issue": f"{monitor}{self.look}", "title": why, "owner": "nora"}
        self.add(
            "issue_opened", why, actor=f"orrery/monitors/{monitor}", version=number, environment="production", **issue
        )

    def quiet(self, day: float, number: int, monitor: str) -> None:
        """Let the cause of an alarm go."""
        self.at(day)
        self.add(
            "quieted", "The cause of the alarm is gone.", version=number, environment="production", monitor=monitor
        )


A, B, C = ("3f2c1ab" + "0" * 33, "9be41d0" + "1" * 33, "c0ffee5" + "2" * 33)


def a_year(history: History, *, end: float = 180) -> None:
    """Write half a year of a model with five versions: one refused, one rolled back, one waiting for a review."""
    history.data(-1)
    history.push(0, A, "First model")
    history.train(0.1, 1, A, "redesign", "push", "A commit arrived: 3f2c1ab.", loss=0.148)
    history.promote(0.2, 1, "staging", "All that staging needs is there: tests, gates.")
    history.review(0.2, 1)
    history.approve(0.5, 1, "Calibrated on January, and the segments hold.")
    history.promote(0.6, 1, "production", "Approved by mara: Calibrated on January, and the segments hold.")
    history.watch(1, 45, 1, 0.142, 0.0002)
    history.alarm(44, 1, "calibration", "Says .21, is .31; promised 1 false alarm in 1000 looks.")
    history.train(44.1, 2, A, "refresh", "drift", "calibration: says .21, is .31.", loss=0.139)
    history.promote(44.2, 2, "staging", "All that staging needs is there.", former=1)
    history.promote(44.3, 2, "production", "By policy 'refresh', approved by mara, 2013-02-01.", former=1)
    history.watch(45, 59, 2, 0.134)
    history.retire(58.3, 1, "The guard period is over; version 2 stays.")
    history.add("business", "Summer schedule starts", actor="nora")
    history.watch(59, 85, 2, 0.134)
    history.aside(84, 120, "temp is below 10")
    history.push(86, B, "Use the departure delay", author="olaf")
    history.train(86.1, 3, B, "redesign", "push", "A commit arrived: 9be41d0.", loss=0.171, passed=False)
    history.add(
        "issue_opened",
        "The gates refused version 3.",
        actor="orrery/gates",
        version=3,
        issue="gates3",
        title="The gates refused version 3. It leaks the target.",
        owner="olaf",
    )
    history.watch(87, 110, 2, 0.134, 0.0009)
    history.alarm(109, 2, "decay", "Brier 0.158 on the last 5200 labels, promised 0.143.")
    history.add(
        "not_triggered",
        "decay: held back: the last training began 2013-05-01, cooldown 7d.",
        actor="orrery/triggers",
        environment="production",
        cause="decay",
        reason="decay",
        until=format_instant(START + timedelta(days=111)),
        evidence={},
    )
    history.train(111, 4, A, "refresh", "decay", "decay: Brier 0.158, promised 0.143.", loss=0.136)
    history.promote(111.1, 4, "staging", "All that staging needs is there.", former=2)
    history.promote(111.2, 4, "production", "By policy 'refresh', approved by mara, 2013-02-01.", former=2)
    history.watch(112, 120, 4, 0.163)
    history.at(120)
    history.add(
        "rolled_back",
        "The former champion is proven better: lower by 0.0213 [0.0101, 0.0325].",
        actor="orrery/rollout",
        version=2,
        environment="production",
        previous=4,
    )
    history.add(
        "retired",
        "Rolled back to version 2.",
        actor="orrery/rollout",
        version=4,
        environment="production",
        role="champion",
    )
    history.add("business", "Storm over the north-east", actor="nora")
    history.watch(121, int(end) - 12, 2, 0.139)
    history.push(end - 12, C, "Weather at the destination")
    history.train(end - 11.9, 5, C, "redesign", "push", "A commit arrived: c0ffee5.", loss=0.131)
    history.promote(end - 11.8, 5, "staging", "All that staging needs is there.", former=4)
    history.review(end - 11.8, 5)
    history.watch(int(end) - 11, int(end) + 1, 2, 0.139)


def opened(folder: Path) -> Orrery:
    """Open an orrery whose clock is a replay."""
    if not (folder / "clock").exists():
        (folder / "clock").write_text(format_instant(START - timedelta(days=2)))
    return Orrery(load(home=folder))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an orrery with half a year behind it, to be copied."""
    folder = tmp_path_factory.mktemp("year")
    orrery = opened(folder)
    a_year(History(orrery))
    orrery.timeline.engine.dispose()
    return folder


@pytest.fixture
def orrery(home: Settings, request: pytest.FixtureRequest) -> Iterator[Orrery]:
    """An orrery whose clock is a replay: with half a year behind it for who asks for ``year``, else empty."""
    if "year" in request.fixturenames:
        shutil.copytree(request.getfixturevalue("written"), home.home, dirs_exist_ok=True)
    made = opened(home.home)
    yield made
    made.timeline.engine.dispose()


@pytest.fixture
def year(orrery: Orrery) -> Orrery:
    """Half a year of a model with five versions."""
    return orrery


@pytest.fixture
def history(orrery: Orrery) -> History:
    """Something to write a history with."""
    return History(orrery)


@pytest.fixture
def address(orrery: Orrery) -> Iterator[str]:
    """The control plane, answering on a loopback port of its own."""
    with answering(orrery) as found:
        yield found


@contextlib.contextmanager
def answering(orrery: Orrery) -> Iterator[str]:
    """Let a control plane answer, and give its address."""
    where: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "proxy_headers": False}
    config = uvicorn.Config(create(orrery), loop="asyncio", log_level="error", lifespan="off", **where)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def web(address: str) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        yield client
