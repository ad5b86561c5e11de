"""The link to the control plane: fetch the assignment, report what became of it; never wait for it to serve.

One thread does all of it, with the standard library's client: it may hang for as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from orrery.errors import Damaged
from orrery.serving.assignment import AssignmentFile, read
from orrery.serving.fleet import Fleet
from orrery.serving.log import say
from orrery.serving.passes import Passes

EVERY = 0.25
COUNTS_EVERY = 2.0
TIMEOUT = 3.0


class ControlLink:
    """Follows the control plane's assignments.

    Parameters
    ----------
    url : address of the control plane.
    server : name of this inference server.
    fleet : carries the assignments out.
    file : keeps the last one.
    served : returns the rows that each slot has predicted.
    threads : executor of one thread for the requests.
    key : what the control plane knows this orrery's own processes by, where access is required.
    passes : returns what counts requests that were denied.
    """

    def __init__(
        self,
        url: str,
        server: str,
        fleet: Fleet,
        file: AssignmentFile,
        served: Callable[[], dict[str, int]],
        threads: Executor,
        key: str = "",
        passes: Callable[[], Passes | None] = lambda: None,
    ) -> None:
        self._passes = passes
        self._authorization = {"Authorization": f"Bearer {key}"} if key else {}
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._server, self._fleet, self._file, self._served = server, fleet, file, served
        self._threads = threads
        self._connection: http.client.HTTPConnection | None = None
        self._etag = ""
        self._reported: dict[str, Any] = {}
        self._counted = 0.0
        self._wake = asyncio.Event()
        self._silent = False
        self._damaged: dict[str, str] = {}

    def wake(self) -> None:
        """Something changed: report it now."""
        self._wake.set()

    async def run(self) -> None:
        """Follow the control plane until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._once(loop)
                self._silent = False
            except Exception as error:  # whatever the control plane says, serving goes on and it is asked again
                self._close()
                if not self._silent:
                    self._silent = True
                    say(f"the control plane cannot be followed ({error!r}); serving goes on with what is assigned")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._wake.wait()
            self._wake.clear()

    async def _once(self, loop: asyncio.AbstractEventLoop) -> None:
        fleet = self._fleet
        query = urlencode({"applied": fleet.applied, "server": self._server, "failed": ",".join(fleet.failed)})
        headers = {"If-None-Match": self._etag} if self._etag else {}
        status, found, body = await loop.run_in_executor(
            self._threads, self._ask, "GET", f"/api/serving/assignment?{query}", None, headers
        )
        if status == 200:
            self._take(body)
            self._etag = found
        elif status != 304:
            raise http.client.HTTPException(f"status {status}")
        await self._report(loop)

    def _take(self, body: bytes) -> None:
        try:
            fresh = read(body)
        except Damaged as error:
            say(str(error))
            self._damaged = {"assignment": str(error)}
            return
        self._damaged = {}
        if fresh != self._fleet.assignment:
            try:
                self._file.save(fresh)
            except OSError as error:
                say(f"the assignment cannot be kept on disk: {error}")
            self._fleet.apply(fresh)

    async def _report(self, loop: asyncio.AbstractEventLoop) -> None:
        report: dict[str, Any] = {
            "server": self._server,
            "applied": self._fleet.applied,
            "failed": {**self._fleet.failed, **self._damaged},
            "taken": self._fleet.taken,
        }
        counts = dict(self._served())
        changed = report != {key: self._reported.get(key) for key in report}
        counted = counts != self._reported.get("served") and loop.time() >= self._counted + COUNTS_EVERY
        passes = self._passes()
        denied = dict(passes.denied) if passes is not None else {}
        counted = counted or (bool(denied) and loop.time() >= self._counted + COUNTS_EVERY)
        if changed or counted:
            told = [{"account": who, "model": model, "times": times} for (who, model), times in denied.items()]
            full = {**report, "served": counts, "denied": told}
            status, _, _ = await loop.run_in_executor(
                self._threads, self._ask, "POST", "/api/serving/report", msgspec.json.encode(full), _JSON
            )
            if status >= 300:
                raise http.client.HTTPException(f"status {status} for a report")
            self._reported, self._counted = full, loop.time()
            self._fleet.told(list(report["taken"]))
            if passes is not None:
                passes.told(denied)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, str, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            self._connection.request(method, path, body, {**headers, **self._authorization})
            answer = self._connection.getresponse()
            return answer.status, answer.getheader("ETag") or "", answer.read()
        except (OSError, http.client.HTTPException):
            self._close()
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_JSON = {"Content-Type": "application/json"}
