"""Reading files: types from all rows, dates, folders, addresses, and errors that say where."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from orrery.data.files import read_files
from orrery.errors import NotFound, NotUnderstood


def read(*sources: object) -> pl.DataFrame:
    return pl.concat(read_files([str(source) for source in sources]))


def test_types_come_from_the_whole_file_and_dates_are_parsed(tmp_path: Path) -> None:
    lines = [f"{i},x,2013-01-0{1 + i % 9},2013-01-01T05:00:00Z,NA" for i in range(300)]
    lines.append("0.5,,2013-02-01,2013-01-01 06:30,")
    (tmp_path / "a.csv").write_text("\n".join(["a,b,c,d,e", *lines]))
    frame = read(tmp_path / "a.csv")
    assert frame.schema == {
        "a": pl.Float64,
        "b": pl.String,
        "c": pl.Date,
        "d": pl.Datetime("us", "UTC"),
        "e": pl.Null,
    }
    assert frame.row(300) == (0.5, None, date(2013, 2, 1), datetime(2013, 1, 1, 6, 30, tzinfo=UTC), None)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2013-01-01T05:00:00", 5),
        ("2013-01-01 05:00", 5),
        ("2013-01-01T07:00:00.000+02:00", 5),
        ("2013-01-01T03:00-0200", 5),
        ("2013-01-01T05:00:00.123456Z", 5),
    ],
)
def test_instants_in_their_spellings(tmp_path: Path, text: str, hour: int) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"t": "{text}"}}\n{{"t": null}}\n')
    assert read(tmp_path / "a.jsonl")["t"][0].hour == hour


def test_text_that_is_not_always_a_date_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t\n2013-01-01\nsoon\n")
    assert read(tmp_path / "a.csv")["t"].to_list() == ["2013-01-01", "soon"]


def test_a_folder_of_kinds_is_one_table(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,\n")
    (tmp_path / "2.jsonl").write_text('{"a": 2.5, "b": "x"}\n')
    pl.DataFrame({"a": [3], "b": ["y"]}).write_parquet(tmp_path / "3.parquet")
    (tmp_path / "4.csv.gz").write_bytes(gzip.compress(b"a,b\n4,z\n"))
    (tmp_path / "notes.txt").write_text("no data")
    frame = pl.concat(read_files([str(tmp_path)]), how="vertical")
    assert frame["a"].to_list() == [1.0, 2.5, 3.0, 4.0]
    assert frame["b"].to_list() == [None, "x", "y", "z"]


def test_large_files_come_in_chunks(tmp_path: Path) -> None:
    pl.DataFrame({"i": range(2500)}).write_csv(tmp_path / "a.csv")
    frames = list(read_files([str(tmp_path / "a.csv")], chunk=1000))
    assert [frame.height for frame in frames] == [1000, 1000, 500]
    assert pl.concat(frames)["i"].to_list() == list(range(2500))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b\n1,2\n3,4,5\n", r"a\.csv cannot be read, line 3: 3 fields where the header has 2"),
        ("a.jsonl", b'{"a": 1}\n{"a": 2,\n', r"a\.jsonl cannot be read, line 2"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a\.jsonl cannot be read, line 2: a JSON object is wanted"),
        ("a.csv", b"", r"a\.csv cannot be read: it is empty"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet cannot be read"),
        ("a.xlsx", b"x", r"of no kind that can be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotUnderstood, match=message):
        read(tmp_path / name)


def test_files_that_disagree_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("v\n1\n")
    (tmp_path / "b.csv").write_text("v\nx\n")
    with pytest.raises(NotUnderstood, match=r"'v' is Int64 in .*a\.csv and String in .*b\.csv"):
        read(tmp_path / "a.csv", tmp_path / "b.csv")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        read(tmp_path / "none.csv")
    with pytest.raises(NotFound, match="no CSV"):
        read(tmp_path)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.csv").write_text("a\n1\n2\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_address_is_fetched(address: str) -> None:
    assert read(f"{address}/a.csv")["a"].to_list() == [1, 2]
    with pytest.raises(NotFound, match="404"):
        read(f"{address}/b.csv")


@pytest.mark.parametrize(
    ("secret", "shown"), [("mara:p:w", "Basic bWFyYTpwOnc="), ("a-token", "Bearer a-token"), ("", None)]
)
def test_an_address_is_opened_by_a_secret(secret: str, shown: str | None) -> None:
    seen: list[str | None] = []

    class Asking(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            moved = self.path == "/moved.csv"
            self.send_response(302 if moved else 200)
            if moved:
                self.send_header("Location", f"http://localhost:{server.server_port}/a.csv")
            self.end_headers()
            self.wfile.write(b"" if moved else b"a\n1\n")

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        frame = pl.concat(read_files([f"{place}/a.csv", f"{place}/moved.csv"], secret=secret))
        server.shutdown()
    assert frame["a"].to_list() == [1, 1] and seen == [shown, shown, None]  # another host is not shown it


def test_a_secret_does_not_leave_in_the_clear() -> None:
    with pytest.raises(NotUnderstood, match="in the clear"):
        list(read_files(["http://data.example.org/a.csv"], secret="mara:password"))
    with pytest.raises(NotUnderstood, match="not a JSON object"):
        list(read_files(["s3://bucket/a.csv"], secret="mara:password"))
