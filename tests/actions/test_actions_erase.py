"""An erasure takes what is the subject's and nothing else, and finishes what a kill left unfinished."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from orrery import spec as specs
from orrery.access.roles import Grant, Principal
from orrery.actions.desk import Desk
from orrery.actions.erase import erase, find, preview
from orrery.actions.expire import expire
from orrery.actions.worker import Worker
from orrery.app import Orrery
from orrery.data.contract import Contract
from orrery.data.gaps import Gaps
from orrery.data.journal import FOLDER, Journal
from orrery.data.lake import Lake
from orrery.data.personal import ERASED
from orrery.data.predictions import LabelTable, PredictionLog
from orrery.data.processing import Record, record_of
from orrery.data.purge import purge, remove
from orrery.errors import Conflict, NotAllowed, NotFound, NotUnderstood
from orrery.settings import SETTINGS, Settings
from orrery.stats.anomaly import AnomalyScore
from orrery.timeline.event import Draft
from orrery.triggers.due import due
from orrery.workers.leases import Leases

NOW = datetime.now(UTC)
SPEC = {
    "model": {"name": "toy", "task": "regression", "target": "y", "entity": "visit", "objective": "To foresee y."},
    "data": {"rows": "visits"},
}
MARKS = '[columns.patient]\ntype = "string"\nsubject = true\n[columns.doctor]\ntype = "string"\npersonal = true\n'
WHY = {"actor": "ann", "why": "Request 17."}


def visits(first: int, count: int) -> pl.DataFrame:
    """Return visits; those whose number can be divided by ten are Mara's, and she is the doctor of every ninth."""
    numbers = range(first, first + count)
    return pl.DataFrame(
        {
            "patient": ["Mara Lindqvist" if one % 10 == 0 else f"p{one % 10}" for one in numbers],
            "visit": [f"v{one}" for one in numbers],
            "doctor": ["Mara Lindqvist" if one % 9 == 1 else "Okonkwo" for one in numbers],
            "x": [float(one) for one in numbers],
            "y": [float(one) for one in numbers],
        }
    )


def trained(orrery: Orrery, *versions: int, name: str = "toy", spec: dict[str, object] = SPEC) -> None:
    """Write down that a model was trained on some versions of the visits, and that the last of them answers."""
    about = {"model": name, "actor": "ann", "why": "w"}
    text = specs.to_dict(specs.from_dict({**spec, "model": {**SPEC["model"], "name": name}}))
    drafts = [Draft(kind="pushed", data={"commit": "abc", "message": "m", "author": "ann", "spec": text}, **about)]
    drafts.append(Draft(kind="built", data={"commit": "abc", "python": "/usr/bin/python3"}, **about))
    for number, data in enumerate(versions, 1):
        facts = {"run": f"r{number}", "commit": "abc", "change": "redesign", "data": {"visits": data}, "parent": None}
        begun = {**facts, "reason": "push", "evidence": {}}
        drafts.append(Draft(kind="triggered", data=begun, **about))
        drafts.append(Draft(kind="trained", version=number, data={**facts, "metrics": {}}, **about))
        drafts.append(Draft(kind="gated", version=number, data={"passed": True, "gates": {}}, **about))
    drafts.append(
        Draft(kind="promoted", version=len(versions), environment="production", data={"previous": None}, **about)
    )
    orrery.append(drafts)


def asked(orrery: Orrery, rows: pl.DataFrame, name: str = "toy") -> None:
    """Write requests to the journal as the inference server does, each with a shadow that has no inputs."""
    names = orrery.privacy.pseudonyms
    at = int(NOW.timestamp() * 1e6)
    with Journal(orrery.settings.folder(FOLDER), "test") as journal:
        ids = [f"req-{visit}" for visit in rows["visit"]]
        shared = {"_id": ids, "_at": [at] * len(ids), "_output": [[1.0]] * len(ids), "_entity": rows["visit"].to_list()}
        own = {column: [names.of(value) for value in rows[column]] for column in ("patient", "doctor")}
        journal.append(name, "production", {**shared, **own}, {"_version": 1, "_role": "champion"})
        journal.append(name, "production", {**shared, "_entity": [""] * len(ids)}, {"_version": 2, "_role": "shadow"})


