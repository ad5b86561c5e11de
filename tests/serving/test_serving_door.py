"""The limits at the door, met by real sockets; and whatever somebody does there, the server answers the others."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

PATH = "/models/m/predict"
ROW = b'{"echo": 0.25}'
LIMITS = {
    "body": 1 << 20,
    "bodies": 3 << 20,
    "requests": 8,
    "seconds": 1.0,
    "header": 16 << 10,
    "header_seconds": 1.0,
    "connections": 40,
}


@pytest.fixture(scope="module")
def strict(served: Any) -> Iterator[Any]:
    """A server with small limits, whose model takes a while for some rows."""
    found = served()
    found.start(**LIMITS)
    found.assign(found.slot(7), found.slot(8, model="slow", plan={"sleep": 0.4}))
    yield found
    found.close()


class Line:
    """One connection."""

    def __init__(self, served: Any) -> None:
        self.socket = socket.create_connection(("127.0.0.1", served.port), timeout=20)

    def send(self, data: bytes) -> Line:
        self.socket.sendall(data)
        return self

    def answers(self) -> list[tuple[int, dict[str, str], bytes]]:
        """Read until the other side closes, and return status, header fields and body of each answer."""
        got = b""
        try:
            while data := self.socket.recv(1 << 16):
                got += data
        except ConnectionResetError:
            pass
        self.socket.close()
        found = []
        while got:
            head, _, got = got.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            size = int(fields.get("content-length", 0))
            found.append((int(first.split()[1]), fields, got[:size]))
            got = got[size:]
        return found

    def status(self) -> list[int]:
        return [status for status, _, _ in self.answers()]


def post(body: bytes, *fields: str, path: str = PATH, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {size}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + (b"0\r\n\r\n" if end else b"")


def answers_others(served: Any) -> None:
    """Check that somebody else is answered now."""
    assert served.predict({"echo": 0.5}).json()["probability"] == 0.5


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"hello\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"GET /%zz\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        post(ROW, "content-length: 3", "connection: close"),
        post(ROW, "transfer-encoding: chunked", "connection: close"),
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\nconnection: close\r\n\r\n".encode(),
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: ten\r\nconnection: close\r\n\r\n".encode(),
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {1 << 70}\r\nconnection: close\r\n\r\n".encode(),
        chunked().replace(b"0\r\n", b"zz\r\n"),
    ],
)
def test_what_is_no_http_is_refused(strict: Any, data: bytes) -> None:
    assert all(status == 400 for status in Line(strict).send(data).status())
    answers_others(strict)


def test_a_header_that_is_too_long(strict: Any) -> None:
    assert Line(strict).send(post(ROW, "x-a: " + "a" * (64 << 10))).status() in ([431], [])
    assert Line(strict).send(post(ROW, *(f"x-{n}: {n}" for n in range(2000)))).status() in ([431], [])
    assert Line(strict).send(f"GET /{'a' * (64 << 10)} HTTP/1.1\r\nhost: x\r\n\r\n".encode()).status() in ([431], [])
    answers_others(strict)


def test_a_header_that_never_ends_and_a_connection_that_says_nothing(strict: Any) -> None:
    lines = [Line(strict).send(b"POST / HTTP/1.1\r\nhost:"), Line(strict)]
    answers_others(strict)
    for line in lines:
        assert line.status() in ([408], [])  # it ends, and that within the second


def test_a_body_that_drips_is_given_up(strict: Any) -> None:
    line = Line(strict).send(post(b'{"echo', length=100))
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            try:
                line.send(b" ")
            except OSError:
                return

    dripping = threading.Thread(target=drip)
    dripping.start()
    answers_others(strict)
    [(status, fields, body)] = line.answers()
    stop.set()
    dripping.join()
    assert (status, fields["connection"]) == (408, "close")
    assert json.loads(body)["error"].startswith("The request's body was not there after 1 s.")
    assert Line(strict).send(chunked(b'{"echo"', end=False)).status() == [408]


def test_who_leaves_in_the_middle_harms_nobody(strict: Any) -> None:
    for data in (post(ROW, length=1000), chunked(ROW[:5], end=False), chunked(ROW[:5], ROW[5:])[:-14], b"POST /"):
        line = Line(strict).send(data)
        line.socket.shutdown(socket.SHUT_WR)
        assert all(status in (400, 408) for status in line.status())
        Line(strict).send(data).socket.close()
    gone = Line(strict).send(post(b'{"echo": 0.75}', path="/models/slow/predict"))
    gone.socket.close()
    answers_others(strict)


def test_a_table_that_may_have_broken_off_is_not_read(strict: Any) -> None:
    for path, kind in (("/models/m/invocations", "text/csv"), (PATH, "application/vnd.apache.arrow.stream")):
        answer = strict.http.post(path, content=iter([b"echo\n", b"0.25\n"]), headers={"content-type": kind})
        assert (answer.status_code, "Content-Length" in answer.text) == (411, True)
    packed = {"content-type": "text/csv", "content-encoding": "gzip"}
    answer = strict.http.post("/models/m/invocations", content=iter([gzip.compress(b"echo\n0.25\n")]), headers=packed)
    assert answer.json() == {"predictions": [0.25]}


def test_who_closes_its_half_before_the_answer_has_left(strict: Any) -> None:
    line = Line(strict).send(post(b'{"echo": 0.75}', path="/models/slow/predict"))
    line.socket.shutdown(socket.SHUT_WR)
    assert line.status() == []  # told by the page, too: the HTTP server takes it for somebody who has gone
    answers_others(strict)


def test_requests_one_after_the_other_without_waiting(strict: Any) -> None:
    rows = [json.dumps({"echo": number / 10}).encode() for number in range(5)]
    data = b"".join(map(post, rows)) + post(b"[", "x-request-id: bad") + post(ROW, "connection: close")
    found = Line(strict).send(data).answers()
    assert [status for status, _, _ in found] == [200] * 5 + [400, 200]
    assert [json.loads(body)["probability"] for _, _, body in found[:5]] == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_too_many_requests_at_once_are_told_to_come_back(strict: Any) -> None:
    lines = [
        Line(strict).send(post(b'{"echo": 0.25}', "connection: close", path="/models/slow/predict")) for _ in range(24)
    ]
    found = [line.answers()[0] for line in lines]
    refused = [(fields, body) for status, fields, body in found if status == 429]
    assert refused and {status for status, _, _ in found} == {200, 429}
    assert all(fields["retry-after"] == "1" for fields, _ in refused)
    assert "requests are being answered" in json.loads(refused[0][1])["error"]
    answers_others(strict)


def test_too_many_bytes_at_once_are_told_to_come_back(strict: Any) -> None:
    held = [Line(strict).send(post(b"[", length=1 << 20)) for _ in range(3)]
    strict.until(lambda: Line(strict).send(post(ROW, "connection: close")).status() == [429], 5)
    assert [line.status() for line in held] == [[408]] * 3
    answers_others(strict)


def test_too_many_connections_wait_their_turn(strict: Any) -> None:
    idle = [Line(strict) for _ in range(60)]
    late = Line(strict).send(post(ROW, "connection: close"))
    assert late.status() == [200]  # once the idle ones have been closed
    assert all(line.status() in ([], [408]) for line in idle)


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(ROW, mtime=0), "gzip", 200),
        (gzip.compress(ROW, mtime=0), "x-gzip", 200),
        (zlib.compress(ROW), "deflate", 200),
        (ROW, "identity", 200),
        (gzip.compress(bytes(64 << 20), mtime=0), "gzip", 413),
        (zlib.compress(bytes(64 << 20)), "deflate", 413),
        (gzip.compress(ROW, mtime=0)[:-4], "gzip", 400),
        (gzip.compress(ROW, mtime=0) + b"x", "gzip", 400),
        (ROW, "gzip", 400),
        (b"", "gzip", 400),
        (ROW, "br", 415),
        (gzip.compress(ROW, mtime=0), "gzip, gzip", 415),
    ],
)
def test_packed_bodies(strict: Any, body: bytes, encoding: str, status: int) -> None:
    answer = strict.http.post(PATH, content=body, headers={"content-encoding": encoding})
    assert answer.status_code == status, answer.text
    assert answer.json()["probability"] == 0.25 if status == 200 else answer.json()["error"]


def test_large_answers_are_packed_for_who_accepts_it(strict: Any) -> None:
    rows = [{"echo": number / 7} for number in range(9000)]
    packed = strict.http.post(PATH, json=rows)
    plain = strict.http.post(PATH, json=rows, headers={"accept-encoding": "identity", "x-request-id": "x"})
    assert (packed.headers.get("content-encoding"), plain.headers.get("content-encoding")) == ("gzip", None)
    assert packed.json()["probability"] == plain.json()["probability"]
    assert "content-encoding" not in strict.http.post(PATH, json=rows[:10]).headers


def test_a_trace_goes_on(strict: Any) -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    told = strict.predict(traceparent=given).headers["traceparent"]
    assert (told[:36], told[-2:]) == (given[:36], "01")
    assert told != given and len(told) == len(given)
    for odd in ("", "x", given.upper(), given[:-1], given + "-more", "ff" + given[2:], f"00-{'0' * 32}-{'1' * 16}-01"):
        assert "traceparent" not in strict.predict(traceparent=odd).headers
    assert "traceparent" in strict.predict(traceparent="01" + given[2:] + "-more").headers


def test_what_follows_a_request_that_is_none(strict: Any) -> None:
    found = Line(strict).send(post(ROW) + post(ROW) + b"hello\r\n\r\n" + post(ROW)).answers()
    assert [status for status, _, _ in found] == [200, 200, 400]
    found = Line(strict).send(post(ROW) + post(ROW, "connection: close") + post(ROW)).answers()
    assert [(status, fields.get("connection")) for status, fields, _ in found] == [(200, None), (200, "close")]


def test_another_protocol_that_is_offered_is_not_taken(strict: Any) -> None:
    offer = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA")
    data = post(ROW, *offer) + post(b'{"echo": 0.5}', "connection: close")
    found = Line(strict).send(data).answers()
    assert [json.loads(body)["probability"] for _, _, body in found] == [0.25, 0.5]


def test_a_body_that_waits_to_be_asked_for(strict: Any) -> None:
    line = Line(strict).send(post(b"", "expect: 100-continue", "connection: close", length=len(ROW)))
    assert line.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert line.send(ROW).status() == [200]


def test_an_answer_before_the_body_is_there(strict: Any) -> None:
    line = Line(strict).send(post(ROW[:5], path="/nowhere", length=len(ROW)))
    assert b"405" in line.socket.recv(1000)
    assert line.send(ROW[5:] + post(ROW, "connection: close")).status()[-1] == 200
    line = Line(strict).send(post(ROW[:5], path="/nowhere", length=len(ROW)))
    assert line.status() == [405]  # and the connection ends, when the rest does not come


def test_who_wants_only_the_header(strict: Any) -> None:
    ask = b" /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    [(status, fields, body)] = Line(strict).send(b"HEAD" + ask).answers()
    [(_, same, whole)] = Line(strict).send(b"GET" + ask).answers()
    assert (status, body) == (200, b"") and int(fields["content-length"]) == len(whole) > 0
    assert fields.keys() == same.keys() >= {"date", "content-type"}


def test_http_1_0(strict: Any) -> None:
    ask = b"GET /v2/health/live HTTP/1.0\r\n"
    [(_, fields, _)] = Line(strict).send(ask + b"\r\n").answers()
    assert fields["connection"] == "close"
    found = Line(strict).send(ask + b"connection: keep-alive\r\n\r\n" + ask + b"\r\n").answers()
    assert [fields["connection"] for _, fields, _ in found] == ["keep-alive", "close"]


def test_fields_after_the_body_do_not_fill_the_memory(strict: Any) -> None:
    line = Line(strict).send(chunked(ROW, end=False) + b"0\r\nx-a: b\r\n\r\n")
    assert line.status() == [200]
    line = Line(strict).send(chunked(ROW, end=False) + b"0\r\nx-a: " + b"a" * (3 << 20))
    assert line.status() == [400]  # before it ends


def test_who_does_not_take_its_answers_is_not_read_any_more(strict: Any) -> None:
    data = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 200
    line = Line(strict)
    with line.socket, pytest.raises(OSError):
        for _ in range(1000):
            line.send(data)
    answers_others(strict)
