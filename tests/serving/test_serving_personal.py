"""Personal values of requests: pseudonyms in the journal, for the model and for the route; nothing in the clear."""

from __future__ import annotations

import re
from typing import Any

from orrery.data.journal import FOLDER, segments
from orrery.data.pseudonyms import Pseudonyms, privacy_key
from orrery.settings import load

PERSONAL = {"patient": "pseudonymised", "name": "encrypted"}
ROW = {"patient": "10-000-017", "name": "Mara Lindqvist", "age": 40}


def test_the_journal_holds_pseudonyms_and_a_new_file_begins_after_an_erasure(server: Any) -> None:
    server.start()
    marked = server.slot(1, entity="patient", personal=PERSONAL)
    server.assign(marked, server.slot(2, "shadow", entity="patient", personal=PERSONAL))
    assert server.predict(ROW).status_code == 200
    assert server.predict({**ROW, "patient": 17}).status_code == 200
    rows = server.until(lambda: len(server.journal()) == 4 and server.journal())
    of = Pseudonyms(privacy_key(load(server.home))).of
    assert {row["_entity"] for row in rows} == {of("10-000-017"), of("17")}
    assert next((row["patient"], "name" in row) for row in rows if row["_version"] == 1) == (of("10-000-017"), False)
    held = b"".join(path.read_bytes() for path in server.home.rglob("*") if path.is_file())
    assert b"10-000-017" not in held and b"Lindqvist" not in held

    before = segments(server.home / FOLDER)
    server.order(marked)
    server.control.assignment["erasures"] = 1
    server.until(lambda: any(one["applied"] == server.control.assignment["seq"] for one in server.control.reports))
    assert server.predict(ROW).status_code == 200
    assert len(segments(server.home / FOLDER)) == len(before) + 1


def test_who_was_erased_is_nobody(server: Any) -> None:
    server.start()
    names = Pseudonyms(privacy_key(load(server.home)))
    graves = [names.grave(names.of("17") or "")]
    server.order(server.slot(1, entity="patient", personal=PERSONAL), graves=graves)
    server.until(lambda: any(one["applied"] == server.control.assignment["seq"] for one in server.control.reports))
    for patient in ("17", "18"):
        assert server.predict({**ROW, "patient": patient}).status_code == 200
    rows = server.until(lambda: len(server.journal()) == 2 and server.journal())
    assert [row["patient"] for row in rows] == [None, names.of("18")]
    held = b"".join(path.read_bytes() for path in server.home.rglob("*") if path.is_file())
    assert (names.of("17") or "").encode() not in held and (names.of("18") or "").encode() in held


def test_columns_without_a_mark_are_written_as_they_came(server: Any) -> None:
    server.start()
    server.assign(server.slot(1, entity="patient"))
    assert server.predict(ROW).status_code == 200
    (row,) = server.journal()
    assert (row["_entity"], row["name"]) == (ROW["patient"], ROW["name"])
    assert not (server.home / "privacy").exists()


def test_without_its_key_nothing_is_answered_in_the_clear(server: Any) -> None:
    key = server.home / "privacy" / "key"
    key.mkdir(parents=True)  # cannot be read as a file
    server.start()
    server.assign(server.slot(1, entity="patient", personal=PERSONAL))
    refused = server.predict(ROW)
    assert refused.status_code == 503 and re.search("key of personal data", refused.text)
    assert server.journal() == []
    assert server.predict({"age": 3}).status_code == 200