@pytest.fixture
def orrery(home: Settings) -> Iterator[Orrery]:
    made = Orrery(home)
    made.change_contract("visits", Contract.from_toml(MARKS), why="Patients are people.", actor="ann")
    yield made
    made.timeline.engine.dispose()


@pytest.fixture
def clinic(orrery: Orrery) -> Orrery:
    """Three versions of the visits, of which Mara is in the second and third; a model that learned from each."""
    for first, count in ((1, 9), (10, 30), (40, 30)):
        orrery.add_data("visits", visits(first, count), **WHY)
    trained(orrery, 1, 2, 3)
    asked(orrery, visits(10, 40))
    labels = visits(10, 40).select(entity="visit", label="y", at=pl.lit(NOW))
    assert orrery.add_labels("toy", labels).new == 40
    return orrery


def test_what_is_hers_goes_and_all_else_stays(clinic: Orrery) -> None:
    desk, lake = Desk(clinic, again=False), clinic.lake
    others = lake.read("visits", 3).polars().filter(pl.col("patient") != clinic.privacy.pseudonyms.of("Mara Lindqvist"))
    found = preview(desk, "Mara Lindqvist", **WHY)
    told = {(one.folder, one.name): (one.rows, one.mentions, one.first) for one in found.tables}
    assert told[("datasets", "visits")] == (6, 7, 2) and told[("labels", "toy")][0] == 4
    assert found.versions == {"toy": [2, 3]}
    done = erase(desk, "Mara Lindqvist", **WHY)
    assert done.traces == [] and done.searched > 10 and done.versions == {"toy": [2, 3]}
    rest = lake.read("visits", 3).polars()
    assert rest.drop("doctor").equals(others.drop("doctor"))
    assert rest["doctor"].null_count() == 7
    assert [version.rows for version in lake.versions("visits")] == [9, 36, 63]
    assert lake.read("visits", 1).polars().height == 9 and lake.read("visits", 3, after=2).polars().height == 27
    log = PredictionLog(lake, "toy").rows(None, None, None).collect()
    assert sorted(log["_role"].value_counts()["count"]) == [36, 36]  # the shadows of her requests are gone, too
    assert LabelTable(lake, "toy").known(None, NOW).height == 36
    assert clinic.states.data().datasets["visits"].rows == 63
    added = clinic.add_data("visits", visits(70, 10), **WHY)
    assert (added.version, added.rows, added.reasons) == (4, 9, {ERASED: 1})
    assert Lake(lake.root).read("visits", 4, after=3).polars()["visit"].to_list() == [f"v{n}" for n in range(71, 80)]


def test_labels_and_requests_that_come_late_are_not_taken(clinic: Orrery) -> None:
    erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY)
    asked(clinic, visits(30, 2))
    assert clinic.ship_journal() == 3  # of hers the shadow alone: nothing in its row says whose it is
    late = pl.DataFrame({"entity": ["v20", "v21"], "label": [1.0, 1.0], "at": [NOW + timedelta(days=1)] * 2})
    assert clinic.add_labels("toy", late).conflicting == 1
    assert "v20" not in LabelTable(clinic.lake, "toy").known(None, NOW + timedelta(days=2))["entity"]


def test_the_champion_that_learned_from_her_is_trained_again_where_the_policy_says_so(clinic: Orrery) -> None:
    erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY)
    state, data, now = clinic.model("toy"), clinic.states.data(), clinic.clock.now()
    (trigger,) = [one for one in due(state, data, now) if one.kind == "record"]
    assert trigger.drafts[0].data["reason"] == "erasure" and "erased" in trigger.drafts[0].why
    silent = specs.to_dict(specs.from_dict({**SPEC, "triggers": {"erasure": False}}))
    state.commits["abc"].spec = silent
    assert list(due(state, data, now)) == []


