"""A soak: promotions, rollbacks, challengers, canaries and kills under load; nothing may fail, nothing may be lost.

``make soak`` runs ten minutes with 50 moves and four kills and keeps the verdict in ``benchmarks/results/soak.md``;
exit code 1 where a promise is broken. ``--sabotage lost`` or ``doubled`` spoils the log before it is counted: then the
soak must fail, which shows that it can.

What is counted. Clients ask ``/models/tides/predict``, each request with an id of its own, one after the other on a
connection that is kept. *Failed* is every answer but 200, and every connection that breaks, while the inference server
is up: that the process of a model, the worker that ships the journal, or the control plane is killed excuses nothing.
At the end the inference server itself is killed. Without replicas it refuses connections for a moment: requests without
an answer between that kill and its first answer after it are stated apart, and every prediction that it had
acknowledged must be in the log all the same. Then everything is stopped as Ctrl-C does it, what is left of the journal
is shipped, and the log is read as it is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import platform as machine
import random
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil

from acceptance.soak_check import Line, Told, judge, spoil, table
from acceptance.support import PIPELINE, QUIET, Platform, fresh_settings, tides, wait, write_project
from orrery.data.journal import FOLDER
from orrery.data.log import PredictionLog
from orrery.data.ship import ship
from orrery.timeline.verify import verify
from orrery.types import PRODUCTION

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "soak.md"
SHADOWED = QUIET.replace("[rollout.redesign]\nshadow = false", "[rollout.redesign]\nshadow = true")
KILLED = {"model process": "orrery.pipeline.host", "worker": "orrery.actions", "control plane": "orrery.web"}
SERVER = "orrery.serving"
WHY = {"why": "the soak moves"}
APPLIED_WITHIN = 30.0


@dataclass
class Load:
    """Clients that ask all the time, in a thread of their own.

    Parameters
    ----------
    port : of the inference server.
    clients : connections.
    pause : seconds that each rests between two requests.
    """

    port: int
    clients: int = 4
    pause: float = 0.01
    told: Told = field(default_factory=Told)
    broken: list[tuple[float, str]] = field(default_factory=list)
    """When a request was sent that lost its connection, and its id."""
    versions: list[int] = field(default_factory=list)
    """Version of each answer, in order."""

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        count, pipe = 0, None
        while not self._stop.is_set():
            count += 1
            asked, sent = f"soak-{number}-{count}", time.monotonic()
            try:
                if pipe is None:
                    pipe = await asyncio.open_connection("127.0.0.1", self.port)
                status, said = await asyncio.wait_for(self._ask(*pipe, asked, count), 30)
            except (OSError, EOFError, TimeoutError):
                self.broken.append((sent, asked))
                if pipe is not None:
                    pipe[1].close()
                pipe = None
                await asyncio.sleep(0.05)
                continue
            if status == 200:
                self.told.acknowledged[asked] = int(said["version"])
                self.versions.append(int(said["version"]))
            else:
                self.told.failed.append(f"{asked}: {status} {said}")
            await asyncio.sleep(self.pause)
        if pipe is not None:
            pipe[1].close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: str, count: int
    ) -> tuple[int, dict[str, Any]]:
        row = {"gauge": f"g{count % 97}", "moon": (count % 11) / 5 - 1, "wind": (count % 7) / 3 - 1}
        body = json.dumps(row).encode()
        head = f"POST /models/tides/predict HTTP/1.1\r\nhost: soak\r\nx-request-id: {asked}\r\n"
        writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        top = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(top.partition("content-length:")[2].partition("\r\n")[0])
        return int(top.split(" ", 2)[1]), json.loads(await reader.readexactly(length))

    def since(self, count: int) -> list[int]:
        """Versions of the answers after so many."""
        return self.versions[count:]

    def settle(self, outages: list[tuple[float, float]]) -> Told:
        """Return what was told, broken connections divided into failures and those of an outage."""
        for sent, asked in self.broken:
            # A request that was on its way at the kill was sent a moment before it.
            if any(began - 30.0 < sent <= ended for began, ended in outages):
                self.told.unanswered.add(asked)
            else:
                self.told.failed.append(f"{asked}: connection broken")
        return self.told


class Soak:
    """Moves and kills on a running platform with several released versions of tides.

    Parameters
    ----------
    platform : running, with version 1 of tides in production.
    load : that runs meanwhile.
    seed : of what is moved.
    """

    def __init__(self, platform: Platform, load: Load, seed: int = 0) -> None:
        self.platform, self.load, self._random = platform, load, random.Random(seed)
        self.moves: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        self.applied: list[float] = []
        """Seconds from an order of a champion to its first answer."""
        self.outages: list[tuple[float, float]] = []
        self.memory: list[tuple[float, float]] = []
        self.canaries = True
        """Whether this control plane knows canaries."""

    def run(self, seconds: float, moves: int) -> None:
        """Spread the moves over the time, and three kills among them; at the end kill the inference server."""
        began = time.monotonic()
        done = threading.Event()
        watching = threading.Thread(target=self._watch, args=(done,))
        watching.start()
        kills = list(KILLED)
        try:
            for number in range(moves):
                self._move()
                if kills and number + 1 >= moves * (len(KILLED) - len(kills) + 1) / (len(KILLED) + 1):
                    self.kill(kills.pop(0))
                left = began + seconds * (number + 1) / moves - time.monotonic()
                if left > 0:
                    time.sleep(left)
        finally:
            done.set()
            watching.join()
        self.kill_server()

    def _watch(self, done: threading.Event) -> None:
        """Sample the memory of the inference server's own process."""
        while not done.wait(0.5):
            try:
                self.memory.append((time.monotonic(), self._find(SERVER).memory_info().rss / 1e6))
            except (psutil.Error, StopIteration):
                continue

    def _find(self, module: str) -> psutil.Process:
        assert self.platform.process is not None
        below = psutil.Process(self.platform.process.pid).children(recursive=True)
        return next(one for one in below if _runs(one, module))

    def kill(self, kind: str) -> None:
        """Kill a process as ``kill -9`` does, and wait until another is in its place and answers are given."""
        try:
            old = self._find(KILLED[kind])
        except StopIteration:  # what is compiled has no process of its own
            self.moves[f"no {kind} to kill"] += 1
            return
        old.send_signal(signal.SIGKILL)
        self.kills[kind] += 1
        wait(lambda: self._again(KILLED[kind], old.pid), 60)
        if kind == "control plane":
            wait(self._control_answers, 60)

    def _again(self, module: str, but: int) -> bool:
        try:
            return self._find(module).pid != but
        except StopIteration:
            return False

    def _control_answers(self) -> bool:
        try:
            return self.platform.api("GET", "/api/status").is_success
        except httpx.HTTPError:
            return False

    def kill_server(self) -> None:
        """Kill the inference server, and wait until it answers again."""
        old, began = self._find(SERVER), time.monotonic()
        old.send_signal(signal.SIGKILL)
        self.kills["inference server"] += 1
        wait(lambda: self._again(SERVER, old.pid), 60)
        before = len(self.load.versions)
        wait(lambda: len(self.load.versions) > before + self.load.clients, 60)
        self.outages.append((began, time.monotonic()))

    def _move(self) -> None:
        """Order one move that the present state allows."""
        state = self.platform.orrery.model("tides")
        lane = state.lane(PRODUCTION)
        approved = [number for number, one in state.versions.items() if one.approved(PRODUCTION, "")]
        waiting = [one.number for one, environment, _ in state.waiting() if environment == PRODUCTION]
        others = [number for number in approved if number != lane.champion]
        choices: list[Callable[[], None]] = []
        if waiting:
            choices += [lambda: self._order("shadow", f"versions/{waiting[0]}/approve", WHY)] * 3
        if others:
            chosen = self._random.choice(others)
            choices += [lambda: self._champion("promotion", f"versions/{chosen}/promote", chosen)] * 4
            if not lane.challengers and self.canaries:
                choices += [lambda: self._canary(chosen)] * 3
        if lane.challengers:
            leaving = self._random.choice(list(lane.challengers))
            where = {**WHY, "environment": PRODUCTION}
            choices += [lambda: self._order("challenger retired", f"versions/{leaving}/retire", where)] * 2
        earlier = [number for number, _, _ in lane.tenures if number != lane.champion]
        if earlier:
            choices += [lambda: self._champion("rollback", "rollback", earlier[-1])] * 3
        self._random.choice(choices)()

    def _champion(self, what: str, path: str, version: int) -> None:
        """Order another champion, and wait until it is the one that answers."""
        began, before = time.monotonic(), len(self.load.versions)
        self._order(what, path, WHY)
        wait(lambda: version in self.load.since(before), APPLIED_WITHIN)
        self.applied.append(time.monotonic() - began)

    def _canary(self, version: int) -> None:
        """Let a version answer a third of the requests."""
        found = self.platform.api("POST", f"/api/models/tides/versions/{version}/promote", json={**WHY, "share": 0.3})
        if found.status_code == 201:
            self.moves["canary"] += 1
        else:
            assert found.status_code == 422 and "share" in found.text, found.text
            self.canaries = False
            self._move()

    def _order(self, what: str, path: str, body: dict[str, Any]) -> None:
        found = self.platform.api("POST", f"/api/models/tides/{path}", json=body)
        assert found.status_code == 201, f"{what}: {found.text}"
        self.moves[what] += 1


