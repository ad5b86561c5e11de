"""Appends per second of the timeline, and what reading costs among ten thousand and a million events.

``python benchmarks/timeline.py`` prints two tables; ``--write`` keeps them in ``benchmarks/results/timeline.md``.

The peer for scale is the database itself: the same rows through plain ``sqlite3`` inserts (or ``psycopg``), in the same
transactions, without chain, hashes, checks and triggers. The two take turns.
"""

from __future__ import annotations

import argparse
import glob
import os
import platform
import pwd
import shlex
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from orrery.timeline import schema
from orrery.timeline.clock import SystemClock
from orrery.timeline.event import Draft
from orrery.timeline.states import States
from orrery.timeline.store import Timeline, connect, events
from orrery.timeline.verify import verify

MODELS, PAGE = 1000, 50
RESULTS = Path(__file__).parent / "results" / "timeline.md"
START = datetime(2013, 1, 1, tzinfo=UTC)
SPEC = {"model": {"name": "m", "task": "binary", "target": "late", "owner": "nora"}, "data": {"flights": "flights"}}
Row = dict[str, Any]


def draft(model: str, place: int) -> Draft:
    """Return the event of a model's life at a place: pushed, then a training every fifty events, looks in between."""
    when, version = START + timedelta(hours=place), place // 50 + 1
    sha, run = f"{version:040x}", f"run{version}"
    common: Row = {"actor": "orrery/watch", "model": model, "occurred_at": when}
    data = {"flights": version}
    opening: list[Draft] = [
        Draft(kind="pushed", why="A push.", data={"commit": sha, "spec": SPEC, "author": "ann"}, **common),
        Draft(
            kind="triggered",
            why="The schedule was due.",
            data={"run": run, "reason": "schedule", "change": "refresh", "commit": sha, "data": data},
            **common,
        ),
        Draft(
            kind="trained",
            why="A refresh.",
            version=version,
            data={"run": run, "commit": sha, "change": "refresh", "data": data, "metrics": {"brier": 0.16}},
            **common,
        ),
        Draft(kind="gated", why="Passed.", version=version, data={"passed": True, "gates": {}}, **common),
        Draft(kind="promoted", why="By policy.", version=version, environment="production", data={}, **common),
    ]
    if place % 50 < len(opening):
        return opening[place % 50]
    facts = {
        "look": place,
        "since": when.isoformat(),
        "until": when.isoformat(),
        "rows": 900 + place,
        "labelled": 850,
        "metrics": {"brier": 0.161 + place * 1e-6, "log_loss": 0.49, "calibration": 0.012},
        "monitors": {name: {"statistic": 1.25, "promise": "e-process"} for name in ("calibration", "decay", "temp")},
        "state": "c3RhdGU" * 30,
    }
    return Draft(
        kind="watched", why="A look at production.", version=version, environment="production", data=facts, **common
    )