def test_a_version_that_never_saw_her_is_not_named(orrery: Orrery) -> None:
    orrery.add_data("visits", visits(1, 9), **WHY)
    orrery.add_data("visits", visits(10, 1), **WHY)
    trained(orrery, 1)
    erase(Desk(orrery, again=False), "Mara Lindqvist", **WHY)
    assert orrery.model("toy").unlearn == {}


def test_a_version_of_which_no_row_is_left_says_so(orrery: Orrery) -> None:
    orrery.add_data("visits", visits(3, 1), **WHY)
    erase(Desk(orrery, again=False), "p3", **WHY)
    with pytest.raises(NotFound, match="visits@v1 holds no row any more: all 1 were erased"):
        orrery.lake.read("visits")


def test_the_timeline_does_not_say_who(clinic: Orrery) -> None:
    desk = Desk(clinic, again=False)
    find(desk, "Mara Lindqvist", **WHY)
    erase(desk, "Mara Lindqvist", **WHY)
    told = json.dumps([event.to_json() for event in clinic.timeline.read()])
    assert "Lindqvist" not in told and "psn_" not in told
    kinds = [event.kind for event in clinic.timeline.read("")]
    assert [kind for kind in kinds if kind in ("subject_searched", "erasure_asked", "erased")] == [
        "subject_searched",
        "erasure_asked",
        "erased",
    ]
    for act in (erase, find, preview):
        with pytest.raises(NotUnderstood, match="names the subject"):
            act(desk, "Mara Lindqvist", actor="ann", why="mara lindqvist asked")


def test_who_is_not_there_is_not_erased(clinic: Orrery) -> None:
    desk = Desk(clinic, again=False)
    with pytest.raises(NotFound, match="Nothing is kept"):
        erase(desk, "Mara Lindqvisst", **WHY)
    assert clinic.states.data().erased == {}
    clinic.add_data("unmarked", pl.DataFrame({"patient": ["Mara Lindqvist"]}), **WHY)
    assert preview(desk, "Mara Lindqvist", **WHY).blind == ["unmarked"]
    left = erase(desk, "Mara Lindqvist", **WHY)  # what is in the clear where nobody marked it is said, not hidden
    assert {trace.path.split("/")[2] for trace in left.traces} == {"unmarked"}
    assert not clinic.states.data().asked[clinic.privacy.grave("Mara Lindqvist")].clean


def test_only_who_may_finds_or_erases(clinic: Orrery) -> None:
    for role, may in (("administrator", True), ("compliance", True), ("operator", False), ("scientist", False)):
        desk = Desk(clinic.acting(Principal("x", (Grant(role),))), again=False)
        if may:
            preview(desk, "p3", **WHY)
            continue
        for act in (erase, find):
            with pytest.raises(NotAllowed, match="may not privacy"):
                act(desk, "p3", **WHY)
    inside = Desk(clinic.acting(Principal("x", (Grant("compliance", "toy"),))), again=False)
    with pytest.raises(NotAllowed):
        preview(inside, "p3", **WHY)  # what is kept of a person is everybody's


def test_a_subject_in_the_clear_is_found_by_its_column_alone(orrery: Orrery) -> None:
    """A number that is a person in one dataset is an age in another."""
    plain = '[columns.patient]\ntype = "integer"\nsubject = true\npersonal = "plain"\n'
    orrery.change_contract("people", Contract.from_toml(plain), why="w", actor="ann")
    orrery.add_data("people", pl.DataFrame({"patient": [17, 18, 17], "age": [1, 17, 17]}), **WHY)
    orrery.add_data("ages", pl.DataFrame({"age": [17, 18], "text": ["17", "18"]}), **WHY)
    done = erase(Desk(orrery, again=False), "17", **WHY)
    assert done.traces == [] and done.rows == 2
    assert orrery.lake.read("people").polars().rows() == [(18, 17)]
    assert orrery.lake.read("ages").polars().rows() == [(17, "17"), (18, "18")]


