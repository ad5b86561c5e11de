"""Who approved what served on a day, as what and on what evidence; and what somebody did."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from orrery import spec
from orrery.access.roles import Grant, Principal
from orrery.app import Orrery
from orrery.data.contract import Contract
from orrery.errors import NotAllowed, NotFound
from orrery.settings import Settings
from orrery.timeline.event import Draft

PROJECT = spec.to_dict(
    spec.parse(
        """
        [model]
        name = "tides"
        task = "regression"
        target = "height"
        [data]
        tides = "tides"
        [environments.production]
        needs = ["review:quality"]
        """
    )
)
BY = {"by": "root", "why": "For the test."}


def at(day: int, hour: int = 5) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=UTC)


@pytest.fixture
def opened(home: Settings) -> Orrery:
    """Two versions that answered after each other; mara approved one as reviewer, and lost the role since."""
    orrery = Orrery(home)
    orrery.accounts.add("mara", **BY, links=["mara.lind"])
    orrery.accounts.add("li", **BY)
    orrery.accounts.give("mara", "reviewer:quality", "tides", **BY)

    def event(kind: str, when: datetime, version: int | None = None, actor: str = "orrery/test", **data: Any) -> Draft:
        why, environment = data.pop("why", "For the test."), data.pop("environment", "")
        return Draft(
            kind=kind,
            actor=actor,
            why=why,
            model="" if kind == "data_added" else "tides",
            version=version,
            environment=environment,
            data=data.get("data", data) if kind == "data_added" else data,
            occurred_at=when,
        )

    def trained(number: int, when: datetime) -> list[Draft]:
        run = {"run": f"r{number}", "commit": "c" * 40, "change": "redesign", "data": {"tides": 1}}
        refused = {"verdict": "refused", "why": "Too slow."}
        return [
            event("triggered", when, reason="push", why="A commit came.", **run),
            event("trained", when, number, metrics={"rmse": 0.1}, **run),
            event("gated", when, number, passed=number > 1, gates={"latency": refused} if number == 1 else {}),
        ]

    orrery.append(
        [
            event("data_added", at(1), data={"dataset": "tides", "version": 1, "rows": 10, "digest": "d1"}),
            event(
                "pushed",
                at(1),
                actor="li",
                commit="c" * 40,
                spec=PROJECT,
                author="li",
                message="Begin",
                authors=["mara.lind"],
            ),
            *trained(1, at(1)),
            event("approved", at(2), 1, actor="mara", gate="latency", why="The machine was busy."),
        ]
    )
    orrery.append(
        [
            event("approved", at(2), 1, actor="mara", role="quality", why="Sound.", environment="production",
                  evidence=orrery.model("tides").versions[1].evidence),
            event("approved", at(2), 1, actor="somebody", role="quality", why="Me too.", evidence="another"),
            event("promoted", at(3), 1, actor="mara", environment="production", previous=None, change="redesign",
                  why="It is time."),
            *trained(2, at(4)),
            event("promoted", at(5), 2, environment="production", previous=1, change="redesign", why="Better."),
        ]
    )  # fmt: skip
    orrery.accounts.take("mara", "reviewer:quality", "tides", by="root", why="She moved on.")
    return orrery


def test_who_approved_what_served_on_a_day_and_on_what_evidence(opened: Orrery) -> None:
    (one,) = opened.served("tides", "2026-03-03")
    assert (one.version, one.since, one.until) == (1, at(3), None)  # as it was seen at the end of that day
    assert one.by == "mara" and one.by_roles == ["reviewer:quality of tides"] and one.why == "It is time."
    decided = next(opened.timeline.read("tides", kinds=["promoted"]))
    assert (one.event, one.hash) == (decided.seq, decided.hash)
    assert [(each.dataset, each.version, each.digest) for each in one.data] == [("tides", 1, "d1")]
    assert one.commit == "c" * 40 and one.author == "li" and one.pushed_by == "li" and one.needs == ["review:quality"]
    assert [(gate.name, gate.verdict, gate.overridden_by) for gate in one.gates] == [("latency", "refused", "mara")]
    overrode, approved, other = one.said
    assert overrode.gate == "latency" and overrode.why == "The machine was busy."
    assert approved.roles == ["reviewer:quality of tides"] and approved.stands and approved.evidence == one.evidence
    assert approved.known and not other.known and other.roles == [] and not other.stands


def test_a_day_has_all_that_answered_on_it_and_an_instant_one(opened: Orrery) -> None:
    assert [one.version for one in opened.served("tides", "2026-03-05")] == [1, 2]
    assert [one.version for one in opened.served("tides", "2026-03-05T04:59Z")] == [1]
    assert [one.version for one in opened.served("tides", "2026-03-05T05:00Z")] == [2]
    assert [one.version for one in opened.served("tides", "2026-03-09")] == [2]
    assert opened.served("tides", "2026-03-02") == opened.served("tides", "2026-03-09", "staging") == []
    with pytest.raises(NotFound):
        opened.served("tide", "2026-03-05")


def test_what_somebody_did_under_every_name_as_what_and_when(opened: Orrery) -> None:
    opened.denials.note("mara", "release", "mara may not release.", project="tides", of_model=True)
    found = opened.deeds("mara.lind")
    assert found.person == "mara" and found.denied == 1 and found.signed_in == 0
    assert found.by_kind == {"approved": 2, "denied": 1, "promoted": 1, "pushed": 1}  # li pushed what she wrote
    (role,) = found.roles
    assert role.says == "reviewer:quality of tides" and role.taken_by == "root" and role.until is not None
    assert [event.kind for event in found.about] == ["account", "granted", "granted"]
    early = opened.deeds("mara", begin=at(3), end=at(4))
    assert early.by_kind == {"promoted": 1} and early.roles == []  # the role was given today, by the real clock
    assert opened.deeds("nobody").events == []


def test_only_who_may_asks(opened: Orrery) -> None:
    reader = opened.acting(Principal("jo", (Grant("viewer", "tides"),)))
    assert reader.served("tides", "2026-03-03")
    with pytest.raises(NotAllowed):
        reader.deeds("mara")
    stranger = opened.acting(Principal("vi", (Grant("viewer", "gulls"),)))
    with pytest.raises(NotFound):
        stranger.served("tides", "2026-03-03")
    assert opened.acting(Principal("co", (Grant("compliance"),))).deeds("mara").events


# --- reads -------------------------------------------------------------------------------------------------------


CONTRACT = {
    "columns": {
        "patient": {"type": "string", "personal": "pseudonymised", "subject": True},
        "note": {"type": "string", "personal": "encrypted"},
        "age": {"type": "integer"},
    },
}


@pytest.fixture
def ward(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Orrery:
    """A dataset with personal columns, and one without."""
    import polars as pl

    monkeypatch.setenv("ORRERY_ACTOR", "mara")
    orrery = Orrery(home)
    orrery.change_contract("ward", Contract.from_dict(CONTRACT), why="Declared.", actor="root")
    rows = pl.DataFrame({"patient": ["Ann", "Bo"], "note": ["x", "y"], "age": [40, 50]})
    orrery.add_data("ward", rows, why="First.", actor="root")
    orrery.add_data("tides", rows.select("age"), why="First.", actor="root")
    return orrery


def reads(orrery: Orrery) -> list[tuple[str, str, str, list[str]]]:
    events = orrery.timeline.read(kinds=["read"])
    return [(one.actor, one.data["what"], one.data["of"], one.data["columns"]) for one in events]


def test_who_reads_personal_columns_is_written_down_and_who_reads_others_is_not(ward: Orrery) -> None:
    from orrery import dataset

    home = str(ward.settings.home)
    assert len(dataset("tides", home=home)) == 2 and reads(ward) == []
    assert len(dataset("ward", home=home)) == 2
    assert reads(ward) == [("mara", "rows", "ward", ["note", "patient"])]
    (event,) = ward.timeline.read(kinds=["read"])
    assert "Ann" not in str(event.to_json()) and "psn_" not in str(event.to_json())


def test_reads_of_one_minute_are_counted(ward: Orrery, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        ward.note_read("ward", "profile", "jo")
    ward.note_read("ward", "profile", "vi")
    assert [who for who, *_ in reads(ward)] == ["jo", "vi"]
    later = ward.reads._seldom._now() + 61
    monkeypatch.setattr(ward.reads._seldom, "_now", lambda: later)
    ward.note_read("ward", "profile", "jo")
    assert list(ward.timeline.read(kinds=["read"]))[-1].data["more"] == 4
    assert ward.deeds("jo").reads == 6


def test_opening_what_is_encrypted_is_written_down(ward: Orrery) -> None:
    rules = Contract.from_dict(CONTRACT)
    stored = ward.lake.table("datasets", "ward").scan().collect()
    assert reads(ward) == []
    opened = ward.privacy.opened(rules, stored, "ward")
    assert sorted(opened["note"].to_list()) == ["x", "y"]
    assert reads(ward) == [("mara", "encrypted", "ward", ["note", "patient"])]


def test_predictions_with_personal_columns_and_rows_set_aside_are_reads_too(
    opened: Orrery, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import subprocess
    import sys

    from orrery import predictions

    monkeypatch.setenv("ORRERY_ACTOR", "jo")
    home = str(opened.settings.home)
    predictions("tides", home=home)
    assert reads(opened) == []  # nothing is marked yet
    columns = {"gauge": {"type": "string", "personal": "pseudonymised"}}
    opened.change_contract("tides", Contract.from_dict({"columns": columns}), why="Declared.", actor="root")
    predictions("tides", home=home)
    (event,) = opened.timeline.read("tides", kinds=["read"])
    assert (event.actor, event.data["what"], event.data["columns"]) == ("jo", "predictions", ["gauge"])
    import polars as pl

    opened.add_data("tides", pl.DataFrame({"gauge": ["a", "b"]}), why="First.", actor="root")
    words = [sys.executable, "-m", "orrery.cli.main", "data", "show", "tides", "--home", home]
    subprocess.run(words, env={**os.environ}, check=True, capture_output=True)
    assert ("jo", "profile", "tides", ["gauge"]) in reads(opened)
