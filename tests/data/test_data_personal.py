"""Marked columns never reach the disk in the clear; columns without a mark stay as they are."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from orrery.app import Orrery
from orrery.data.contract import Contract
from orrery.data.personal import ERASED
from orrery.data.pseudonyms import Pseudonyms, privacy_key
from orrery.data.sealed import HIDDEN
from orrery.errors import Damaged, NotAllowed, NotUnderstood
from orrery.settings import Settings, load
from orrery.timeline.event import Draft

MARKS = """
[columns.patient]
type = "string"
subject = true

[columns.name]
type = "string"
personal = "encrypted"

[columns.doctor]
type = "string"
personal = true
"""
ROWS = pl.DataFrame(
    {
        "patient": [10_000_017, 10_000_018, None],
        "name": ["Mara Lindqvist", "Ole Brandstrup", "Nobody Knows"],
        "doctor": ["Dr. Vandermeer", "Dr. Vandermeer", "Dr. Okonkwo"],
        "age": [41, 52, 60],
    }
)
CLEAR = ("10000017", "10000018", "Mara Lindqvist", "Ole Brandstrup", "Dr. Vandermeer", "Dr. Okonkwo")


def texts(home: Path) -> str:
    """Return all that is in the home folder, tables decoded."""
    found = []
    for path in home.rglob("*"):
        if path.suffix == ".parquet":
            found.append(pl.read_parquet(path, hive_partitioning=False).write_ndjson())
        elif path.is_file():
            found.append(path.read_bytes().decode("latin-1"))
    return "\n".join(found)


@pytest.fixture
def orrery(home: Settings) -> Orrery:
    return Orrery(home)


def declared(orrery: Orrery, text: str = MARKS) -> Orrery:
    orrery.change_contract("visits", Contract.from_toml(text), why="Patients are people.", actor="ann")
    return orrery


def test_marked_columns_are_not_in_any_file(orrery: Orrery) -> None:
    declared(orrery)
    bad = ROWS.head(2).with_columns(age=pl.lit("old"))
    assert orrery.add_data("visits", ROWS, why="clinic", actor="ann").rows == 3
    assert orrery.add_data("visits", bad, why="clinic", actor="ann").quarantined == 2
    held = texts(orrery.settings.home)
    assert [value for value in CLEAR if value in held] == []
    rows = orrery.lake.read("visits").polars()
    assert rows.columns == ["patient", "doctor", "age"]
    assert rows["patient"].to_list() == [*map(orrery.privacy.pseudonyms.of, [10_000_017, "10000018"]), None]
    assert rows["doctor"].n_unique() == 2
    # The same rows without marks are there in the clear: the search finds what there is to find.
    orrery.add_data("open", ROWS.with_columns(pl.col("patient").cast(pl.String)), why="clinic", actor="ann")
    held = texts(orrery.settings.home)
    assert [value for value in CLEAR if value in held] == list(CLEAR)


def test_rules_for_what_was_not_declared_are_inferred(orrery: Orrery) -> None:
    many = pl.DataFrame({"patient": [f"p{n}" for n in range(1500)], "age": [n % 90 for n in range(1500)]})
    declared(orrery).add_data("visits", many, why="clinic", actor="ann")
    contract = Contract.from_dict(orrery.states.data().datasets["visits"].contract or {})
    assert contract.columns["age"].max == 89 + 2 * 89
    assert contract.columns["patient"].personal == "pseudonymised" and contract.subject == "patient"
    assert contract.to_dict() == Contract.from_toml(contract.to_toml()).to_dict()
    wrong = pl.DataFrame({"patient": ["p9999"], "age": [1000]})
    assert orrery.add_data("visits", wrong, why="clinic", actor="ann").reasons == {"age is above 267": 1}


def test_what_is_encrypted_opens_with_the_key_of_its_subject_alone(orrery: Orrery) -> None:
    declared(orrery).add_data("visits", ROWS, why="clinic", actor="ann")
    rules = Contract.from_toml(MARKS)
    table = orrery.lake.table("datasets", "visits").scan().sort("_row").collect()
    assert orrery.privacy.opened(rules, table, "visits")["name"].to_list() == ROWS["name"].to_list()
    turned = table.with_columns(pl.col(HIDDEN + "name").reverse())
    with pytest.raises(Damaged):
        orrery.privacy.opened(rules, turned, "visits")
    mara = orrery.privacy.pseudonyms.of(10_000_017)
    assert mara and orrery.privacy.sealed.forget(mara) and not orrery.privacy.sealed.forget(mara)
    assert orrery.privacy.opened(rules, table, "visits")["name"].to_list() == [None, *ROWS["name"].to_list()[1:]]
    (orrery.settings.home / "privacy" / "key").write_text("another key, which is long enough to be one")
    with pytest.raises(Damaged, match="not the one"):
        Orrery(orrery.settings).privacy.opened(rules, table, "visits")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[columns.a]\ntype = "string"\npersonal = "hashed"', "Invalid enum value"),
        ('[columns.a]\ntype = "string"\npersonl = true', "Did you mean 'personal'"),
        ('[columns.a]\ntype = "integer"\npersonal = true', "pseudonymised and of type integer"),
        ('[columns.a]\ntype = "string"\npersonal = true\ncategories = ["Mara"]', "categories, limits or an order"),
        ('[columns.a]\ntype = "number"\npersonal = "plain"\nmin = 3', "categories, limits or an order"),
        ('[columns.a]\ntype = "string"\npersonal = true\n[present.a]\nMara = 0.5', "categories, limits or an order"),
        ('[columns.a]\ntype = "string"\npersonal = "encrypted"\nsubject = true', "nobody could be found"),
        (
            '[columns.a]\ntype = "string"\nsubject = true\n[columns.b]\ntype = "string"\nsubject = true',
            "A row is of one subject",
        ),
    ],
)
def test_marks_that_cannot_be_kept_are_refused(text: str, words: str) -> None:
    with pytest.raises(NotUnderstood) as refused:
        Contract.from_toml(text)
    assert words in str(refused.value)


def test_rows_that_are_there_stay_what_their_marks_say(orrery: Orrery) -> None:
    orrery.add_data("visits", ROWS.cast({"patient": pl.String}), why="clinic", actor="ann")
    with pytest.raises(NotAllowed, match="in the clear"):
        declared(orrery)
    orrery.add_data("other", ROWS.select("age"), why="clinic", actor="ann")
    plain = Contract.from_toml('[columns.age]\ntype = "integer"\npersonal = "plain"')
    orrery.change_contract("other", plain, why="An age may say who it is.", actor="ann")


def test_the_key_is_read_from_where_the_setting_says(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("ORRERY_HOME", str(home.home))
    monkeypatch.setenv("ORRERY_PRIVACY_KEY", str(elsewhere))
    with pytest.raises(NotAllowed, match="cannot be read"):
        declared(Orrery(load())).add_data("visits", ROWS, why="clinic", actor="ann")
    assert Orrery(load()).lake.names() == []
    elsewhere.write_text("k" * 31)
    with pytest.raises(NotUnderstood, match="shorter"):
        privacy_key(load())
    elsewhere.write_text("k" * 40)
    assert Orrery(load()).privacy.pseudonyms.of("x") == Pseudonyms(b"k" * 40).of("x") != Pseudonyms(b"l" * 40).of("x")
    assert not (home.home / "privacy" / "key").exists()
    monkeypatch.setenv("ORRERY_PRIVACY_KEY", "https://kms.example")
    with pytest.raises(NotUnderstood, match="no key service"):
        privacy_key(load())


def test_rows_of_who_was_erased_are_not_taken_again(orrery: Orrery) -> None:
    declared(orrery).add_data("visits", ROWS, why="clinic", actor="ann")
    names = orrery.privacy.pseudonyms
    grave = names.grave(names.of(10_000_017) or "")
    orrery.append([Draft(kind="erasure_asked", actor="ann", why="She asked.", data={"grave": grave})])
    again = orrery.add_data("visits", ROWS, why="clinic", actor="ann")
    assert (again.rows, again.reasons) == (2, {ERASED: 1})
    alone = orrery.add_data("visits", ROWS.head(1), why="clinic", actor="ann")
    assert (alone.version, alone.rows, alone.reasons) == (None, 0, {ERASED: 1})