def test_what_trainings_and_versions_keep_loses_her_rows(clinic: Orrery) -> None:
    home, desk = clinic.settings.home, Desk(clinic, again=False)
    frame = clinic.lake.read("visits", 3).polars()
    folder = desk.evidence("toy", "r3")
    folder.mkdir(parents=True)
    frame.write_parquet(folder / "holdout.parquet")
    np.save(folder / "probe_output.npy", frame["x"].to_numpy())
    mara = clinic.privacy.pseudonyms.of("Mara Lindqvist") or ""
    (folder / "log.txt").write_text(f"row of {mara}, and p3")
    (home / "cache" / "records").mkdir(parents=True)
    (home / "cache" / "records" / "key").write_text("features of hers, without her name")
    of_toy = home / "cache" / "steps" / "toy" / "values"
    of_toy.mkdir(parents=True)
    (of_toy / "key").write_text("features of hers, without her name")
    erase(desk, "Mara Lindqvist", **WHY)
    held = pl.read_parquet(folder / "holdout.parquet")
    assert held.height == 63 and np.load(folder / "probe_output.npy").tolist() == held["x"].to_list()
    assert (folder / "log.txt").read_text() == f"row of {'*' * 32}{mara[32:]}, and p3"
    assert list((home / "cache" / "records").iterdir()) == list(of_toy.iterdir()) == []


def test_what_is_kept_of_columns_forgets_categories_and_extremes_that_were_hers_alone() -> None:
    rng = np.random.default_rng(0)
    rows = {"x": np.append(rng.normal(size=2000), 99.5), "c": np.array(["a", "b"] * 1000 + ["hers"] * 1)}
    score = AnomalyScore.fit(rows, rows)
    assert score is not None and "99.5" in score.to_bytes().decode() and "hers" in score.to_bytes().decode()
    left = {"x": (float(rows["x"][:-1].min()), float(rows["x"][:-1].max())), "c": {"a", "b"}}
    fresh = score.among(left)
    assert "99.5" not in fresh.to_bytes().decode() and "hers" not in fresh.to_bytes().decode()
    assert fresh.among(left) is fresh
    usual = {"x": rows["x"][:200], "c": rows["c"][:200]}
    assert np.abs(fresh.scores(usual) - score.scores(usual)).max() < 1e-9


KILLED = """
import os, signal, sys
from orrery.actions import erase as module
from orrery.actions.desk import Desk
from orrery.app import Orrery

def went(step):
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

remove, count = module.Searched.erase, 0
if sys.argv[2] == "between two tables":
    import orrery.data.subject as subject
    real = subject.purge
    def purge(table, told):
        real(table, told)
        if "/predictions/" in table.uri:
            os.kill(os.getpid(), signal.SIGKILL)
    subject.purge = purge
if sys.argv[2] == "before it is purged":
    import orrery.data.subject as subject
    def purge(table, told):
        if "/datasets/" in table.uri:
            os.kill(os.getpid(), signal.SIGKILL)
    subject.purge = purge
module.erase(Desk(Orrery.open(sys.argv[1]), again=False), "Mara Lindqvist", actor="ann", why="Request 17.", went=went)
"""


@pytest.mark.parametrize(
    "when",
    ["journal", "between two tables", "before it is purged", "search"],
)
def test_killed_anywhere_the_same_order_finishes_it(clinic: Orrery, when: str) -> None:
    home = clinic.settings.home
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run([sys.executable, "-c", KILLED, str(home), when], env=clean, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    grave = clinic.privacy.grave("Mara Lindqvist")
    assert clinic.states.data().asked[grave].done is None
    found = erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY)
    assert found.traces == [] and found.versions == {"toy": [2, 3]}
    assert clinic.states.data().asked[grave].clean
    assert clinic.lake.read("visits").polars().height == clinic.states.data().datasets["visits"].rows == 63
    assert LabelTable(clinic.lake, "toy").known(None, NOW).height == 36
    again = erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY)
    assert (again.rows, again.traces) == (0, [])


def test_it_waits_for_what_is_under_way(clinic: Orrery) -> None:
    leases = Leases(clinic.timeline.engine)
    assert leases.take(["train:toy:r9"], "worker-1")
    with pytest.raises(Conflict, match="under way"):
        erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY, patience=0.5)
    leases.release("train:toy:r9", "worker-1")
    assert erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY, patience=0.5).traces == []


