"""Git over HTTP: what ``git push`` and ``git clone`` speak, handed to git's own ``http-backend``."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from orrery.errors import NotUnderstood
from orrery.settings import Settings
from orrery.source.git import Source, environment
from orrery.source.hooks import QUIET, install
from orrery.types import check_name

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SERVICES = ("git-upload-pack", "git-receive-pack")
BLOCK = 65536
PATIENCE = 5.0
"""Seconds that git gets to end what it is at, when its client has gone."""

_PATH = re.compile(r"/([^/]+?)(?:\.git)?/(info/refs|git-upload-pack|git-receive-pack)")
_LISTS = re.compile(rb"[0-9a-f]{4}command=ls-refs\b")
"""How a request begins that asks for the names of branches, and for no commit."""
_log = logging.getLogger(__name__)


def git_app(
    settings: Settings, *, quiet: float = 15.0, read: Callable[[str, str], None] = lambda who, project: None
) -> App:
    """Return the repositories of one orrery as an ASGI app to mount; ``/NAME.git`` is one, made by its first push.

    Who pushes is told by the header ``X-Orrery-Actor`` or the user name of basic authentication, and reaches the hooks
    as ``REMOTE_USER``.

    Parameters
    ----------
    quiet : seconds without an event and without a worker, after which a push ends and says so.
    read : is told who takes commits of which project, before they are given.
    """
    source = Source(settings)
    install(settings)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        root = scope.get("root_path", "")
        match = _PATH.fullmatch(scope["path"].removeprefix(root) if root else scope["path"])
        wanted = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("service", [""])[0]
        method = "GET" if match and match[2] == "info/refs" else "POST"
        service = wanted if method == "GET" else match[2] if match else ""
        if match is None or scope["method"] != method or service not in SERVICES:
            await _answer(send, 404, "Only git's smart HTTP protocol is served here: git clone, fetch and push.")
            return
        try:
            name = check_name(match[1], "repository")
            if service == "git-receive-pack":
                await asyncio.to_thread(source.create, name)
        except NotUnderstood as error:
            await _answer(send, 404, str(error))
            return
        if not (source.repos / f"{name}.git").is_dir():
            await _answer(send, 404, f"There is no repository {name}: it is made by the first push to its address.")
            return
        if match[2] == "git-upload-pack":
            first = await receive()
            receive = _again(first, receive)
            if not _LISTS.match(first.get("body", b"")):
                await asyncio.to_thread(read, _actor(dict(scope["headers"])) or "git", name)
        await _run(source, name, f"/{name}.git/{match[2]}", quiet, scope, receive, send)

    return app


def _again(first: MutableMapping[str, Any], receive: Receive) -> Receive:
    """Return what gives a message that was looked at once more, and then those that follow."""
    waiting = [first]

    async def messages() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return messages


async def _run(source: Source, name: str, path: str, quiet: float, scope: Scope, receive: Receive, send: Send) -> None:
    """Let git answer one request; body and answer pass through as they come."""
    reading, writing = os.pipe()
    answer = asyncio.StreamReader(limit=BLOCK)
    with open(reading, "rb") as end:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(answer), end
        )
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                "http-backend",
                stdin=asyncio.subprocess.PIPE,
                stdout=writing,
                stderr=asyncio.subprocess.PIPE,
                env=_variables(source, name, path, scope) | {QUIET: str(quiet)},
                cwd=source.repos,
                start_new_session=True,  # Ctrl-C at `orrery up` must not end a push half-way
            )
        finally:
            os.close(writing)
        assert process.stdin is not None and process.stderr is not None
        gone = asyncio.create_task(_feed(receive, process.stdin))
        relayed = asyncio.create_task(_relay(answer, send))
        said = asyncio.create_task(process.stderr.read())
        try:
            await asyncio.wait({gone, relayed}, return_when=asyncio.FIRST_COMPLETED)
            if relayed.done():
                relayed.result()
            if gone.done():
                gone.result()  # what was sent is larger than it may be
            # A client that has gone does not undo its push: what is under way may end, the following of it must.
            if await asyncio.wait_for(process.wait(), PATIENCE) != 0:
                _log.warning("git http-backend for %s: %s", path, (await said).decode(errors="replace").strip())
        except TimeoutError:
            _log.info("The client of %s has gone", path)
        finally:
            for task in (gone, relayed, said):
                task.cancel()
            transport.close()
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGTERM)  # a push that is in and has no event yet gets it by `announce`


async def _feed(receive: Receive, body: asyncio.StreamWriter) -> None:
    """Hand the body on to git; return when the client has gone."""
    more = True
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if more:
            more = message.get("more_body", False)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # git has ended: its answer says why
                body.write(message.get("body", b""))
                await body.drain()
                if not more:
                    body.close()


async def _relay(answer: asyncio.StreamReader, send: Send) -> None:
    """Hand git's answer on to the client."""
    status, headers = 200, []
    while line := (await answer.readline()).strip():
        key, _, value = line.partition(b":")
        if key.lower() == b"status":
            status = int(value.split()[0])
        else:
            headers.append((key.lower(), value.strip()))
    if not headers:
        await _answer(send, 500, "git gave no answer; the log of orrery says why.")
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while block := await answer.read(BLOCK):
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _variables(source: Source, name: str, path: str, scope: Scope) -> dict[str, str]:
    """Return what http-backend wants to know, as a web server would say it."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    variables = environment(source.settings, source.repos / f"{name}.git") | source.settings.environment()
    actor = _actor(headers) or "git"
    variables |= {
        "GIT_PROJECT_ROOT": str(source.repos),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": path,
        "REQUEST_METHOD": scope["method"],
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "REMOTE_ADDR": (scope.get("client") or ("",))[0],
        "REMOTE_USER": actor,
        "ORRERY_ACTOR": actor,
    }
    for header, variable in (
        (b"content-type", "CONTENT_TYPE"),
        (b"content-length", "CONTENT_LENGTH"),
        (b"content-encoding", "HTTP_CONTENT_ENCODING"),
        (b"git-protocol", "GIT_PROTOCOL"),
    ):
        if header in headers:
            variables[variable] = headers[header].decode("latin-1")
    return variables


def _actor(headers: dict[bytes, bytes]) -> str:
    named = headers.get(b"x-orrery-actor", b"").decode("latin-1").strip()
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    if not named and scheme.lower() == b"basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            named = base64.b64decode(given, validate=True).decode().partition(":")[0].strip()
    return "".join(letter for letter in named if letter.isprintable())[:200]


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