def _runs(process: psutil.Process, module: str) -> bool:
    """Whether this process runs a module: not a guardian, which has the words of its child behind its own."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "-m" in words and words[words.index("-m") + 1] == module


def release(platform: Platform, versions: int) -> None:
    """Push version 1 into production, and more that wait for somebody to approve them."""
    platform.orrery.add_data("tides", tides(), why="first tides", actor="ann", key="first")
    for number in range(1, versions + 1):
        ridge = PIPELINE.replace("1e-3", f"{number}e-3")
        platform.pushed(write_project(platform.tides, toml=SHADOWED, pipeline=ridge), "tides", f"ridge {number}")
        wait(functools.partial(_waits, platform, number))
        if number == 1:
            assert platform.api("POST", "/api/models/tides/versions/1/approve", json=WHY).status_code == 201
            wait(lambda: httpx.get(f"{platform.settings.serving_url}/v2/models/tides/ready").is_success)


def _waits(platform: Platform, number: int) -> bool:
    """Whether a version waits for somebody to approve it."""
    return any(one.number == number for one, _, _ in platform.orrery.model("tides").waiting())


def rows_of(platform: Platform) -> pl.DataFrame:
    """Ship what is left of the journal, and return the log as it is stored: nothing removed, nothing joined."""
    ship(platform.settings.home / FOLDER, platform.orrery.lake)
    log = PredictionLog(platform.orrery.lake, "tides").rows(PRODUCTION, None, None)
    return log.select("_id", "_version", "_role").collect()


def soak(
    folder: Path, seconds: float, moves: int, seed: int, sabotage: str = "", versions: int = 3
) -> tuple[list[Line], Soak]:
    """Run one in a new home; returns the verdict, and what was done."""
    platform = Platform(fresh_settings(folder / "home"))
    platform.start()
    try:
        release(platform, versions)
        with Load(platform.settings.serving_port) as load:
            done = Soak(platform, load, seed)
            done.run(seconds, moves)
        assert verify(event.to_json() for event in platform.orrery.timeline.read()).holds
    finally:
        platform.stop()
    rows = rows_of(platform)
    if sabotage:
        spoil(Path(platform.settings.lake, "predictions", "tides"), sabotage)
        rows = rows_of(platform)
    platform.orrery.timeline.engine.dispose()
    return judge(load.settle(done.outages), rows, done.memory, done.kills), done


def main() -> int:
    parser = argparse.ArgumentParser(description="Moves and kills under load.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--moves", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", choices=("lost", "doubled"), default="", help="the soak must fail then")
    parser.add_argument("--write", action="store_true", help=f"keep the verdict in {RESULTS.name}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        lines, done = soak(Path(temporary), 60 * asked.minutes, asked.moves, asked.seed, asked.sabotage)
    moved = ", ".join(f"{what} {count}" for what, count in sorted(done.moves.items()))
    applied = sorted(done.applied)
    said = f"{sum(done.moves.values())} moves: {moved}. "
    if applied:
        said += f"A new champion gave its first answer after {applied[len(applied) // 2]:.2f} s (median), "
        said += f"{applied[-1]:.2f} s (longest), from the order on. "
    if not done.canaries:
        said += "No canaries: this control plane does not know them. "
    text = f"{table(lines)}\n\n{said.strip()}\n"
    print(text)
    if asked.write:
        command = shlex.join(["python", "-m", "acceptance.soak", *sys.argv[1:]])
        RESULTS.write_text(
            f"# Soak\n\n`{command}` in `tests`; Python {machine.python_version()}, {os.cpu_count()} cores, load "
            f"{os.getloadavg()[1]:.1f} at the end.\n\n{str(__doc__).split(chr(10) * 2, 2)[2].strip()}\n\n{text}"
        )
    return 0 if all(line.kept for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