def test_what_a_training_under_way_leaves_is_cleaned_when_it_has_ended(clinic: Orrery) -> None:
    """It had read her rows, and writes them where they were taken out before."""
    desk, leases = Desk(clinic, again=False), Leases(clinic.timeline.engine)
    frame = clinic.lake.read("visits", 3).polars()
    folder, cache = desk.evidence("toy", "r3"), clinic.settings.folder("cache")
    assert leases.take(["train:toy:r3"], "worker-1")

    def end() -> None:
        while clinic.lake.version("visits").erased == 0:
            time.sleep(0.05)
        folder.mkdir(parents=True)
        frame.write_parquet(folder / "holdout.parquet")
        for name in ("datasets", "records"):
            (cache / name).mkdir(exist_ok=True)
        frame.write_parquet(cache / "datasets" / "before.parquet")
        (cache / "records" / "late").write_text("features of hers, without her name")
        leases.release("train:toy:r3", "worker-1")

    with ThreadPoolExecutor(1) as thread:
        training = thread.submit(end)
        found = erase(desk, "Mara Lindqvist", **WHY, patience=60)
        training.result()
    assert found.traces == [] and pl.read_parquet(folder / "holdout.parquet").height == 63
    assert not (cache / "datasets" / "before.parquet").exists() and not (cache / "records" / "late").exists()


def test_a_version_that_holds_her_itself_is_deleted_unless_it_answers(clinic: Orrery) -> None:
    home = clinic.settings.home
    mara = clinic.privacy.pseudonyms.of("Mara Lindqvist") or ""
    about = {"model": "toy", "actor": "ann", "why": "w"}
    for number in (4, 5):
        (home / f"artifact-{number}").mkdir()
        (home / f"artifact-{number}" / "model.pkl").write_text(f"neighbour {mara}")
        facts = {"run": f"r{number}", "commit": "abc", "change": "redesign", "data": {"visits": 3}, "parent": None}
        facts["artifact"] = f"artifact-{number}"
        clinic.append([Draft(kind="trained", version=number, data={**facts, "metrics": {}}, **about)])
    clinic.append([Draft(kind="promoted", version=5, environment="production", data={"previous": 3}, **about)])
    found = erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY)
    assert [trace.path for trace in found.traces] == ["artifact-5/model.pkl"]
    assert clinic.model("toy").versions[4].deleted and not (home / "artifact-4").exists()
    clinic.append([Draft(kind="promoted", version=3, environment="production", data={"previous": 5}, **about)])
    assert erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY).traces == []


def test_writers_lose_nothing_while_files_are_purged(clinic: Orrery) -> None:
    done = threading.Event()

    def add() -> int:
        lake, count = Lake(clinic.lake.root), 0
        while not done.is_set() or count < 10:
            lake.append("visits", visits(1000 + count, 1).drop("doctor"))
            count += 1
        return count

    with ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(add) for _ in range(2)]
        for name in ("Mara Lindqvist", "p1", "p2", "p3"):
            pseudonym = clinic.privacy.pseudonyms.of(name) or ""
            table = clinic.lake.table("datasets", "visits")
            remove(table, {"patient": [pseudonym]})
            purge(table, [pseudonym])
        done.set()
        added = sum(one.result() for one in writing)
    rest = Lake(clinic.lake.root).read("visits").polars().filter(pl.col("visit").str.len_chars() > 3)
    assert added >= 20 and rest.height == added


def test_a_lake_in_an_object_store_is_refused_before_anything_is_changed(clinic: Orrery) -> None:
    before = clinic.timeline.head()
    elsewhere = Orrery(dataclasses.replace(clinic.settings, lake="s3://bucket/lake"))
    with pytest.raises(NotAllowed, match="object store"):
        erase(Desk(elsewhere, again=False), "Mara Lindqvist", **WHY)
    elsewhere.timeline.engine.dispose()
    assert clinic.timeline.head() == before


# --- what is kept for a time ------------------------------------------------------------------------------------------


