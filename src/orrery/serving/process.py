"""The life of the inference server's process: start from what is on disk, serve, and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from orrery.access.homekey import home_key
from orrery.access.tls import Certificate
from orrery.data.pseudonyms import Pseudonyms, privacy_key
from orrery.errors import Damaged, NotAllowed
from orrery.serving.assignment import AssignmentFile
from orrery.serving.channel import Spawn
from orrery.serving.channel import spawn as contained
from orrery.serving.control import ControlLink
from orrery.serving.door import Door, Limits
from orrery.serving.explaining import Explaining
from orrery.serving.fleet import Fleet
from orrery.serving.http1 import Listener
from orrery.serving.log import say
from orrery.serving.metrics import Metrics
from orrery.serving.model_process import HOST
from orrery.serving.prediction import Journal, Predictor, microseconds
from orrery.serving.probation import Memory
from orrery.serving.replicas import Replica
from orrery.serving.server import Server
from orrery.serving.service import Service
from orrery.settings import Settings
from orrery.timeline.clock import clock_of
from orrery.workers.walls import Walling
from orrery.workers.warm import WarmStarts

if TYPE_CHECKING:
    from orrery.serving.rpc import Rpc

STOP_WITHIN = 60.0
WARM_WITHIN = 30.0
FORK_SERVERS = 4
"""Environments whose libraries are kept imported, at most."""
QUIET = 0.3
"""Seconds without a request after which nobody is taken to be on the way any more."""


def serve(
    settings: Settings,
    *,
    spawn: Spawn | None = None,
    journal: Journal | None = None,
    limits: Limits | None = None,
    replica: int = 0,
) -> int:
    """Serve until SIGTERM or SIGINT, then finish what runs; return the exit code.

    Parameters
    ----------
    settings : home, ports, clock and what is kept how.
    spawn : starts a model process; by default one that is held to the memory of its version, forked where it can be.
    journal : gets the predictions; by default the one in ``serving/journal`` in the home folder.
    limits : what is refused at the door; by default what the settings say.
    replica : which one of several that share the ports, from 1 on; 0 for one that is alone.

    Raises
    ------
    NotAllowed
        If another server, or the same replica, runs in this home, or the port is taken.
    """
    folder = settings.folder("serving")
    with _alone(folder, settings, replica):
        if journal is None:
            from orrery.data.journal import Journal as Default

            journal = Default(folder / "journal", _name(settings, replica), fsync=settings.journal_fsync)
        warm = WarmStarts(settings.folder("cache") / "imported", (HOST,), most=FORK_SERVERS, wait=False)
        try:
            with asyncio.Runner(loop_factory=_loops()) as runner:
                walling = Walling(settings.walls, settings.home)
                spawn = spawn or partial(contained, warm=warm, walling=walling)
                runner.run(_run(settings, spawn, journal, limits or _limits(settings), replica))
        finally:
            warm.close()
            journal.close()
    return 0


def _loops() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes a fast event loop; nothing where it is not installed, and asyncio's own does the same."""
    try:
        found: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return found


def _limits(settings: Settings) -> Limits:
    body, seconds = settings.body_bytes, float(settings.body_seconds)
    return Limits(body=body, bodies=8 * body, requests=settings.requests_at_once, seconds=seconds)


def _name(settings: Settings, replica: int) -> str:
    return f"serving-{settings.serving_port}" + (f"-{replica}" if replica else "")