def percentiles(seconds: list[float]) -> str:
    """Return p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1000:.2f} / {ordered[int(0.99 * (len(ordered) - 1))] * 1000:.2f}"


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def fresh(url: str) -> Timeline:
    engine = connect(url)
    schema.upgrade(engine)
    return Timeline(engine, SystemClock())


@contextmanager
def plain(kind: str, url: str) -> Iterator[Callable[[list[Row]], None]]:
    """Give a function that inserts rows in one transaction, into a table with the same columns and indexes."""
    columns = [column.name for column in events.columns]
    table = f"CREATE TABLE plain ({', '.join(columns)}, PRIMARY KEY (seq), UNIQUE (id))"
    indexes = ["CREATE INDEX pm ON plain (model, seq)", "CREATE INDEX pk ON plain (model, kind, seq)"]
    if kind == "sqlite":
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///") + ".plain")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        holders = ", ".join(f":{name}" for name in columns)
    else:
        import psycopg

        connection = psycopg.connect(url)
        typed = ", ".join(f"{name} {'bigint' if name in ('seq', 'version') else 'text'}" for name in columns)
        table = f"CREATE TABLE plain ({typed}, PRIMARY KEY (seq), UNIQUE (id))"
        holders = ", ".join(f"%({name})s" for name in columns)
    for statement in (table, *indexes):
        connection.execute(statement)
    connection.commit()

    def insert(rows: list[Row]) -> None:
        connection.cursor().executemany(f"INSERT INTO plain VALUES ({holders})", rows)
        connection.commit()

    yield insert
    connection.close()


def appends(kind: str, url: str, seconds: float) -> list[str]:
    """Return table rows: events per second, the timeline's and the plain database's, by size of the batch."""
    timeline, found = fresh(url), []
    place = 0
    with plain(kind, url) as insert:
        for size in (1, 100, 1000):
            spent = {"orrery": 0.0, "plain": 0.0}
            cpu, count = 0.0, 0
            while spent["orrery"] < seconds:
                drafts = [draft(f"model-{n % MODELS}", n // MODELS) for n in range(place, place + size)]
                place, count = place + size, count + size
                before = time.process_time()
                spent["orrery"] += timed(lambda drafts=drafts: timeline.append(drafts))
                cpu += time.process_time() - before
                first = timeline.head()[0] - size
                with timeline.reading() as connection:
                    written = connection.execute(sa.select(events).where(events.c.seq > first))
                    rows = [dict(row._mapping) for row in written]
                spent["plain"] += timed(lambda rows=rows: insert(rows))
            rates = {name: count / value for name, value in spent.items()}
            how = "singly" if size == 1 else f"batches of {size}"
            found.append(
                f"| {kind}, {how} | {rates['orrery'] / rates['plain']:.2f} | "
                f"{rates['orrery']:.0f} | {rates['plain']:.0f} | {cpu / count * 1000:.3f} |"
            )
    timeline.engine.dispose()
    return found


def fill(timeline: Timeline, upto: int) -> float:
    """Bring the log to a number of events in batches of 5000; return events per second."""
    began, start = time.perf_counter(), timeline.head()[0]
    for first in range(start, upto, 5000):
        timeline.append([draft(f"model-{n % MODELS}", n // MODELS) for n in range(first, min(first + 5000, upto))])
    return (upto - start) / (time.perf_counter() - began)


def reads(timeline: Timeline, rounds: int) -> dict[str, str]:
    """Return what each way of reading costs, milliseconds p50 / p99 (or events per second)."""
    names = [f"model-{n * 37 % MODELS}" for n in range(rounds)]
    found: dict[str, str] = {}

    def each(label: str, work: Callable[[str], object], of: list[str] = names) -> None:
        found[label] = percentiles([timed(lambda name=name: work(name)) for name in of])

    def page(name: str) -> None:
        assert list(timeline.read(name, newest_first=True, limit=PAGE))

    each(f"newest page of a model ({PAGE} events)", page)
    each("newest page of all models", lambda name: list(timeline.read(newest_first=True, limit=PAGE)))
    each("promotions of a model", lambda name: list(timeline.read(name, kinds=("promoted", "rolled_back"))))
    each("head of the chain", lambda name: timeline.head())
    each("names of all models", lambda name: timeline.models(), names[:20])
    distinct = list(dict.fromkeys(names))[:100]
    each("state of a model, nothing stored", lambda name: States(timeline).model(name), distinct)
    each("state of a model, stored before + tail", lambda name: States(timeline).model(name), distinct)
    states = States(timeline)
    for name in distinct:
        states.model(name)
    each("state held in memory, nothing new", states.model, distinct * 3)
    spent = []
    for place, name in enumerate(distinct * 3):
        timeline.append([draft(name, 5 + place % 40)])
        spent.append(timed(lambda name=name: states.model(name)))
    found["state held in memory, one new event"] = percentiles(spent)
    most = min(timeline.head()[0], 100_000)
    took = timed(lambda: verify(event.to_json() for event in timeline.read(limit=most)))
    found["verify (events/s)"] = f"{most / took:.0f}"
    return found


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Start a PostgreSQL server of its own, durable as it comes; gives a URL, or fails with the reason why not."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if not initdb:
        raise RuntimeError("no PostgreSQL server binaries (apt-get install postgresql)")
    as_user: dict[str, Any] = {}
    place = Path(tempfile.mkdtemp(prefix="orrery-pg-"))
    if os.geteuid() == 0:
        user = next(name for name in ("postgres", "nobody") if _is_user(name))
        shutil.chown(place, user)
        as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}

    def run(*command: str) -> None:
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL, **as_user)

    control = [str(Path(initdb).with_name("pg_ctl")), "-w", "-D", str(place / "data")]
    run(initdb, "-A", "trust", "-U", "orrery", "-D", str(place / "data"))
    run(*control, "-l", str(place / "log"), "-o", f"-c listen_addresses= -k {place}", "start")
    try:
        yield f"postgresql://orrery@/postgres?host={place}"
    finally:
        run(*control, "-m", "fast", "stop")
        shutil.rmtree(place, ignore_errors=True)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def tables(sizes: list[int], seconds: float, rounds: int) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = appends("sqlite", f"sqlite:///{folder / 'appends.db'}", seconds)
        try:
            with postgresql(folder) as url:
                rows += appends("postgresql", url, seconds)
        except (RuntimeError, StopIteration, ImportError, subprocess.CalledProcessError) as error:
            rows.append(f"| postgresql | not run: {error} | | | |")
        timeline = fresh(f"sqlite:///{folder / 'reads.db'}")
        columns, speeds = {}, []
        for size in sizes:
            speeds.append(f"{fill(timeline, size):.0f}/s")
            columns[size] = reads(timeline, rounds)
        timeline.engine.dispose()
    lines = [
        "| appends | orrery : plain inserts | orrery (events/s) | plain inserts (rows/s) | orrery, CPU ms per event |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"| ms, p50 / p99 | {' | '.join(f'among {size:,} events' for size in sizes)} |",
        "|---|" + "---|" * len(sizes),
    ]
    lines += [f"| {label} | {' | '.join(columns[size][label] for size in sizes)} |" for label in columns[sizes[0]]]
    return "\n".join([*lines, f"| filled in batches of 5000 | {' | '.join(speeds)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Appends and reads of the timeline.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000], metavar="EVENTS")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each append measurement")
    parser.add_argument("--rounds", type=int, default=300, help="reads of each sort")
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {RESULTS.name}")
    chosen = parser.parse_args()
    text = tables(chosen.sizes, chosen.seconds, chosen.rounds)
    print(text)
    if chosen.write:
        command = shlex.join(["python", "benchmarks/timeline.py", *sys.argv[1:]])
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(
            f"# The timeline: appends and reads\n\n`{command}`; Python {platform.python_version()}, {os.cpu_count()} "
            f"cores shared with other work (trust the ratios), load {os.getloadavg()[1]:.1f} while it ran.\n\n"
            f"Each append is on disk when it returns (SQLite in WAL mode with `synchronous = FULL`, PostgreSQL as it "
            f"comes); {MODELS} models share one chain; an event has 0.2 to 0.7 kB of data. Reads are of SQLite. Goals: "
            "3000 events/s in batches, 500/s singly, a page within 50 ms p99 whatever the length of the log.\n\n"
            f"{text}\n"
        )


if __name__ == "__main__":
    main()
