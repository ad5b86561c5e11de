"""A search finds a subject in whatever form a file keeps it; and does not find what is not there."""

from __future__ import annotations

import gzip
import pickle
import sqlite3
import subprocess
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from orrery.data.pseudonyms import PREFIX
from orrery.data.traces import Needles, Search

MARA = PREFIX + "0123456789abcdef" * 2
OTHER = PREFIX + "fedcba9876543210" * 2


def _git(path: Path, text: str) -> None:
    for words in (["init", "-q", "--bare", "."], ["-c", "gc.auto=0", "hash-object", "-w", "--stdin"]):
        path.mkdir(exist_ok=True)
        subprocess.run(["git", *words], cwd=path, input=text.encode(), check=True, capture_output=True)


def _packed(path: Path, text: str) -> None:
    work = path.with_suffix(".work")
    work.mkdir()
    (work / "names").write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "w"], ["gc", "-q"]):
        subprocess.run([*git, *words], cwd=work, check=True, capture_output=True)
    (work / ".git").rename(path)
    (work / "names").unlink()


def _zstd(path: Path, text: str) -> None:
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(text.encode() * 10)


def _database(path: Path, text: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (who TEXT, body BLOB)")
        database.execute("INSERT INTO t VALUES (?, ?)", ["x", text.encode()])
    database.close()


def _deleted(path: Path, text: str) -> None:
    _database(path, text)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("DELETE FROM t")
    database.close()


def _archive(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("names", text * 50)


FORMS: dict[str, Callable[[Path, str], object]] = {
    "text": lambda path, text: path.write_text(f"call {text} again"),
    "beginning of it, as statistics have": lambda path, text: path.write_text(text[:32] + "z"),
    "pickle": lambda path, text: path.write_bytes(pickle.dumps({"who": text})),
    "array": lambda path, text: np.save(path.with_suffix(".npy"), np.array(["x", text])),
    "parquet": lambda path, text: pl.DataFrame({"a": ["x", text] * 50}).write_parquet(path, compression="zstd"),
    "parquet of lists": lambda path, text: pl.DataFrame({"a": [["x"], ["y", text]] * 50}).write_parquet(path),
    "arrow": lambda path, text: pl.DataFrame({"a": ["x", text] * 50}).write_ipc(path, compression="lz4"),
    "gzip": lambda path, text: path.write_bytes(gzip.compress(text.encode() * 20)),
    "zstd": _zstd,
    "archive": _archive,
    "database": _database,
    "database, deleted": _deleted,
    "git": _git,
    "git, packed": _packed,
    "name of a file": lambda path, text: path.with_name(text).write_text("x"),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path / "file", MARA)
    assert list(Search(tmp_path, Needles(OTHER, "Ole Brandstrup"))) == []
    search = Search(tmp_path, Needles(MARA))
    assert [trace.why for trace in search] == [""] and search.files >= 1
    (tmp_path / "other").mkdir()
    FORMS[form](tmp_path / "other" / "file", OTHER)
    assert len(list(Search(tmp_path / "other", Needles(MARA)))) == 0


@pytest.mark.parametrize(
    ("clear", "held"),
    [
        ("Mara Lindqvist", True),
        ("Åsa Öberg", True),  # JSON may have her in escapes
        ("a Lindqvis", False),  # in the middle of words
        ("1234567", True),
        ("123456", False),
        ("17", True),  # whole cells of a column that may hold her, and nothing else
        ("41", False),
    ],
)
def test_a_name_in_the_clear_is_found_where_it_stands_for_itself(tmp_path: Path, clear: str, held: bool) -> None:
    (tmp_path / "text").write_text('17 41 "Mara Lindqvist", 1234567; {"n": "\\u00c5sa \\u00d6berg"}')
    pl.DataFrame({"patient": [17.0], "age": [41]}).write_parquet(tmp_path / "rows.parquet")
    found = list(Search(tmp_path, Needles(MARA, clear, frozenset(["patient"]))))
    assert bool(found) == held


def test_what_cannot_be_read_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and nothing more")
    (trace,) = Search(tmp_path, Needles(MARA))
    assert trace.path == "torn.parquet" and trace.why


def test_what_is_being_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    writer = threading.Timer(0.2, lambda: pl.DataFrame({"a": [MARA, OTHER]}).write_parquet(path))
    writer.start()
    assert [trace.why for trace in Search(tmp_path, Needles(MARA))] == [""]
    writer.join()
    (tmp_path / "empty").touch()
    assert list(Search(tmp_path, Needles(PREFIX + "0" * 32))) == []