async def _run(settings: Settings, spawn: Spawn, journal: Journal, limits: Limits, replica: int) -> None:
    metrics, clock, folder = Metrics(), clock_of(settings), settings.folder("serving")
    sheet = Replica(folder, replica, settings.replicas, metrics)
    predictor = Predictor(journal, metrics, settings.journal_full)
    file = AssignmentFile(folder / "assignment.json")
    with (
        ThreadPoolExecutor(1, "starts-models") as starts,
        ThreadPoolExecutor(1, "asks-control") as asks,
    ):
        link: ControlLink | None = None
        memory = Memory(folder / (f"taken-{replica}.json" if replica else "taken.json"))
        fleet = Fleet(spawn, starts, predictor, metrics, memory, lambda: link.wake() if link else None)
        key = home_key(settings.home) if settings.access == "required" else ""
        name = _name(settings, replica)
        link = ControlLink(
            settings.control_url, name, fleet, file, lambda: predictor.served, asks, key, lambda: service.passes
        )
        try:
            last = file.load()
        except Damaged as error:
            say(f"{error.what} It is asked for anew.")
            last = None
        if last is not None:
            fleet.apply(last)
        explaining = Explaining(spawn, starts, metrics)
        service = Service(
            fleet,
            predictor,
            explaining,
            metrics,
            lambda: microseconds(clock.now()),
            version=version("orrery-ml"),
            key=key,
            replay=settings.replay,
            pseudonyms=lambda: Pseudonyms(privacy_key(settings)),
        )
        tasks = [asyncio.create_task(link.run()), asyncio.create_task(sheet.run())]
        door = Door(limits)
        if replica and last is not None:
            await _settled(fleet, last.seq)
        certificate = None
        if settings.serving_tls_port or settings.grpc_tls_port:
            certificate = Certificate(settings, settings.serving_clients)
            tasks.append(asyncio.create_task(certificate.follow(say)))
        rpc = await _rpc(service, door, settings, certificate)
        app = Server(service, door, sheet.metrics)
        listeners = [Listener(app.answer, limits, settings.serving_port, shared=bool(replica))]
        if certificate is not None and (port := settings.serving_tls_port):
            by_tls = {"host": settings.listen, "tls": certificate.context}
            listeners.append(Listener(app.answer, limits, port, shared=bool(replica), **by_tls))  # type: ignore[arg-type]
        await _listen(listeners, door, rpc)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sheet.leave()
        await asyncio.gather(fleet.stop(), explaining.stop())


async def _settled(fleet: Fleet, seq: int) -> None:
    """Wait until what was assigned last answers or has failed: until then the other replicas answer alone."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WARM_WITHIN):
            while fleet.applied < seq:
                await asyncio.sleep(0.02)


async def _rpc(service: Service, door: Door, settings: Settings, certificate: Certificate | None) -> Rpc | None:
    """Answer over gRPC as well; its library costs 11 MB, which only who asks for it pays."""
    if not (settings.grpc_port or settings.grpc_tls_port):
        return None
    from orrery.serving.rpc import Rpc

    rpc = Rpc(service, door, shared=settings.replicas > 1, clients=bool(settings.serving_clients))
    host = f"[{settings.listen}]" if ":" in settings.listen else settings.listen
    await rpc.start(
        settings.grpc_port, f"{host}:{settings.grpc_tls_port}", certificate if settings.grpc_tls_port else None
    )
    return rpc


async def _listen(listeners: list[Listener], door: Door, rpc: Rpc | None) -> None:
    """Answer requests until a signal comes; then let nobody in any more, and answer all who are there."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    gc.freeze()  # what was imported lives for ever: collections need not look at it
    await asked.wait()
    loop.call_later(STOP_WITHIN, os._exit, 1)  # somebody holds on to a request for longer than any timeout
    door.closing = True
    await asyncio.gather(*(one.refuse() for one in listeners))
    if rpc is not None:
        await rpc.stop()
    await door.quiet(QUIET)
    for one in listeners:
        one.close()


@contextlib.contextmanager
def _alone(folder: Path, settings: Settings, replica: int) -> Iterator[None]:
    """Hold the home's lock, and see that nobody else listens on the port.

    Replicas hold the lock together, and each one of its own.
    """
    with open(folder / "lock", "w") as lock, open(folder / f"lock-{replica}", "w") as own:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if replica else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NotAllowed(
                f"An inference server already runs in {settings.home}.", todo="Stop it first, or give another --home."
            ) from None
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if replica else socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", settings.serving_port))
            except OSError:
                raise NotAllowed(
                    f"Port {settings.serving_port} is taken.", todo="Set ORRERY_SERVING_PORT to a free one."
                ) from None
        yield
