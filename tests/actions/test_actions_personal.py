"""Labels find the predictions of who has a pseudonym, and the inference server is told what is personal."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from orrery import spec as specs
from orrery.app import Orrery
from orrery.data.contract import Contract
from orrery.data.predictions import LabelTable
from orrery.settings import Settings
from orrery.timeline.event import Draft
from orrery.web.assignment import assignment_of

SPEC = {"model": {"name": "toy", "task": "binary", "target": "y", "entity": "patient"}, "data": {"rows": "visits"}}
MARKS = '[columns.patient]\ntype = "string"\nsubject = true\n[columns.name]\ntype = "string"\npersonal = "encrypted"'


def test_labels_get_the_pseudonyms_that_predictions_have(home: Settings) -> None:
    orrery = Orrery(home)
    spec = specs.to_dict(specs.from_dict(SPEC))
    data = {"commit": "abc", "message": "m", "author": "ann", "spec": spec}
    orrery.append([Draft(kind="pushed", actor="ann", why="w", model="toy", data=data)])
    at = datetime(2024, 1, 1, tzinfo=UTC)
    labels = pl.DataFrame({"entity": ["Mara Lindqvist", "Ole"], "label": [1, 0], "at": [at, at]})
    orrery.add_labels("toy", labels.with_columns(entity=pl.lit("clear")))  # nothing is marked yet
    orrery.change_contract("visits", Contract.from_toml(MARKS), why="w", actor="ann")
    names = orrery.privacy.pseudonyms
    grave = names.grave(names.of("Ole") or "")
    orrery.append([Draft(kind="erasure_asked", actor="ann", why="He asked.", data={"grave": grave})])
    assert orrery.add_labels("toy", labels).unknown == 1
    known = LabelTable(orrery.lake, "toy").known(None, at)
    assert set(known["entity"]) == {"clear", names.of("Mara Lindqvist")}
    assert assignment_of(orrery).erasures == 1


def test_a_slot_says_what_is_personal(home: Settings) -> None:
    orrery = Orrery(home)
    orrery.change_contract("visits", Contract.from_toml(MARKS), why="w", actor="ann")
    spec = specs.to_dict(specs.from_dict(SPEC))
    about = {"model": "toy", "actor": "ann", "why": "w"}
    pushed = {"commit": "abc", "message": "m", "author": "ann", "spec": spec}
    trained = {"run": "r", "commit": "abc", "change": "redesign", "data": {"visits": 1}, "artifact": "artifact-1"}
    orrery.append(
        [
            Draft(kind="pushed", data=pushed, **about),
            Draft(kind="built", data={"commit": "abc", "python": "/usr/bin/python3"}, **about),
            Draft(kind="trained", version=1, data={**trained, "parent": None, "metrics": {}}, **about),
            Draft(kind="promoted", version=1, environment="production", data={"previous": None}, **about),
        ]
    )
    (slot,) = assignment_of(orrery).slots
    assert slot.personal == {"patient": "pseudonymised", "name": "encrypted"}
    assert slot.columns == {"patient": "string"}