def test_rows_go_when_their_time_is_up_and_no_others(orrery: Orrery) -> None:
    kept = Contract.from_toml('retention = "30d"\n' + MARKS)
    orrery.change_contract("visits", kept, why="Thirty days are enough.", actor="ann")
    orrery.add_data("visits", visits(1, 9), **WHY, occurred_at=NOW - timedelta(days=31))
    orrery.add_data("visits", visits(10, 30), **WHY, occurred_at=NOW - timedelta(days=29))
    orrery.add_data("for-ever", visits(1, 9), **WHY, occurred_at=NOW - timedelta(days=900))
    trained(orrery, 1, spec={**SPEC, "privacy": {"retention": "10d"}})
    trained(orrery, 1, name="other")
    for name in ("toy", "other"):
        columns = {"_environment": "production", "_version": 1, "_role": "champion", "_entity": "e"}
        log = pl.DataFrame({"_id": ["a", "b"], "_at": [NOW - timedelta(days=11), NOW - timedelta(days=9)]})
        PredictionLog(orrery.lake, name).append(log.with_columns(**{key: pl.lit(one) for key, one in columns.items()}))
        labels = pl.DataFrame({"entity": ["e"], "label": [1.0], "at": [NOW - timedelta(days=11)]})
        assert orrery.add_labels(name, labels).new == 1
    desk = Desk(orrery, again=False)
    assert expire(desk) == 9 + 2
    assert [version.rows for version in orrery.lake.versions("visits")] == [0, 30]
    assert orrery.lake.read("visits").polars()["visit"][0] == "v10"
    assert orrery.lake.read("for-ever").polars().height == 9
    assert PredictionLog(orrery.lake, "toy").rows(None, None, None).collect()["_id"].to_list() == ["b"]
    assert PredictionLog(orrery.lake, "other").rows(None, None, None).collect().height == 2
    assert LabelTable(orrery.lake, "toy").known(None, NOW).height == 0
    assert LabelTable(orrery.lake, "other").known(None, NOW).height == 1
    assert orrery.states.data().datasets["visits"].rows == 30
    events = [(event.model, event.data["removed"]) for event in orrery.timeline.read(kinds=("expired",))]
    assert sorted(events) == [("", 9), ("toy", 2)]
    assert expire(desk) == 0
    orrery.add_data("visits", visits(60, 5), **WHY, occurred_at=NOW - timedelta(days=31))
    worker = Worker(orrery, "worker-1")
    worker._upkeep()  # what the worker does by itself between its actions
    assert [version.rows for version in orrery.lake.versions("visits")] == [0, 30, 30]
    assert orrery.lake.read("visits").polars()["visit"].to_list() == [f"v{one}" for one in range(10, 40)]
    worker.desk.let_go()
    with pytest.raises(NotUnderstood, match="less than a day"):
        Contract.from_toml('retention = "2h"')


def _record(orrery: Orrery) -> Record:
    return record_of(orrery.model("toy"), orrery.states.data(), orrery.settings, NOW)


def test_the_record_says_what_is_said_and_what_is_not(clinic: Orrery) -> None:
    record = _record(clinic)
    assert record.purpose == "To foresee y." and record.missing == ["legal basis", "controller"]
    assert "| visits | patient | pseudonymised | says whose the row is |" in record.to_markdown()
    erase(Desk(clinic, again=False), "Mara Lindqvist", **WHY)
    record = _record(clinic)
    assert (record.erasures, record.unlearn, record.sources[0].rows) == (1, [2, 3], 63)


@pytest.mark.parametrize("ranges", [[], [(0, 1)], [(3, 9), (9, 12), (20, 21)], [(5, 6), (0, 2), (1, 5)]])
def test_places_are_counted_as_if_one_counted_them(ranges: list[tuple[int, int]]) -> None:
    gaps = Gaps().more(ranges)
    lost = {place for start, stop in ranges for place in range(start, stop)}
    left = [place for place in range(40) if place not in lost]
    assert [gaps.place(row) for row in range(len(left))] == left
    assert [gaps.before(place) for place in range(40)] == [sum(one < place for one in lost) for place in range(40)]
